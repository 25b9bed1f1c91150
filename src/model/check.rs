//! Health checks: what a user declares, what the catalog shows, and the pure state machine between.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::name::{InstanceId, NodeName, ServiceName};

/// Identifier of a check on its node, such as `service:web-1`.
pub type CheckId = String;

/// Consul's limit for the text a check keeps, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 4096;

/// State of a check. Ordered from best to worst, so `max` is the aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    Passing,
    Warning,
    Critical,
}

impl CheckStatus {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Reads Consul's word for a status.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical].into_iter().find(|s| s.as_str() == word)
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a check finds out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    Http {
        url: String,
        method: String,
        headers: BTreeMap<String, Vec<String>>,
        body: String,
        tls_skip_verify: bool,
    },
    /// `address` is `host:port`.
    Tcp { address: String },
    /// Standard gRPC health protocol; `service` is empty for the whole server.
    Grpc { address: String, service: String, use_tls: bool, tls_skip_verify: bool },
    /// Passes only while someone says so at least once per `ttl`.
    Ttl { ttl: Duration },
    /// Copies the worst state of another service instance on the same node.
    Alias { service: InstanceId },
}

impl CheckKind {
    /// Consul's word in the `Type` field.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Grpc { .. } => "grpc",
            Self::Ttl { .. } => "ttl",
            Self::Alias { .. } => "alias",
        }
    }
}

/// A check as its owner declared it. Zero `interval` and `timeout` appear only with TTL and alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDefinition {
    pub id: CheckId,
    pub name: String,
    pub notes: String,
    pub kind: CheckKind,
    pub interval: Duration,
    pub timeout: Duration,
    /// Status before the first result.
    pub initial: CheckStatus,
    /// Consecutive successes needed beyond the first before it passes.
    pub success_before_passing: u32,
    /// Consecutive failures needed beyond the first before it is critical.
    pub failures_before_critical: u32,
    /// Deregister the instance after it was critical for so long.
    pub deregister_critical_after: Option<Duration>,
}

/// A check as the catalog holds it: who it is about and what was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub node: NodeName,
    pub id: CheckId,
    pub name: String,
    pub notes: String,
    pub status: CheckStatus,
    pub output: String,
    /// The instance it is about; `None` for a check of the whole node.
    pub instance: Option<(InstanceId, ServiceName)>,
    /// Consul's `Type` word, empty for node checks.
    pub type_name: String,
    /// What to run; `None` when someone else runs it and only reports.
    pub definition: Option<CheckDefinition>,
}

/// A new result of a check, on its way to the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    pub id: CheckId,
    pub status: CheckStatus,
    pub output: String,
}

/// Applies the thresholds of a definition to single results. Pure: one call per result.
#[derive(Debug, Clone)]
pub struct CheckMachine {
    status: CheckStatus,
    successes: u32,
    failures: u32,
    success_before_passing: u32,
    failures_before_critical: u32,
}

impl CheckMachine {
    #[must_use]
    pub const fn new(definition: &CheckDefinition) -> Self {
        Self {
            status: definition.initial,
            successes: 0,
            failures: 0,
            success_before_passing: definition.success_before_passing,
            failures_before_critical: definition.failures_before_critical,
        }
    }

    #[must_use]
    pub const fn status(&self) -> CheckStatus {
        self.status
    }

    /// Takes one result and returns the state after it. A warning counts as a success, as in Consul.
    pub fn observe(&mut self, result: CheckStatus) -> CheckStatus {
        if result == CheckStatus::Critical {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures > self.failures_before_critical {
                self.status = CheckStatus::Critical;
            }
        } else {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes > self.success_before_passing {
                self.status = result;
            }
        }
        self.status
    }
}

/// Cuts a check's output to what Consul keeps, and says so.
#[must_use]
pub fn cut_output(output: &str) -> String {
    if output.len() <= MAX_OUTPUT_BYTES {
        return output.to_owned();
    }
    let mut end = MAX_OUTPUT_BYTES;
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ... (captured {end} of {} bytes)", &output[..end], output.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use CheckStatus::{Critical, Passing, Warning};

    fn machine(initial: CheckStatus, passes: u32, failures: u32) -> CheckMachine {
        CheckMachine {
            status: initial,
            successes: 0,
            failures: 0,
            success_before_passing: passes,
            failures_before_critical: failures,
        }
    }

    #[test]
    fn without_thresholds_every_result_counts() {
        let mut m = machine(Critical, 0, 0);
        for result in [Passing, Critical, Warning, Passing, Critical] {
            assert_eq!(m.observe(result), result);
        }
    }

    #[test]
    fn thresholds_absorb_single_results() {
        let mut m = machine(Passing, 1, 2);
        let seen: Vec<_> =
            [Critical, Critical, Passing, Critical, Critical, Critical, Passing, Passing, Warning]
                .into_iter()
                .map(|r| m.observe(r))
                .collect();
        assert_eq!(
            seen,
            [Passing, Passing, Passing, Passing, Passing, Critical, Critical, Passing, Warning]
        );
    }

    #[test]
    fn output_is_cut_at_a_character() {
        assert_eq!(cut_output("ok"), "ok");
        let cut = cut_output(&"ä".repeat(3000));
        assert!(cut.ends_with(" ... (captured 4096 of 6000 bytes)"));
    }
}
