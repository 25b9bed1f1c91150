//! Whether an answer is Consul's: status, headers, texts to the byte, and JSON by keys, types and
//! values, except for what is another on every run.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde_json::Value;

use super::capture::Exchange;
use crate::http::Answer;

/// Fields that are another on every run; only their type is compared, and for numbers whether they are 0.
const VOLATILE: &[&str] = &[
    "CertPEM",
    "ContentHash",
    "CreateIndex",
    "Hash",
    "Index",
    "LTime",
    "LockIndex",
    "ModifyIndex",
    "PrivateKeyPEM",
    "RootCert",
    "SerialNumber",
];

/// Headers that clients read, besides all that begin with `X-Consul-`.
const HEADERS: &[&str] = &[
    "allow",
    "content-security-policy",
    "content-type",
    "location",
    "vary",
    "x-cache",
    "x-content-type-options",
];

/// Headers that later versions of Consul add.
const LATER_HEADERS: &[&str] = &["x-consul-default-acl-policy", "x-consul-query-backend"];

/// Fields that later versions of Consul add. Clients pass over what they do not know.
const LATER_FIELDS: &[&str] = &["Datacenter", "ExposedPort", "Interval", "PeerName", "Timeout"];

/// One thing that is not as in the capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// `status`, `header NAME`, `body`, or a JSON pointer into the body.
    pub(super) at: String,
    pub(super) text: String,
}

/// Ids of the capture and what they are here: learnt from answers, put into later requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Bindings(BTreeMap<String, String>);

impl Bindings {
    /// A text of the capture with the ids of this run.
    pub(super) fn translate(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (captured, own) in &self.0 {
            text = text.replace(captured, own);
        }
        text
    }

    /// False if the captured id is known to be another one here.
    fn bind(&mut self, captured: &str, own: &str) -> bool {
        self.0.entry(captured.to_owned()).or_insert_with(|| own.to_owned()) == own
    }
}

/// All differences between a captured exchange and an answer.
pub(super) fn compare(wanted: &Exchange, got: &Answer, bindings: &mut Bindings) -> Vec<Difference> {
    let mut comparison = Comparison { bindings, found: Vec::new() };
    if wanted.status == got.status {
        comparison.headers(wanted, got);
        comparison.body(wanted, got);
    } else {
        // Everything else follows from it.
        let text = format!("{} is {} {:?}", wanted.status, got.status, got.body);
        comparison.found.push(Difference { at: "status".to_owned(), text });
    }
    comparison.found
}

struct Comparison<'a> {
    bindings: &'a mut Bindings,
    found: Vec<Difference>,
}

