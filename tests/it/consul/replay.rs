//! Every captured exchange, sent to a server of ours: what is answered otherwise must stand in one of
//! the two tables of `expectations`, and what stands there must be answered otherwise.

use std::time::{Duration, Instant};

use super::capture::{self, Exchange};
use super::compare::{Bindings, Difference, compare};
use super::expectations::{DIFFERENCES, GAPS, Row};
use super::world::World;
use crate::http;
use crate::pace::look_again;

/// The captures in the order they were made, on one server.
const CAPTURES: [&str; 12] = [
    "agent-catalog-health-empty",
    "register-http-check",
    "health-params-errors",
    "sidecar-expansion",
    "register-validation-errors",
    "checks-api",
    "maintenance-catalog-write",
    "ca-leaf-authorize-intentions",
    "config-entries-discovery-chain",
    "kv-session-event-txn-query-operator",
    "ca-config-errors",
    "head-gzip-noleader",
];

/// Before this capture the application did not answer yet.
const APPLICATION_ANSWERS_FROM: &str = "health-params-errors";

/// What was done before a capture and is in none.
const UNRECORDED: [(&str, &[&str]); 1] = [(
    "maintenance-catalog-write",
    &[
        "PUT /v1/agent/check/deregister/svcchk",
        "PUT /v1/agent/check/deregister/al",
        "PUT /v1/agent/check/deregister/al2",
        "PUT /v1/agent/check/deregister/g",
        "PUT /v1/agent/check/deregister/h",
        "PUT /v1/agent/check/deregister/h500",
        "PUT /v1/agent/check/deregister/t",
        "PUT /v1/agent/check/deregister/tok",
    ],
)];

/// Checks run and are reported beside the requests: so long a read may take to show what it must.
const SETTLE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn captured_requests_are_answered_as_by_consul() {
    let mut replay = Replay::start(tables()).await;
    for name in CAPTURES {
        if name == APPLICATION_ANSWERS_FROM {
            replay.world.open();
        }
        for (_, requests) in UNRECORDED.iter().filter(|(capture, _)| *capture == name) {
            replay.world.send_all(requests).await;
        }
        for exchange in capture::parse(&replay.here(&capture::read(&format!("{name}.txt")))) {
            replay.exchange(name, &exchange).await;
        }
    }
    let faults = replay.faults();
    assert!(faults.is_empty(), "{} faults:\n\n{}\n", faults.len(), faults.join("\n\n"));
}

struct Replay {
    world: World,
    bindings: Bindings,
    tables: Vec<Expected>,
    surprises: Vec<String>,
}

/// A row of either table, and what became of it.
struct Expected {
    row: &'static Row,
    /// What is missing, or the topic.
    about: &'static str,
    undo: &'static [&'static str],
    /// Requests that fit its pattern, and those of them that it is about.
    seen: usize,
    matched: usize,
    /// Requests that it matched and that were answered as by Consul.
    same: Vec<String>,
}

/// All rows of both tables.
fn tables() -> Vec<Expected> {
    let gaps = GAPS.iter().flat_map(|gap| expect(gap.missing, gap.rows, &[]));
    let differences = DIFFERENCES.iter().flat_map(|d| expect(d.topic, d.rows, d.undo));
    gaps.chain(differences).collect()
}

fn expect(
    about: &'static str,
    rows: &'static [Row],
    undo: &'static [&'static str],
) -> impl Iterator<Item = Expected> {
    rows.iter().map(move |row| Expected { row, about, undo, seen: 0, matched: 0, same: Vec::new() })
}

impl Expected {
    /// Whether the request that was just seen is the one that the row is about.
    fn is_due(&self) -> bool {
        let (_, number) = self.row.counted();
        number.is_none_or(|number| number == self.seen)
    }
}

impl Replay {
    async fn start(tables: Vec<Expected>) -> Self {
        let world = World::start().await;
        Self { world, bindings: Bindings::default(), tables, surprises: Vec::new() }
    }

