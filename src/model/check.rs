//! Health checks: what a user declares, what the catalog shows, and the pure state machine between.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    Tcp {
        address: String,
        #[serde(default)]
        use_tls: bool,
        #[serde(default)]
        tls_skip_verify: bool,
    },
    /// Passes unless the port is known to be closed: silence is no failure.
    Udp { address: String },
    /// Standard gRPC health protocol; `service` is empty for the whole server.
    Grpc { address: String, service: String, use_tls: bool, tls_skip_verify: bool },
    /// A PING over HTTP/2.
    H2ping { address: String, use_tls: bool, tls_skip_verify: bool },
    /// A unit of systemd.
    OsService { unit: String },
    /// A program of the machine: exit code 0 passes, 1 warns, others fail. Only from local files of an
    /// operator who allows it.
    Script { args: Vec<String> },
    /// Passes only while someone says so at least once per `ttl`.
    Ttl { ttl: Duration },
    /// Copies the worst state of another service instance on the same node, or of the node when there
    /// is no service.
    Alias {
        service: Option<InstanceId>,
        /// Consul's `AliasNode`: the node of the check itself, and no other.
        #[serde(default)]
        node: Option<NodeName>,
    },
}

impl CheckKind {
    /// Whether it runs a program that its definition names.
    #[must_use]
    pub const fn is_script(&self) -> bool {
        matches!(self, Self::Script { .. })
    }

    /// Consul's word in the `Type` field.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Grpc { .. } => "grpc",
            Self::Udp { .. } => "udp",
            Self::H2ping { .. } => "h2ping",
            Self::OsService { .. } => "os_service",
            Self::Script { .. } => "script",
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
    /// Consecutive successes it takes to pass again; 0 and 1 mean the first.
    pub success_before_passing: u32,
    /// Consecutive failures it takes to warn, before it is critical; `None` never warns.
    #[serde(default)]
    pub failures_before_warning: Option<u32>,
    /// Consecutive failures it takes to be critical; 0 and 1 mean the first.
    pub failures_before_critical: u32,
    /// Deregister the instance after it was critical for so long.
    pub deregister_critical_after: Option<Duration>,
}

impl CheckDefinition {
    /// A check with Consul's defaults: critical until the first result, which counts at once.
    #[must_use]
    pub const fn new(id: CheckId, name: String, kind: CheckKind) -> Self {
        Self {
            id,
            name,
            notes: String::new(),
            kind,
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            initial: CheckStatus::Critical,
            success_before_passing: 0,
            failures_before_warning: None,
            failures_before_critical: 0,
            deregister_critical_after: None,
        }
    }
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
    /// What a writer of the catalog says of how it is run: shown as it is, never run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Value>,
}

/// Id of the check that Consul gives every node with an agent.
pub const ALIVE_ID: &str = "serfHealth";

impl Check {
    /// Whether this is the catalog's word that the agent of a node is there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.id == ALIVE_ID
    }

    /// A check as it is declared, before its first result.
    #[must_use]
    pub fn declared(
        node: &NodeName,
        instance: Option<(InstanceId, ServiceName)>,
        definition: &CheckDefinition,
    ) -> Self {
        Self {
            node: node.clone(),
            id: definition.id.clone(),
            name: definition.name.clone(),
            notes: definition.notes.clone(),
            status: definition.initial,
            output: String::new(),
            instance,
            type_name: definition.kind.type_name().to_owned(),
            definition: Some(definition.clone()),
            shown: None,
        }
    }
}

/// A new result of a check, on its way to the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    pub id: CheckId,
    pub status: CheckStatus,
    pub output: String,
}

/// Applies the thresholds of a definition to single results, as Consul does: the first result counts at
/// once. Pure: one call per result.
#[derive(Debug, Clone)]
pub struct CheckMachine {
    status: CheckStatus,
    successes: u32,
    failures: u32,
    success_before_passing: u32,
    failures_before_warning: Option<u32>,
    failures_before_critical: u32,
}

impl CheckMachine {
    #[must_use]
    pub const fn new(definition: &CheckDefinition) -> Self {
        Self {
            status: definition.initial,
            successes: definition.success_before_passing,
            failures: definition.failures_before_critical,
            success_before_passing: definition.success_before_passing,
            failures_before_warning: definition.failures_before_warning,
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
            if self.failures >= self.failures_before_critical {
                self.status = CheckStatus::Critical;
            } else if self.failures_before_warning.is_some_and(|least| self.failures >= least) {
                self.status = CheckStatus::Warning;
            }
        } else {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.success_before_passing {
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

    fn machine(initial: CheckStatus, passes: u32, warns: Option<u32>, failures: u32) -> CheckMachine {
        let kind = CheckKind::Ttl { ttl: Duration::from_secs(1) };
        CheckMachine::new(&CheckDefinition {
            initial,
            success_before_passing: passes,
            failures_before_warning: warns,
            failures_before_critical: failures,
            ..CheckDefinition::new("c".to_owned(), "c".to_owned(), kind)
        })
    }

    fn seen(mut machine: CheckMachine, results: &[CheckStatus]) -> Vec<CheckStatus> {
        results.iter().map(|result| machine.observe(*result)).collect()
    }

    #[test]
    fn without_thresholds_every_result_counts() {
        let results = [Passing, Critical, Warning, Passing, Critical];
        assert_eq!(seen(machine(Critical, 0, None, 0), &results), results);
        assert_eq!(seen(machine(Critical, 1, None, 1), &results), results);
    }

    #[test]
    fn the_first_result_counts_at_once_and_later_ones_in_a_row() {
        let results = [Passing, Critical, Critical, Critical, Passing, Passing, Critical];
        assert_eq!(
            seen(machine(Critical, 2, None, 3), &results),
            [Passing, Passing, Passing, Critical, Critical, Passing, Passing]
        );
        assert_eq!(seen(machine(Passing, 2, None, 3), &[Critical, Passing]), [Critical, Critical]);
    }

    #[test]
    fn a_check_may_warn_before_it_is_critical() {
        let results = [Passing, Critical, Critical, Critical, Passing, Passing];
        assert_eq!(
            seen(machine(Critical, 2, Some(2), 3), &results),
            [Passing, Passing, Warning, Critical, Critical, Passing]
        );
    }

    #[test]
    fn output_is_cut_at_a_character() {
        assert_eq!(cut_output("ok"), "ok");
        let cut = cut_output(&"ä".repeat(3000));
        assert!(cut.ends_with(" ... (captured 4096 of 6000 bytes)"));
    }
}