impl Comparison<'_> {
    fn differ(&mut self, at: &str, wanted: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug) {
        self.found.push(Difference { at: at.to_owned(), text: format!("{wanted:?} is {got:?}") });
    }

    fn headers(&mut self, wanted: &Exchange, got: &Answer) {
        let is_consuls = |name: &&str| name.starts_with("x-consul-") && !LATER_HEADERS.contains(name);
        let names = wanted.headers.keys().chain(got.headers.keys()).map(String::as_str);
        let mut names: Vec<&str> = names.filter(is_consuls).chain(HEADERS.iter().copied()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (captured, own) = (wanted.header(name), got.headers.get(name).map(String::as_str));
            let same = match (name, captured, own) {
                ("x-consul-index", Some(_), Some(own)) => own.parse().is_ok_and(|index: u64| index > 0),
                ("x-consul-contenthash", Some(_), Some(own)) => {
                    own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit())
                }
                // Left out of most captures; sent always, as later versions do with some settings.
                ("vary" | "x-content-type-options", None, _) => true,
                (_, captured, own) => captured == own,
            };
            if !same {
                self.differ(&format!("header {name}"), &captured, &own);
            }
        }
    }

    fn body(&mut self, wanted: &Exchange, got: &Answer) {
        if wanted.header("content-type") != Some("application/json") {
            self.text("body", &wanted.body, &got.body);
            return;
        }
        let Ok(own) = serde_json::from_str::<Value>(&got.body) else {
            self.differ("body", &wanted.body, &got.body);
            return;
        };
        match serde_json::from_str::<Value>(&wanted.body) {
            // The tags of a service are a set, which Consul walks in any order.
            Ok(captured) if wanted.target.starts_with("/v1/catalog/services") => {
                self.value("", &with_sorted_lists(captured), &with_sorted_lists(own));
            }
            Ok(captured) => self.value("", &captured, &own),
            // The capture was cut off: what is left says no more than what it is.
            Err(_) => {
                if wanted.body.chars().next() != got.body.chars().next() {
                    self.differ("body", &wanted.body, &got.body);
                }
            }
        }
        if !is_indented(&got.body) {
            self.differ("body", &"indented by four spaces, and ended by a line feed", &got.body);
        }
    }

    fn value(&mut self, at: &str, wanted: &Value, got: &Value) {
        let key = at.rsplit('/').next().unwrap_or_default();
        if VOLATILE.contains(&key) && kind(wanted) == kind(got) {
            if (wanted == 0) != (got == 0) {
                self.differ(at, wanted, got);
            }
            return;
        }
        match (wanted, got) {
            (Value::Object(captured), Value::Object(own)) => {
                for (name, wanted) in captured {
                    let at = format!("{at}/{name}");
                    match own.get(name) {
                        Some(_) if name == "Output" && has_run_since(captured, own) => {}
                        Some(got) => self.value(&at, wanted, got),
                        None => self.differ(&at, wanted, &"absent"),
                    }
                }
                for (name, got) in own {
                    if !captured.contains_key(name) && !LATER_FIELDS.contains(&name.as_str()) {
                        self.differ(&format!("{at}/{name}"), &"absent", got);
                    }
                }
            }
            (Value::Array(captured), Value::Array(own)) if captured.len() == own.len() => {
                for (index, (wanted, got)) in captured.iter().zip(own).enumerate() {
                    self.value(&format!("{at}/{index}"), wanted, got);
                }
            }
            (Value::String(captured), Value::String(own)) => self.text(at, captured, own),
            (Value::Number(_), Value::Number(_)) if is_server_port(wanted) => {}
            _ if wanted == got => {}
            _ => self.differ(at, wanted, got),
        }
    }

    /// Texts are the same but for times, certificates, ports of the server itself, and ids that mean
    /// the same.
    fn text(&mut self, at: &str, captured: &str, own: &str) {
        let names_server = captured.contains(":1830");
        let ((wanted, captured_ids), (got, own_ids)) =
            (mask(captured, names_server), mask(own, names_server));
        let same_ids = captured_ids.len() == own_ids.len()
            && captured_ids
                .iter()
                .zip(&own_ids)
                .all(|(captured, own)| self.bindings.bind(captured, own));
        if wanted != got || !same_ids {
            self.differ(at, &captured, &own);
        }
    }
}

const fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// A check that had not run when Consul was asked, and has here: its output says more, its status the
/// same. Consul begins at a random moment of the interval, Weft at once.
fn has_run_since(
    captured: &serde_json::Map<String, Value>,
    own: &serde_json::Map<String, Value>,
) -> bool {
    captured["Output"] == "" && captured.get("Status") == own.get("Status") && captured["Type"] == "tcp"
}

fn with_sorted_lists(mut map: Value) -> Value {
    for list in map.as_object_mut().into_iter().flatten().filter_map(|(_, list)| list.as_array_mut()) {
        list.sort_by_key(Value::to_string);
    }
    map
}

/// Ports of the server's own listeners in the captures.
fn is_server_port(value: &Value) -> bool {
    value.as_u64().is_some_and(|port| (18300..=18302).contains(&port))
}

/// Four spaces for each level and a line feed at the end, as in Consul's dev mode.
fn is_indented(body: &str) -> bool {
    let Some(text) = body.strip_suffix('\n') else { return false };
    text.lines().enumerate().all(|(line, text)| {
        let indent = text.len() - text.trim_start().len();
        indent % 4 == 0 && (line == 0 || indent > 0 || matches!(text, "}" | "]"))
    })
}

