//! Every route that changes something is in the audit log, with who did it and how it ended; and
//! without the log nothing is changed.

use std::io::BufReader;
use std::path::Path;

use serde_json::Value;
use weft::access::Access;
use weft::access::audit::{AuditLog, Summary, verify};
use weft::access::routes::TABLE;
use weft::store::MemoryStore;

use super::routes::{OPERATOR, answers, target, token};
use crate::http::Api;

async fn audited(path: &Path) -> (Api, AuditLog) {
    let log = AuditLog::open(path).unwrap();
    let given = log.clone();
    let api = Api::start_with(|state| {
        state.access = Access::new(std::sync::Arc::new(MemoryStore::new()), true);
        state.access.set_operator(OPERATOR).unwrap();
        state.audit = Some(given);
    })
    .await;
    (api, log)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_change_is_written_down_and_no_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let (api, _log) = audited(&path).await;
    let operator = [("X-Consul-Token", OPERATOR)];
    for rule in TABLE.iter().filter(|rule| answers(rule.path)) {
        let (method, target) = (rule.method, target(rule.path));
        let before = lines(&path).len();
        let answer = api.send(method, &format!("{target}?dc=dc1"), &operator, "").await;
        let new = lines(&path).split_off(before);
        let who = format!("{method} {target}");
        if !rule.changes {
            assert_eq!(new, [] as [Value; 0], "{who}");
            continue;
        }
        let [begun, ended] = &new[..] else { panic!("{who}: {new:?}") };
        for line in [begun, ended] {
            let text = |name: &str| line[name].as_str().unwrap();
            assert_eq!(
                (text("actor"), text("method"), text("route"), text("target")),
                ("operator", method, rule.path, target.as_str())
            );
            assert!(text("peer").starts_with("127.0.0.1:") && text("time").ends_with('Z'));
        }
        assert_eq!(begun["outcome"], "begun");
        assert_eq!(ended["outcome"], answer.status.to_string(), "{who}");
        assert_eq!(ended["begun"], begun["seq"], "{who}");
    }
    let summary = verify(BufReader::new(std::fs::File::open(&path).unwrap()), Summary::default());
    assert!(summary.unwrap().lines > 60);
    api.stop().await;
}

#[tokio::test]
async fn a_refusal_says_whom_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let (api, _log) = audited(&path).await;
    let weak = token(&api, &["kv:read"]).await;
    let accessor = weak.split('.').nth(1).unwrap();
    for (headers, actor, outcome) in [
        (vec![], "anonymous".to_owned(), "403 Permission denied: anonymous"),
        (vec![("X-Consul-Token", weak.as_str())], format!("token:{accessor}"), "403 Permission denied"),
        (vec![("X-Consul-Token", "nobody's")], "anonymous".to_owned(), "403 ACL not found"),
        (vec![("Origin", "http://evil.example")], "anonymous".to_owned(), "403"),
        (vec![("Host", "evil.example")], "anonymous".to_owned(), "421"),
    ] {
        api.send("PUT", "/v1/kv/a", &headers, "v").await;
        let line = lines(&path).pop().unwrap();
        assert_eq!(line["actor"], actor.as_str(), "{line}");
        assert!(line["outcome"].as_str().unwrap().starts_with(outcome), "{line}");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_changes_and_no_reads() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("audit"), directory.path().join("moved"));
    let (api, log) = audited(&path).await;
    let operator = [("X-Consul-Token", OPERATOR)];
    assert_eq!(api.send("PUT", "/v1/kv/a", &operator, "v").await.status, 200);
    std::fs::rename(&path, &moved).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(log.reopen().await.is_err());
    let answer = api.send("PUT", "/v1/kv/a", &operator, "w").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.body.contains("audit") && answer.body.contains("nothing can be changed"),
        "{answer:?}"
    );
    let read = api.send("GET", "/v1/kv/a?raw=1", &operator, "").await;
    assert_eq!((read.status, read.body.as_str()), (200, "v"));
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(api.send("PUT", "/v1/kv/a", &operator, "w").await.status, 200);
    let read = |path: &Path| BufReader::new(std::fs::File::open(path).unwrap());
    let first = verify(read(&moved), Summary::default()).unwrap();
    verify(read(&path), first).unwrap();
    api.stop().await;
}

#[tokio::test]
async fn the_command_line_names_the_first_broken_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let (api, log) = audited(&path).await;
    for value in ["one", "two", "three"] {
        api.send("PUT", "/v1/kv/a", &[("X-Consul-Token", OPERATOR)], value).await;
    }
    api.stop().await;
    drop(log);
    let file = path.to_str().unwrap();
    let whole = crate::cli::weft(&[], &["audit", "verify", file]).await;
    assert_eq!(whole.code, 0, "{}", whole.err);
    assert!(whole.out.starts_with("7 lines, whole; the last is number 7, its hash "), "{}", whole.out);
    let text = std::fs::read_to_string(&path).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let edited = all[3].replace("/v1/kv/a", "/v1/kv/b");
    for (tampered, line) in [
        ([&all[..3], &[edited.as_str()], &all[4..]].concat(), 4),
        ([&all[..3], &all[4..]].concat(), 4),
        ([&all[..2], &[all[3], all[2]], &all[4..]].concat(), 3),
    ] {
        std::fs::write(&path, tampered.join("\n") + "\n").unwrap();
        let broken = crate::cli::weft(&[], &["audit", "verify", file]).await;
        assert_eq!(broken.code, 1, "{}", broken.err);
        assert!(broken.out.contains(&format!("line {line}:")), "{}", broken.out);
    }
    let missing = crate::cli::weft(&[], &["audit", "verify", "/nonexistent/audit"]).await;
    assert_eq!(missing.code, 1, "{}", missing.err);
}
