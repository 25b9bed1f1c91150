//! One sidecar stands still, the application of another is down, and a third one works: what can go
//! elsewhere does, and both are left out until they are well again.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::mesh::{Mesh, Sidecar, Spec};
use super::support::{DEADLINE, slow, until};
use super::traffic::{App, Load};

const PER_SECOND: u32 = 100;
const EJECTIONS: &str = r#"weft_ejections_total{dst="db"}"#;
/// Longer than the longest ejection.
const RETURN: Duration = Duration::from_secs(40);

fn said(web: &Sidecar, message: &str, instance: &str) -> bool {
    let is_it = |line: &Value| {
        let endpoint = line["endpoint"].as_str().unwrap_or_default();
        line["message"] == message && endpoint.ends_with(instance)
    };
    web.process.log().iter().any(is_it)
}

#[tokio::test]
async fn a_frozen_and_a_refusing_endpoint_cost_nothing_that_could_go_elsewhere() {
    let phase =
        Duration::from_secs(if slow("20 s of load on a frozen endpoint instead of 4") { 20 } else { 4 });
    let mut mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let apps = [App::start("db-1").await, App::start("db-2").await];
    let _works = mesh.sidecar(&Spec::new("db", "db-1", apps[0].port())).await;
    let freezes = mesh.sidecar(&Spec::new("db", "db-2", apps[1].port())).await;
    let door = Spec::new("web", "web-1", 1).upstream("db");
    let web = mesh.sidecar(&door).await;
    let load = Load::start(door.door(), PER_SECOND);
    load.answers_by("db-1", 20, DEADLINE).await;
    load.answers_by("db-2", 20, DEADLINE).await;

    // Its application is down: nobody listens on port 1.
    let _refuses = mesh.sidecar(&Spec::new("db", "db-3", 1)).await;
    freezes.process.signal(Signal::STOP);
    load.last(phase).await;
    until("the ejection in the log", async || {
        said(&web, "endpoint ejected after repeated failures", "db-3")
    })
    .await;
    assert!(web.metric(EJECTIONS).await.unwrap() >= 1.0);
    freezes.process.signal(Signal::CONT);
    load.answers_by("db-2", 20, RETURN).await;
    let seen = load.finish().await;

    println!("frozen and refusing: {} failed, answers {:?}", seen.failures.len(), seen.answers);
    let log = web.process.connections();
    for failure in &seen.failures {
        let client = failure.client.map(|address| address.to_string());
        // A later connection may have had the same port.
        let is_it =
            |line: &&Value| line["client_addr"].as_str() == client.as_deref() && line["reason"] != "ok";
        let line = log.iter().rev().find(is_it);
        let line = line.unwrap_or_else(|| panic!("no record of {failure:?}"));
        let detail = line["detail"].as_str().unwrap_or_default();
        let tied = detail.contains("bytes are on their way to it");
        assert!(tied && line["endpoint"].as_str().unwrap().ends_with("db-2"), "{failure:?} {line}");
    }
    assert!(seen.failures.len() < 20, "first words went ahead to an endpoint that did not answer");
    assert!(
        said(&web, "endpoint returned after its ejection", "db-3"),
        "what was ejected for a second has returned"
    );
    mesh.stop_server().await;
}
