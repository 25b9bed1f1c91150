//! Deny means deny, now, and says why.

use std::time::Instant;

use super::mesh::{Mesh, ONE_SECOND, Spec};
use super::support::until;
use super::traffic::{App, Conversation, ask};

const VERDICT: &str = "intention web -> db deny (precedence 9)";

#[tokio::test]
async fn a_denial_cuts_what_is_open_and_refuses_what_is_new() {
    let (mesh, app) = (Mesh::start().await, App::start("db-1").await);
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let mut web = mesh.sidecar(&spec).await;
    let mut open = Conversation::open(spec.door()).await.unwrap();
    assert_eq!(open.say("before").await.unwrap(), "db-1 before");

    let denied = Instant::now();
    mesh.done(&["intention", "deny", "web", "db"]).await;
    assert!(open.cut().await.is_err(), "a cut is no clean end");
    let took = denied.elapsed();
    assert!(took < ONE_SECOND, "the open connection was cut after {took:?}");
    let reached = app.accepted();
    assert!(ask(spec.door(), "after").await.is_err());
    println!("open connection cut {took:?} after the command was started");
    assert_eq!(app.accepted(), reached, "the application was reached");

    web.process.logged("both verdicts", |line| line["detail"] == VERDICT).await;
    until("both records", async || web.process.connections().len() == 2).await;
    for line in web.process.connections() {
        assert_eq!((&line["reason"], &line["detail"]), (&"denied".into(), &VERDICT.into()), "{line}");
    }
    let ran = mesh.cli(&["intention", "check", "web", "db"]).await;
    assert_eq!((ran.code, ran.out.contains(VERDICT)), (1, true), "{}", ran.out);

    mesh.done(&["intention", "delete", "web", "db"]).await;
    assert!(ask(spec.door(), "default").await.is_err(), "the default of a server is to deny");
    mesh.done(&["intention", "allow", "web", "*"]).await;
    until("the return", async || ask(spec.door(), "x").await.is_ok()).await;
}

#[tokio::test]
async fn an_audit_lets_everything_pass_and_logs_what_a_denial_would_cut() {
    const AUDIT: &str = "intention web -> db audit (precedence 9)";
    let (mesh, app) = (Mesh::start().await, App::start("db-1").await);
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let mut db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&spec).await;
    assert_eq!(ask(spec.door(), "before").await.unwrap(), "db-1 before");
    let mut open = Conversation::open(spec.door()).await.unwrap();
    assert_eq!(open.say("allowed").await.unwrap(), "db-1 allowed");

    mesh.done(&["intention", "audit", "web", "db"]).await;
    let ran = mesh.cli(&["intention", "check", "web", "db"]).await;
    assert_eq!((ran.code, ran.out.contains(AUDIT)), (0, true), "{}", ran.out);
    until("a connection under the new rule", async || {
        assert_eq!(ask(spec.door(), "after").await.unwrap(), "db-1 after");
        db.process.connections().iter().any(|line| line["audited"] == AUDIT)
    })
    .await;
    assert_eq!(open.say("still").await.unwrap(), "db-1 still", "an audit cuts nothing");
    drop(open);

    let opened_before = |line: &serde_json::Value| line["bytes_sent"].as_u64() > Some(10);
    let line = db.process.logged("the older connection", opened_before).await;
    assert_eq!((&line["audited"], &line["reason"]), (&AUDIT.into(), &"ok".into()), "{line}");
    let lines = db.process.connections();
    let before = lines.first().expect("the first connection");
    assert_eq!((&before["audited"], &before["reason"]), (&serde_json::Value::Null, &"ok".into()));
}
