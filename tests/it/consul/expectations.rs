//! Where our answers are not Consul's: what is still missing, and what is meant to be so.
//!
//! A row names a capture and a request of it, and where in the answer the difference is. The replay fails
//! when a row no longer differs, so that both tables only shrink. `docs/consul-compatibility.md` lists
//! the second one for users; a test compares the two.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::compare;

/// Requests of one capture.
pub(super) struct Row {
    pub(super) capture: &'static str,
    /// `METHOD target`, with ` <= body` if it matters, or only the target, for all methods. A `*` at the
    /// end stands for any rest; ` #2` after it for the second such request only.
    pub(super) request: &'static str,
    /// Where the answer differs, as in `compare::Difference`; nothing stands for anywhere. What lies
    /// below a place belongs to it.
    pub(super) at: &'static [&'static str],
}

impl Row {
    /// Whether a request of a capture fits the pattern, whatever its number.
    pub(super) fn matches(&self, capture: &str, request: &str) -> bool {
        let line = request.split(" <= ").next().unwrap_or_default();
        let target = line.split_once(' ').map_or(line, |(_, target)| target);
        let (wanted, _) = self.counted();
        self.capture == capture
            && match wanted.strip_suffix('*') {
                Some(start) => request.starts_with(start) || target.starts_with(start),
                None => [target, line, request].contains(&wanted),
            }
    }

    /// The pattern, and which of the requests that fit it is meant; all of them if none is said.
    pub(super) fn counted(&self) -> (&'static str, Option<usize>) {
        match self.request.rsplit_once(" #") {
            Some((pattern, number)) => (pattern, number.parse().ok()),
            None => (self.request, None),
        }
    }

    pub(super) fn covers(&self, at: &str) -> bool {
        self.at.is_empty() || self.at.iter().any(|place| is_within(at, place))
    }

    /// The places at which nothing differs; for a row without places, the empty one.
    pub(super) fn stale(&self, found: &[compare::Difference]) -> Vec<&'static str> {
        if self.at.is_empty() {
            return if found.is_empty() { vec![""] } else { Vec::new() };
        }
        let differs = |place: &str| found.iter().any(|difference| is_within(&difference.at, place));
        self.at.iter().copied().filter(|place| !differs(place)).collect()
    }
}

/// Something that Consul has and we do not have yet.
pub(super) struct Gap {
    pub(super) missing: &'static str,
    pub(super) rows: &'static [Row],
}

/// Something that is meant to differ.
pub(super) struct Difference {
    /// As in the first column of the document.
    pub(super) topic: &'static str,
    /// Where it is seen; nothing if it is not seen in the captures.
    pub(super) rows: &'static [Row],
    /// Requests that bring both worlds together again.
    pub(super) undo: &'static [&'static str],
}

fn is_within(at: &str, place: &str) -> bool {
    at.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

const fn row(capture: &'static str, request: &'static str, at: &'static [&'static str]) -> Row {
    Row { capture, request, at }
}

pub(super) const GAPS: &[Gap] = &[];

pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        topic: "`agent/self` is smaller",
        rows: &[row(
            "agent-catalog-health-empty",
            "/v1/agent/self",
            &["/DebugConfig", "/Coord", "/Member/Tags", "/Stats", "/xDS"],
        )],
        undo: &[],
    },
    Difference {
        topic: "keys in snake case",
        rows: &[row(
            "register-validation-errors",
            r#"PUT /v1/agent/service/register <= {"name":"ok3"*"#,
            &[],
        )],
        undo: &["PUT /v1/agent/service/deregister/ok3"],
    },
    Difference {
        topic: "keys in snake case",
        rows: &[row("checks-api", r#"PUT /v1/agent/service/register <= {"name":"ok3b"*"#, &[])],
        undo: &["PUT /v1/agent/service/deregister/ok3b"],
    },
    Difference {
        topic: "mesh gateways",
        rows: &[row("checks-api", r#"PUT /v1/agent/service/register <= {"name":"ok3c"*"#, &["body"])],
        undo: &[],
    },
    Difference {
        topic: "`Script` of a check",
        rows: &[row(
            "register-validation-errors",
            r#"PUT /v1/agent/service/register <= {"Name":"x","Check":{"Script"*"#,
            &["body"],
        )],
        undo: &[],
    },
    Difference {
        topic: "unknown `Kind`",
        rows: &[row(
            "register-validation-errors",
            r#"PUT /v1/agent/service/register <= {"Name":"x","Kind":"bogus"}"#,
            &[],
        )],
        undo: &[],
    },
    Difference {
        topic: "empty `Meta`",
        rows: &[row("sidecar-expansion", "/v1/health/connect/web", &["/0/Service/Meta"])],
        undo: &[],
    },
    Difference {
        topic: "reload",
        rows: &[row(
            "maintenance-catalog-write",
            "/v1/agent/services",
            &["/user-service-1", "/web-sidecar-proxy"],
        )],
        undo: &[
            "PUT /v1/agent/service/deregister/user-service-1",
            "PUT /v1/agent/service/deregister/web-sidecar-proxy",
        ],
    },
    Difference {
        topic: "intentions by name",
        rows: &[
            row("ca-leaf-authorize-intentions", "GET /v1/connect/intentions/exact*", &[]),
            row("ca-leaf-authorize-intentions", "PUT /v1/connect/intentions/exact*", &[]),
        ],
        undo: &[
            r#"PUT /v1/connect/intentions/exact?source=web&destination=database <= {"Action":"deny","Description":"no","Meta":{"a":"b"}}"#,
        ],
    },
    Difference {
        topic: "web UI",
        rows: &[
            row("health-params-errors", "GET /", &[]),
            row("kv-session-event-txn-query-operator", "/v1/internal/ui/*", &[]),
        ],
        undo: &[],
    },
    Difference {
        topic: "discovery chain, gateways",
        rows: &[
            row("config-entries-discovery-chain", "/v1/discovery-chain/*", &[]),
            row("config-entries-discovery-chain", "/v1/catalog/gateway-services/*", &[]),
        ],
        undo: &[],
    },
    Difference {
        topic: "events",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/event/*", &[])],
        undo: &[],
    },
    Difference {
        topic: "prepared queries",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/query*", &[])],
        undo: &[],
    },
    Difference {
        topic: "network coordinates",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/coordinate/*", &[])],
        undo: &[],
    },
    Difference {
        topic: "operator",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/operator/*", &[])],
        undo: &[],
    },
    Difference {
        topic: "ACLs",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/acl/*", &[])],
        undo: &[],
    },
    Difference {
        topic: "join",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/agent/join/*", &[])],
        undo: &[],
    },
    Difference {
        topic: "Prometheus",
        rows: &[row("kv-session-event-txn-query-operator", "/v1/agent/metrics?format=prometheus", &[])],
        undo: &[],
    },
    Difference {
        topic: "client agents",
        rows: &[
            row("head-gzip-noleader", "/v1/catalog/services", &[]),
            row("head-gzip-noleader", "/v1/status/leader", &[]),
            row("head-gzip-noleader", "GET /v1/agent/services", &[]),
            row("head-gzip-noleader", "/v1/agent/connect/ca/roots", &[]),
        ],
        undo: &[],
    },
    Difference {
        topic: "`agent/self` is smaller",
        rows: &[row("agent-catalog-health-empty", "/v1/agent/members", &["/0/Tags"])],
        undo: &[],
    },
    Difference {
        topic: "the service `consul`",
        rows: &[
            row("agent-catalog-health-empty", "/v1/catalog/service/consul", &["/0/ServiceMeta"]),
            row("agent-catalog-health-empty", "/v1/catalog/node/n1", &["/Services/consul/Meta"]),
            row("agent-catalog-health-empty", "/v1/health/service/consul", &["/0/Service/Meta"]),
        ],
        undo: &[],
    },
    Difference {
        topic: "`?cached`",
        rows: &[
            row("health-params-errors", "/v1/health/service/user-service?cached", &["header x-cache"]),
            row(
                "ca-leaf-authorize-intentions",
                r#"POST /v1/agent/connect/authorize <= {"Target":"foo",*"#,
                &["header x-cache"],
            ),
            row(
                "ca-leaf-authorize-intentions",
                r#"POST /v1/agent/connect/authorize <= {"Target":"database",* #1"#,
                &["header x-cache"],
            ),
        ],
        undo: &[],
    },
    Difference {
        topic: "alias checks",
        rows: &[row(
            "checks-api",
            "/v1/agent/checks",
            &["/al/Output", "/al2/Output", "/service:p-sidecar-proxy:2"],
        )],
        undo: &[],
    },
    Difference {
        topic: "name of a root",
        rows: &[
            row("ca-leaf-authorize-intentions", "/v1/connect/ca/roots", &["/Roots/0/Name"]),
            row("ca-leaf-authorize-intentions", "/v1/agent/connect/ca/roots", &["/Roots/0/Name"]),
            row("ca-config-errors", "/v1/connect/ca/roots", &["/Roots/0/Name"]),
        ],
        undo: &[],
    },
    Difference {
        topic: "CA configuration",
        rows: &[
            row(
                "ca-leaf-authorize-intentions",
                "/v1/connect/ca/configuration",
                &["/Config/IntermediateCertTTL", "/Config/RotationPeriod"],
            ),
            row(
                "ca-config-errors",
                r#"PUT /v1/connect/ca/configuration <= {"Provider":"consul","Config":{"LeafCertTTL":"1h","PrivateKey":"zz"}}"#,
                &["body"],
            ),
        ],
        undo: &[],
    },
    Difference {
        topic: "config entries",
        rows: &[
            row("config-entries-discovery-chain", r#"PUT /v1/config <= {"Kind":"proxy-defaults"*"#, &[]),
            row("config-entries-discovery-chain", r#"PUT /v1/config <= {"Kind":"service-*"#, &[]),
            row(
                "config-entries-discovery-chain",
                r#"PUT /v1/config <= {"kind":"service-defaults"*"#,
                &[],
            ),
            row(
                "config-entries-discovery-chain",
                r#"PUT /v1/config <= {"Kind":"ingress-gateway"*"#,
                &[],
            ),
            row(
                "config-entries-discovery-chain",
                r#"PUT /v1/config <= {"Kind":"terminating-gateway"*"#,
                &[],
            ),
            row("config-entries-discovery-chain", "PUT /v1/config?cas=1", &[]),
            row("config-entries-discovery-chain", "GET /v1/config/service-resolver/web", &[]),
            row("config-entries-discovery-chain", "GET /v1/config/service-router/web", &[]),
            row("config-entries-discovery-chain", "GET /v1/config/service-splitter", &[]),
            row("config-entries-discovery-chain", "GET /v1/config/proxy-defaults/global", &[]),
            row("config-entries-discovery-chain", "GET /v1/config/service-defaults #2", &[]),
            row("config-entries-discovery-chain", "DELETE /v1/config/service-defaults/web", &[]),
            row("config-entries-discovery-chain", "/v1/config/ingress-gateway/ing", &[]),
            row("config-entries-discovery-chain", "/v1/config/terminating-gateway/tg", &[]),
        ],
        undo: &[],
    },
    // Seen elsewhere than in the captures.
    Difference { topic: "index of checks", rows: &[], undo: &[] },
    Difference { topic: "whole files as a registration", rows: &[], undo: &[] },
    Difference { topic: "first run of a check", rows: &[], undo: &[] },
    Difference { topic: "output of a check", rows: &[], undo: &[] },
    Difference { topic: "a deny ends what it forbids", rows: &[], undo: &[] },
    Difference { topic: "authorization before the application", rows: &[], undo: &[] },
    Difference { topic: "reasons of a refusal", rows: &[], undo: &[] },
    Difference { topic: "actions of an intention", rows: &[], undo: &[] },
    Difference { topic: "a stolen certificate", rows: &[], undo: &[] },
    Difference { topic: "HTTPS", rows: &[], undo: &[] },
    Difference { topic: "plain HTTP off loopback", rows: &[], undo: &[] },
    Difference { topic: "reads without permission", rows: &[], undo: &[] },
    Difference { topic: "`HEAD`", rows: &[], undo: &[] },
    Difference { topic: "SIGTERM", rows: &[], undo: &[] },
    Difference { topic: "filters", rows: &[], undo: &[] },
    Difference { topic: "DNS", rows: &[], undo: &[] },
    Difference { topic: "additional fields and headers", rows: &[], undo: &[] },
];

#[test]
fn the_document_lists_the_same_differences() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/consul-compatibility.md");
    let document = fs::read_to_string(path).unwrap();
    let table = document.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let documented: BTreeSet<_> = rows.map(|row| row.split(" | ").next().unwrap()).collect();
    let documented: BTreeSet<_> = documented.iter().map(|cell| cell.trim_start_matches("| ")).collect();
    let ours: BTreeSet<_> = DIFFERENCES.iter().map(|difference| difference.topic).collect();
    assert_eq!(documented, ours);
}

#[test]
fn rows_by_table() {
    let put = r#"PUT /v1/agent/service/register <= {"Name":"x"}"#;
    for (request, expected) in [
        ("/v1/agent/service/register", true),
        ("PUT /v1/agent/service/register", true),
        (put, true),
        ("/v1/agent/service/*", true),
        (r#"PUT /v1/agent/service/register <= {"Name"*"#, true),
        ("GET /v1/agent/service/register", false),
        ("/v1/agent/service", false),
        (r#"PUT /v1/agent/service/register <= {"Name":"y"*"#, false),
    ] {
        assert_eq!(row("a", request, &[]).matches("a", put), expected, "{request}");
        assert!(!row("b", request, &[]).matches("a", put));
    }
    let row = row("a", "/x", &["/0/Meta", "status"]);
    let covered = ["/0/Meta", "/0/Meta/a", "status", "/0/Meta2", "/0", "body"].map(|at| row.covers(at));
    assert_eq!(covered, [true, true, true, false, false, false]);
}
