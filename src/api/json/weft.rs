//! Weft's own endpoints under `/v1/weft`, in snake case. The CLI reads and prints the same shapes, so
//! they are both written and read here.

use serde::{Deserialize, Serialize};

/// `GET /v1/weft/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub datacenter: String,
    pub node: String,
    pub trust_domain: String,
    /// `allow` or `deny`: what applies when no intention matches.
    pub default_policy: String,
    pub intentions: usize,
    /// Applications; sidecars are not counted.
    pub services: usize,
    pub instances: usize,
    pub checks: CheckCounts,
    pub proxies: ProxyCounts,
    pub position: PositionJson,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCounts {
    pub passing: usize,
    pub warning: usize,
    pub critical: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyCounts {
    pub connected: usize,
    pub disconnected: usize,
    /// Connected, but refused a part of its configuration.
    pub refusing: usize,
}

/// A position in the history of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionJson {
    /// Hexadecimal: 64 bits do not fit JSON's numbers.
    pub epoch: String,
    pub revision: u64,
}

/// One of `GET /v1/weft/services`: applications, without their sidecars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    pub name: String,
    pub instances: usize,
    pub passing: usize,
    pub warning: usize,
    pub critical: usize,
    /// Instances with a sidecar in front, or that speak Connect themselves.
    pub meshed: usize,
    pub tags: Vec<String>,
}

/// One of `GET /v1/weft/proxies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    pub service: String,
    pub instance: String,
    pub node: String,
    pub version: String,
    pub connected: bool,
    pub draining: bool,
    /// When it connected or was lost, RFC 3339.
    pub since: String,
    /// The last state it has taken. Changes it did not ask to hear of leave this behind the server's.
    pub acknowledged: PositionJson,
    /// Resources it refused in the last batch.
    pub refused: Vec<String>,
    /// When its leaf expires, RFC 3339.
    pub leaf_not_after: Option<String>,
    /// Negative when the leaf has expired.
    pub leaf_seconds_left: Option<i64>,
}

/// `GET /v1/weft/intention/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictJson {
    pub source: String,
    pub destination: String,
    pub allowed: bool,
    /// Allowed only so that it is logged what `deny` would refuse.
    pub audited: bool,
    /// The rule that decided; null when the default policy did.
    pub rule: Option<RuleJson>,
    /// The verdict in words.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleJson {
    pub source: String,
    pub destination: String,
    pub precedence: u8,
}

/// `POST /v1/weft/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    pub services: Vec<String>,
    /// A Go duration.
    pub ttl: String,
    pub uses: u32,
}

/// The answer to [`TokenRequest`]. The token is shown here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReply {
    pub token: String,
}

impl std::fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenReply(..)")
    }
}

/// An entry of `/v1/weft/bans`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanJson {
    /// `identity`, `enrolment` or `serial`.
    pub kind: String,
    pub value: String,
    pub reason: String,
    /// RFC 3339.
    pub created: String,
}