    /// A capture with the ports and the version of this run.
    fn here(&self, text: &str) -> String {
        let text = text.replace("18080", &self.world.app.to_string());
        let text = text.replace("18502", &self.world.grpc.to_string());
        // Its expiry is seen in a later capture; nobody waits that long.
        let text = text.replace(r#""ttl":"10s","CheckID":"cc4""#, r#""ttl":"2s","CheckID":"cc4""#);
        text.replace("1.8.7", env!("CARGO_PKG_VERSION"))
    }

    async fn exchange(&mut self, capture: &str, exchange: &Exchange) {
        let request = exchange.request();
        let mut rows: Vec<usize> = (0..self.tables.len())
            .filter(|index| self.tables[*index].row.matches(capture, &request))
            .collect();
        for index in &rows {
            self.tables[*index].seen += 1;
        }
        rows.retain(|index| self.tables[*index].is_due());
        let allowed: Vec<&Row> = rows.iter().map(|index| self.tables[*index].row).collect();
        let found = self.send(exchange, &allowed).await;
        for index in rows {
            let expected = &mut self.tables[index];
            expected.matched += 1;
            for place in expected.row.stale(&found) {
                expected.same.push(format!("{request}{place}"));
            }
            self.world.send_all(expected.undo).await;
        }
        let surprising = unexpected(&found, &allowed);
        if !surprising.is_empty() {
            self.surprises.push(format!("{capture}: {request}\n{}", surprising.join("\n")));
        }
    }

    /// Sends the request and compares. A read is repeated until only expected differences are left, or
    /// until there was time enough.
    async fn send(&mut self, exchange: &Exchange, allowed: &[&Row]) -> Vec<Difference> {
        let began = Instant::now();
        let wanted = Exchange { body: self.bindings.translate(&exchange.body), ..exchange.clone() };
        let target = self.bindings.translate(&exchange.target);
        let sent = self.bindings.translate(&exchange.sent);
        loop {
            let mut bindings = self.bindings.clone();
            let answer = http::send(self.world.http, &exchange.method, &target, &sent).await;
            let found = compare(&wanted, &answer, &mut bindings);
            let is_done = exchange.method != "GET" || began.elapsed() > SETTLE;
            if is_done || unexpected(&found, allowed).is_empty() {
                self.bindings = bindings;
                return found;
            }
            look_again().await;
        }
    }

    fn faults(self) -> Vec<String> {
        let mut faults = self.surprises;
        for Expected { row, about, matched, same, .. } in self.tables {
            let name = format!("{}: {} ({about})", row.capture, row.request);
            if matched == 0 {
                faults.push(format!(
                    "{name}\n  is listed in expectations.rs, but no such request was captured"
                ));
            }
            for request in same {
                faults.push(format!(
                    "{name}\n  is answered as by Consul now: take it out of expectations.rs ({request})"
                ));
            }
        }
        faults
    }
}

fn unexpected(found: &[Difference], allowed: &[&Row]) -> Vec<String> {
    let is_allowed = |at: &str| allowed.iter().any(|row| row.covers(at));
    let left = found.iter().filter(|difference| !is_allowed(&difference.at));
    left.map(|difference| format!("  {}: {}", difference.at, difference.text)).collect()
}

#[tokio::test]
async fn surprises_and_stale_rows_are_told() {
    const ROWS: &[Row] = &[
        Row { capture: "x", request: "GET /v1/catalog/datacenters", at: &[] },
        Row { capture: "x", request: "GET /v1/status/peers", at: &["/0"] },
        Row { capture: "x", request: "GET /v1/never", at: &[] },
        Row { capture: "x", request: "PUT /v1/agent/service/register*", at: &["status"] },
    ];
    let text = "### GET /v1/catalog/datacenters \nHTTP/1.1 200 OK\nContent-Type: application/json\n\n\
                [\n    \"dc1\"\n]\n\n\n\
                ### GET /v1/status/peers \nHTTP/1.1 200 OK\nContent-Type: application/json\n\n\
                [\n    \"10.0.0.1:18300\"\n]\n\n\n\
                ### POST /v1/catalog/nodes \nHTTP/1.1 405 Method Not Allowed\nAllow: OPTIONS,PUT\n\
                Content-Type: text/plain; charset=utf-8\n\nmethod POST not allowed\n\n\
                ### PUT /v1/agent/service/register <= {}\nHTTP/1.1 200 OK\n\n\n\n";
    let mut replay = Replay::start(expect("test", ROWS, &[]).collect()).await;
    for exchange in capture::parse(text) {
        replay.exchange("x", &exchange).await;
    }
    let [surprise, same, never] = replay.faults().try_into().unwrap();
    assert_eq!(
        surprise,
        "x: POST /v1/catalog/nodes\n  header allow: Some(\"OPTIONS,PUT\") is Some(\"OPTIONS,GET\")"
    );
    assert!(same.starts_with("x: GET /v1/catalog/datacenters (test)\n  is answered as by Consul now"));
    assert!(never.starts_with("x: GET /v1/never (test)\n  is listed in expectations.rs, but no such"));
}
