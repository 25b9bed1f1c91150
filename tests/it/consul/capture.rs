//! Reads the captures of `tests/corpus/consul`; its README has their form.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A request as it was sent to Consul, and Consul's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) target: String,
    /// Body of the request.
    pub(super) sent: String,
    pub(super) status: u16,
    /// By lower-case name.
    pub(super) headers: BTreeMap<String, String>,
    /// Body of the answer.
    pub(super) body: String,
}

impl Exchange {
    /// `METHOD target`, and ` <= body` if the request had one.
    pub(super) fn request(&self) -> String {
        let line = format!("{} {}", self.method, self.target);
        if self.sent.is_empty() { line } else { format!("{line} <= {}", self.sent) }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// The text of a capture.
pub(super) fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/consul").join(name);
    fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// All exchanges of a capture, in order.
pub(super) fn parse(text: &str) -> Vec<Exchange> {
    text.split("### ").skip(1).map(exchange).collect()
}

fn exchange(chunk: &str) -> Exchange {
    let chunk = until_note(chunk);
    let (request, answer) =
        chunk.split_once("\nHTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {chunk}"));
    let (line, sent) = request.split_once(" <= ").unwrap_or((request, ""));
    let (method, target) = line.trim_end().split_once(' ').unwrap();
    let (head, body) = answer.split_once("\n\n").unwrap_or((answer.trim_end(), ""));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').next().unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
        (name.to_lowercase(), value.to_owned())
    };
    Exchange {
        method: method.to_owned(),
        target: target.to_owned(),
        sent: sent.to_owned(),
        status,
        headers: lines.map(header).collect(),
        body: body.strip_suffix("\n\n").or(body.strip_suffix('\n')).unwrap_or(body).to_owned(),
    }
}

/// What stands before a note or a heading between two exchanges.
fn until_note(chunk: &str) -> &str {
    let notes = ["\n===", "\n--- "];
    let end = notes.iter().filter_map(|note| chunk.find(note)).min();
    end.map_or(chunk, |end| &chunk[..=end])
}

#[test]
fn captures_are_read_to_the_byte() {
    let mut measured = 0;
    for (name, exchanges) in [
        ("agent-catalog-health-empty.txt", 19),
        ("register-http-check.txt", 12),
        ("health-params-errors.txt", 28),
        ("sidecar-expansion.txt", 10),
        ("register-validation-errors.txt", 32),
        ("checks-api.txt", 32),
        ("maintenance-catalog-write.txt", 45),
        ("ca-leaf-authorize-intentions.txt", 41),
        ("config-entries-discovery-chain.txt", 33),
        ("kv-session-event-txn-query-operator.txt", 38),
        ("ca-config-errors.txt", 9),
        ("head-gzip-noleader.txt", 6),
    ] {
        let found = parse(&read(name));
        assert_eq!(found.len(), exchanges, "{name}");
        for exchange in found {
            assert!(exchange.target.starts_with('/'), "{name}: {exchange:?}");
            let Some(length) = exchange.header("content-length") else { continue };
            assert_eq!(length, exchange.body.len().to_string(), "{name}: {exchange:?}");
            measured += 1;
        }
    }
    assert!(measured > 80, "only {measured} answers tell their length");
}

#[test]
fn requests_and_answers_are_told_apart() {
    let text = "--- note\n  ### PUT /v1/x?a=b <= {\"A\":1}\nHTTP/1.1 400 Bad Request\nContent-Type: text/plain\n\n\
                no\n\n### GET /y \nHTTP/1.1 200 OK\nX: y: z\n\n[]\n\n\n=== more\n";
    let [put, get] = parse(text).try_into().unwrap();
    assert_eq!(put.request(), r#"PUT /v1/x?a=b <= {"A":1}"#);
    assert_eq!(
        (put.status, put.header("content-type"), put.body.as_str()),
        (400, Some("text/plain"), "no")
    );
    assert_eq!(
        (get.request().as_str(), get.header("x"), get.body.as_str()),
        ("GET /y", Some("y: z"), "[]\n")
    );
}
