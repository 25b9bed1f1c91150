//! The commands of a recording, run under Consul's name: every line is the same.

use std::fs;
use std::path::Path;

use super::Consul;
use crate::http::Api;

/// A command and the lines that Consul printed.
struct Recorded {
    command: String,
    lines: Vec<String>,
}

fn recorded() -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/consul-cli/output.txt");
    let mut all: Vec<Recorded> = Vec::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        match line.strip_prefix("$ consul ") {
            Some(command) => all.push(Recorded { command: command.to_owned(), lines: Vec::new() }),
            None => all.last_mut().unwrap().lines.push(line.to_owned()),
        }
    }
    all
}

/// What the recorded server held before.
async fn furnish(api: &Api) {
    for name in ["big", "web"] {
        let body = format!(r#"{{"Name":"{name}","Port":80}}"#);
        assert_eq!(api.put("/v1/agent/service/register", &body).await.status, 200);
    }
    let own = r#"{"Node":"n1","Address":"127.0.0.1","SkipNodeUpdate":true,"Service":{"Service":"consul","Port":8300}}"#;
    assert_eq!(api.put("/v1/catalog/register", own).await.body, "true");
    for (node, address) in
        [1].into_iter().chain(10..20).map(|n| (format!("ext{n}"), format!("10.77.0.{n}")))
    {
        let body = format!(r#"{{"Node":"{node}","Address":"{address}"}}"#);
        assert_eq!(api.put("/v1/catalog/register", &body).await.body, "true");
    }
    for (key, value) in [("k", "hi"), ("lock", "x")] {
        assert_eq!(api.put(&format!("/v1/kv/{key}"), value).await.body, "true");
    }
}

/// Ids and times differ between any two servers; addresses and versions between these.
fn normal(text: &str, address: &str) -> String {
    let text = text.replace(address, "127.0.0.1:18301").replace(env!("CARGO_PKG_VERSION"), "1.8.7");
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = match line.split_once(':') {
            Some((name @ "Created At", _)) => name.to_owned(),
            _ => line.to_owned(),
        };
        lines.push(line.split(' ').map(without_id).collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

/// A word with a UUID, or the first part of one, as the same number of `#`.
fn without_id(word: &str) -> String {
    let bare = word.trim_end_matches(',');
    let is_hex = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let is_id = bare.len() == 36 && bare.split('-').count() == 5 && is_hex(&bare.replace('-', ""));
    if is_id || (bare.len() == 8 && is_hex(bare)) {
        return word.replace(bare, &"#".repeat(bare.len()));
    }
    word.to_owned()
}

#[tokio::test]
async fn a_recording_is_repeated_line_by_line() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    furnish(&api).await;
    consul.file("reg.hcl", "service { name = \"api\" port = 9090 connect { sidecar_service {} } }");
    let recorded = recorded();
    assert!(recorded.len() > 25, "only {} commands were found", recorded.len());
    for Recorded { command, lines } in recorded {
        let ran = consul.line(&command).await;
        let expected = normal(&lines.join("\n"), "127.0.0.1:18301");
        let mut said = normal(&format!("{}{}", ran.out, ran.err), &consul.address);
        if command == "catalog nodes -detailed" {
            said = said.lines().take(lines.len()).collect::<Vec<_>>().join("\n");
        }
        assert_eq!(said.trim_end_matches('\n'), expected.trim_end_matches('\n'), "consul {command}");
        let is_error = expected.starts_with("Error");
        assert_eq!(ran.code, i32::from(is_error), "consul {command}");
        assert_eq!(ran.err.is_empty(), !is_error, "consul {command}: {}", ran.err);
    }
    api.stop().await;
}