/// The text with everything that changes from run to run replaced, and the ids that were in it.
fn mask(text: &str, ports: bool) -> (String, Vec<String>) {
    let id = Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|([0-9a-f]{2}:){19,31}[0-9a-f]{2}");
    let mut ids = Vec::new();
    let masked = id.unwrap().replace_all(text, |found: &regex_lite::Captures<'_>| {
        ids.push(found[0].to_owned());
        "<id>"
    });
    let mut masked = masked.into_owned();
    for (pattern, name) in [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        ("(?s)-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----", "<certificates>"),
    ] {
        masked = Regex::new(pattern).unwrap().replace_all(&masked, name).into_owned();
    }
    if ports {
        masked = Regex::new(r"127\.0\.0\.1:\d+").unwrap().replace_all(&masked, "<server>").into_owned();
    }
    (masked, ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(captured: &str, own: &str) -> Vec<String> {
        let (captured, own) =
            (serde_json::from_str(captured).unwrap(), serde_json::from_str(own).unwrap());
        let mut bindings = Bindings::default();
        let mut comparison = Comparison { bindings: &mut bindings, found: Vec::new() };
        comparison.value("", &captured, &own);
        comparison.found.into_iter().map(|difference| difference.at).collect()
    }

    #[test]
    fn json_by_table() {
        for (captured, own, expected) in [
            (r#"{"A":1,"B":[]}"#, r#"{"B":[],"A":1}"#, vec![]),
            (r#"{"A":1}"#, r#"{"A":2}"#, vec!["/A"]),
            (r#"{"A":1}"#, r#"{"A":"1"}"#, vec!["/A"]),
            (r#"{"A":null}"#, r#"{"A":[]}"#, vec!["/A"]),
            (r#"{"A":1}"#, "{}", vec!["/A"]),
            ("{}", r#"{"A":1}"#, vec!["/A"]),
            ("{}", r#"{"Datacenter":"dc1"}"#, vec![]),
            (r#"[{"A":"x"}]"#, r#"[{"A":"y"}]"#, vec!["/0/A"]),
            ("[1]", "[1,2]", vec![""]),
            (r#"{"CreateIndex":5}"#, r#"{"CreateIndex":9}"#, vec![]),
            (r#"{"CreateIndex":0}"#, r#"{"CreateIndex":9}"#, vec!["/CreateIndex"]),
            (r#"{"CreateIndex":5}"#, r#"{"CreateIndex":"9"}"#, vec!["/CreateIndex"]),
            (r#""127.0.0.1:18300""#, r#""127.0.0.1:4711""#, vec![]),
            (r#""127.0.0.1:80""#, r#""127.0.0.1:81""#, vec![""]),
            (
                r#"{"Output":"","Status":"critical","Type":"tcp"}"#,
                r#"{"Output":"refused","Status":"critical","Type":"tcp"}"#,
                vec![],
            ),
            (
                r#"{"Output":"","Status":"critical","Type":"tcp"}"#,
                r#"{"Output":"refused","Status":"passing","Type":"tcp"}"#,
                vec!["/Output", "/Status"],
            ),
            (r#""at 2026-11-23T08:30:46.2Z""#, r#""at 2025-01-01T00:00:00Z""#, vec![]),
        ] {
            assert_eq!(differences(captured, own), expected, "{captured} {own}");
        }
    }

    #[test]
    fn an_id_stays_what_it_was() {
        let id = |digit: &str| format!("{}-1111-1111-1111-111111111111", digit.repeat(8));
        let mut bindings = Bindings::default();
        let mut comparison = Comparison { bindings: &mut bindings, found: Vec::new() };
        comparison.text("", &format!("x {} y", id("a")), &format!("x {} y", id("1")));
        comparison.text("", &id("a"), &id("1"));
        assert_eq!(comparison.found, []);
        comparison.text("", &id("a"), &id("2"));
        assert_eq!(comparison.found.len(), 1);
        assert_eq!(bindings.translate(&format!("/v1/{}", id("a"))), format!("/v1/{}", id("1")));
    }

    #[test]
    fn layouts() {
        for (body, expected) in [
            ("[]\n", true),
            ("true\n", true),
            ("[\n    \"a\"\n]\n", true),
            ("{\"a\":1}", false),
            ("{\n  \"a\": 1\n}\n", false),
        ] {
            assert_eq!(is_indented(body), expected, "{body}");
        }
    }
}
