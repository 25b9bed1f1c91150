//! Where our answers are not Consul's: what is still missing, and what is meant to be so.
//!
//! A row names a capture and a request of it, and where in the answer the difference is. The replay fails
//! when a row no longer differs, so that both tables only shrink. `docs/consul-compatibility.md` lists
//! the second one for users; a test compares the two.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Requests of one capture.
pub(super) struct Row {
    pub(super) capture: &'static str,
    /// `METHOD target`, with ` <= body` if it matters, or only the target, for all methods. A `*` at the
    /// end stands for any rest.
    pub(super) request: &'static str,
    /// Where the answer differs, as in `compare::Difference`; nothing stands for anywhere. What lies
    /// below a place belongs to it.
    pub(super) at: &'static [&'static str],
}

impl Row {
    pub(super) fn matches(&self, capture: &str, request: &str) -> bool {
        let line = request.split(" <= ").next().unwrap_or_default();
        let target = line.split_once(' ').map_or(line, |(_, target)| target);
        self.capture == capture
            && match self.request.strip_suffix('*') {
                Some(start) => request.starts_with(start) || target.starts_with(start),
                None => [target, line, request].contains(&self.request),
            }
    }

    pub(super) fn covers(&self, at: &str) -> bool {
        self.at.is_empty()
            || self.at.iter().any(|place| {
                at.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
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

const fn row(capture: &'static str, request: &'static str, at: &'static [&'static str]) -> Row {
    Row { capture, request, at }
}

pub(super) const GAPS: &[Gap] = &[
    Gap {
        missing: "the service `consul` of every server",
        rows: &[
            row("agent-catalog-health-empty", "/v1/catalog/services", &["/consul"]),
            row("agent-catalog-health-empty", "/v1/catalog/service/consul", &[]),
            row("agent-catalog-health-empty", "/v1/catalog/node/n1", &["/Services/consul"]),
            row("agent-catalog-health-empty", "/v1/health/service/consul", &[]),
            row("health-params-errors", "/v1/catalog/services", &["/consul"]),
            row("sidecar-expansion", "/v1/catalog/services", &["/consul"]),
        ],
    },
    Gap {
        missing: "agent/members, agent/metrics, agent/host, agent/monitor",
        rows: &[
            row("agent-catalog-health-empty", "/v1/agent/members", &[]),
            row("agent-catalog-health-empty", "/v1/agent/metrics", &[]),
            row("agent-catalog-health-empty", "/v1/agent/host", &[]),
            row("kv-session-event-txn-query-operator", "/v1/agent/monitor*", &[]),
        ],
    },
    Gap {
        missing: "agent/service and its hash",
        rows: &[
            row("register-http-check", "/v1/agent/service/user-service-1", &[]),
            row("register-http-check", "/v1/agent/service/nope", &[]),
            row("sidecar-expansion", "/v1/agent/service/web-sidecar-proxy", &[]),
            row("register-validation-errors", "/v1/agent/service/ok2", &[]),
            row("register-validation-errors", "/v1/agent/service/ok3", &[]),
            row("checks-api", "/v1/agent/service/ok3c-sidecar-proxy", &[]),
            row("checks-api", "/v1/agent/service/ok3", &[]),
        ],
    },
    Gap {
        missing: "agent/health",
        rows: &[
            row("register-http-check", "/v1/agent/health/*", &[]),
            row("health-params-errors", "/v1/agent/health/*", &[]),
            row("maintenance-catalog-write", "/v1/agent/health/*", &[]),
        ],
    },
    Gap {
        missing: "X-Cache of ?cached and of agent reads",
        rows: &[
            row("health-params-errors", "/v1/health/service/user-service?cached", &["header x-cache"]),
            row("ca-leaf-authorize-intentions", "/v1/agent/connect/ca/roots", &["header x-cache"]),
        ],
    },
    Gap {
        missing: "Go's words for what is no JSON, or of another type",
        rows: &[
            row("register-validation-errors", "PUT /v1/agent/service/register <= notjson", &["body"]),
            row(
                "register-validation-errors",
                r#"PUT /v1/agent/service/register <= {"Name":"x","Meta":{"a":1}}"#,
                &["body"],
            ),
        ],
    },
    Gap {
        missing: "script checks are refused in Consul's words",
        rows: &[row(
            "register-validation-errors",
            r#"PUT /v1/agent/service/register <= {"Name":"x","Check":{"Args"*"#,
            &[],
        )],
    },
    Gap {
        missing: "agent/check register, deregister, update",
        rows: &[
            row("checks-api", "/v1/agent/check/register", &[]),
            row("checks-api", "/v1/agent/check/deregister/*", &[]),
            row("checks-api", "/v1/agent/check/update/*", &[]),
            row("checks-api", "PUT /v1/agent/check/pass/memory", &[]),
            row("checks-api", "/v1/agent/check/warn/memory*", &[]),
            row("checks-api", "/v1/agent/check/fail/memory*", &[]),
            row(
                "checks-api",
                "/v1/agent/checks",
                &[
                    "/al",
                    "/al2",
                    "/g",
                    "/h",
                    "/h500",
                    "/memory",
                    "/service:web-sidecar-proxy:2",
                    "/svcchk",
                    "/t",
                    "/tok",
                ],
            ),
        ],
    },
    Gap {
        missing: "maintenance and reload",
        rows: &[
            row("maintenance-catalog-write", "/v1/agent/service/maintenance/*", &[]),
            row("maintenance-catalog-write", "/v1/agent/maintenance*", &[]),
            row("maintenance-catalog-write", "/v1/agent/reload", &[]),
            row(
                "maintenance-catalog-write",
                "/v1/agent/checks?filter=ServiceName==web",
                &["/_service_maintenance:web"],
            ),
        ],
    },
    Gap {
        missing: "writes to the catalog, and catalog/node-services",
        rows: &[
            row("maintenance-catalog-write", "/v1/catalog/register", &[]),
            row("maintenance-catalog-write", "/v1/catalog/deregister", &[]),
            row("maintenance-catalog-write", "/v1/catalog/node-services/*", &[]),
            row("maintenance-catalog-write", "/v1/health/service/redis", &[]),
            row("maintenance-catalog-write", "/v1/catalog/nodes?node-meta=external-node:true", &[]),
        ],
    },
    Gap {
        missing: "CA configuration, leaves and authorize",
        rows: &[
            row("ca-leaf-authorize-intentions", "/v1/connect/ca/configuration", &[]),
            row("ca-leaf-authorize-intentions", "/v1/agent/connect/ca/leaf/*", &[]),
            row("ca-leaf-authorize-intentions", "/v1/agent/connect/authorize", &[]),
            row("ca-config-errors", "/v1/connect/ca/configuration", &[]),
            row("ca-config-errors", "/v1/agent/connect/ca/leaf/*", &[]),
        ],
    },
    Gap {
        missing: "the name of a root",
        rows: &[
            row("ca-leaf-authorize-intentions", "/v1/connect/ca/roots", &["/Roots/0/Name"]),
            row("ca-leaf-authorize-intentions", "/v1/agent/connect/ca/roots", &["/Roots/0/Name"]),
            row("ca-config-errors", "/v1/connect/ca/roots", &["/Roots/0/Name"]),
        ],
    },
    Gap {
        missing: "config entries",
        rows: &[row("config-entries-discovery-chain", "/v1/config*", &[])],
    },
    Gap {
        missing: "KV, sessions, transactions",
        rows: &[
            row("kv-session-event-txn-query-operator", "/v1/kv/*", &[]),
            row("kv-session-event-txn-query-operator", "/v1/session/*", &[]),
            row("kv-session-event-txn-query-operator", "/v1/txn", &[]),
        ],
    },
];

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
    // Seen elsewhere than in the captures.
    Difference { topic: "index of checks", rows: &[], undo: &[] },
    Difference { topic: "whole files as a registration", rows: &[], undo: &[] },
    Difference { topic: "first run of a check", rows: &[], undo: &[] },
    Difference { topic: "output of a check", rows: &[], undo: &[] },
    Difference { topic: "a deny ends what it forbids", rows: &[], undo: &[] },
    Difference { topic: "authorization before the application", rows: &[], undo: &[] },
    Difference { topic: "reasons of a refusal", rows: &[], undo: &[] },
    Difference { topic: "`HEAD`", rows: &[], undo: &[] },
    Difference { topic: "SIGTERM", rows: &[], undo: &[] },
    Difference { topic: "filters", rows: &[], undo: &[] },
    Difference { topic: "additional fields and headers", rows: &[], undo: &[] },
];

#[test]
fn the_document_lists_the_same_differences() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/consul-compatibility.md");
    let document = fs::read_to_string(path).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| ")).skip(2);
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
