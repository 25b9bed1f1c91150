//! SIGTERM: nobody notices.

use rustix::process::Signal;

use super::mesh::{Mesh, Spec, get, is_ready};
use super::support::{DEADLINE, until};
use super::traffic::{App, Conversation, Load};

#[tokio::test]
async fn a_destination_leaves_under_load() {
    let mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "*", "db"]).await;
    let apps = [App::start("db-1").await, App::start("db-2").await];
    let _stays = mesh.sidecar(&Spec::new("db", "db-1", apps[0].port())).await;
    let mut leaves = mesh.sidecar(&Spec::new("db", "db-2", apps[1].port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&spec).await;
    let load = Load::start(spec.door(), 100);
    load.answers_by("db-2", 20, DEADLINE).await;

    // Open until one stands on each instance.
    let mut open = Vec::new();
    let mut on_leaver = false;
    while !on_leaver {
        let mut talk = Conversation::open(spec.door()).await.unwrap();
        on_leaver = talk.say("hello").await.unwrap().starts_with("db-2");
        open.push(talk);
    }
    leaves.process.signal(Signal::TERM);
    until("the withdrawal", async || mesh.passing("db").await == ["db-1"]).await;
    assert!(!is_ready(leaves.admin).await && get(leaves.admin, "/health/live").await.status == 200);
    load.answers(50).await;
    for talk in &mut open {
        talk.say("still there").await.unwrap();
    }
    assert!(leaves.process.is_running(), "it has an open stream");
    for talk in open {
        talk.finish().await.unwrap();
    }
    assert_eq!(leaves.process.ended().await, 0);
    assert!(leaves.process.log().iter().any(|line| line["message"] == "drained"));
    load.answers(50).await;
    let seen = load.finish().await;
    println!("destination drained: {} failed, answers {:?}", seen.failures.len(), seen.answers);
    assert!(seen.failures.is_empty(), "{seen:?}");
    assert!(!mesh.done(&["instances", "db"]).await.contains("db-2"), "it is still registered");
}

#[tokio::test]
async fn a_source_leaves_with_a_stream_open() {
    let (mesh, app) = (Mesh::start().await, App::start("db-1").await);
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let mut web = mesh.sidecar(&spec).await;
    let mut talk = Conversation::open(spec.door()).await.unwrap();
    talk.say("before").await.unwrap();
    web.process.signal(Signal::TERM);
    until("the withdrawal", async || mesh.passing("web").await.is_empty()).await;
    assert_eq!(talk.say("meanwhile").await.unwrap(), "db-1 meanwhile");
    until("the closed door", async || Conversation::open(spec.door()).await.is_err()).await;
    assert_eq!(talk.say("after").await.unwrap(), "db-1 after");
    assert!(web.process.is_running());
    talk.finish().await.unwrap();
    assert_eq!(web.process.ended().await, 0);
    let line = web.process.connections().pop().unwrap();
    assert_eq!(line["reason"], "ok", "{line}");
}

/// Streams that outstay the grace are closed and reported; a second signal waits for nothing.
#[tokio::test]
async fn the_end_is_bounded() {
    let (mesh, app) = (Mesh::dev("1h").await, App::start("db-1").await);
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let graceless = Spec::new("web", "web-1", 1).upstream("db").flags(&["--drain-grace", "200ms"]);
    let patient = Spec::new("web", "web-2", 1).upstream("db");
    let mut sidecars = [mesh.sidecar(&graceless).await, mesh.sidecar(&patient).await];
    let mut talks = Vec::new();
    for spec in [&graceless, &patient] {
        let mut talk = Conversation::open(spec.door()).await.unwrap();
        talk.say("hello").await.unwrap();
        talks.push(talk);
    }
    let [graceless, patient] = &mut sidecars;
    assert_eq!(graceless.stop().await, 0);
    assert!(talks.remove(0).cut().await.is_err(), "a cut is no clean end");
    let line = graceless.process.connections().pop().unwrap();
    assert_eq!(line["reason"], "drained", "{line}");
    let bytes = (line["bytes_sent"].as_u64(), line["bytes_received"].as_u64());
    assert_eq!(bytes, (Some(6), Some(11)), "what passed before the cut counts: {line}");

    patient.process.signal(Signal::TERM);
    until("the withdrawal", async || mesh.passing("web").await.is_empty()).await;
    patient.process.signal(Signal::INT);
    assert_eq!(patient.process.ended().await, 0);
    assert!(
        patient.process.log().iter().any(|line| line["message"] == "second signal: leaving at once")
    );
}
