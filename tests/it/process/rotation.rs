//! The root is replaced under load, while one sidecar stands still and knows only the first root.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::mesh::{Mesh, Spec};
use super::support::{slow, until};
use super::traffic::{App, Load, ask};

/// New connections a second.
const PER_SECOND: u32 = 200;
/// A leaf lives long enough for the sleeper, and a twentieth of it is short enough to wait for.
const LEAF_TTL: &str = "90s";

#[tokio::test]
async fn rotations_under_load_cost_no_connection_and_a_sleeper_comes_back() {
    let rounds = if slow("three rotations in a row instead of one") { 3 } else { 1 };
    let (mesh, app) = (Mesh::dev(LEAF_TTL).await, App::start("db-1").await);
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&spec).await;
    let dozing = Spec::new("dozer", "dozer-1", 1).upstream("db");
    let sleeper = mesh.sidecar(&dozing).await;
    assert_eq!(ask(dozing.door(), "before").await.unwrap(), "db-1 before");

    let load = Load::start(spec.door(), PER_SECOND);
    sleeper.process.signal(Signal::STOP);
    for round in 1..=rounds {
        let rotate = ["ca", "rotate", "--patience", "1s", "--wait", "--timeout", "60s"];
        let ran = mesh.cli(&rotate).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        for step in ["prepare: ", "reissue: ", "retire: "] {
            assert!(ran.err.contains(step), "{step} was not told: {}", ran.err);
        }
        let roots = mesh.get("/v1/connect/ca/roots").await.json();
        assert_eq!(
            roots["Roots"].as_array().unwrap().len(),
            round + 1,
            "the first root is still needed"
        );
    }
    sleeper.process.signal(Signal::CONT);
    // At once: what it knows and what its peers send is enough.
    assert_eq!(ask(dozing.door(), "after").await.unwrap(), "db-1 after");
    until("the sleeper's new certificate", async || {
        let proxies = mesh.get("/v1/weft/ca").await.json()["rotation"]["proxies"].clone();
        (&proxies["connected"], &proxies["old_certificate"]) == (&Value::from(3), &Value::from(0))
    })
    .await;
    assert_eq!(ask(dozing.door(), "renewed").await.unwrap(), "db-1 renewed");
    load.last(Duration::from_secs(1)).await;
    let seen = load.finish().await;
    println!("{rounds} rotations: {} ok, {} failed", seen.total(), seen.failures.len());
    assert!(seen.failures.is_empty(), "{:?}", seen.failures);
    assert!(seen.total() > 1000, "{} connections are no load", seen.total());
}
