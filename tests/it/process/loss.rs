//! A sidecar and then the server are killed under load; both come back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::interval;

use super::mesh::{Mesh, Sidecar, Spec, metric};
use super::support::{DEADLINE, slow};
use super::traffic::{App, Conversation, Failure, Load};

const PER_SECOND: u32 = 200;
/// Longer than the longest ejection of an endpoint that kept failing.
const RETURN: Duration = Duration::from_secs(40);

#[tokio::test]
async fn the_loss_of_a_sidecar_and_of_the_server_under_load() {
    let phase = match slow("60 s of load instead of 5 s") {
        true => Duration::from_secs(15),
        false => Duration::from_secs(1),
    };
    let mut mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let apps = [App::start("db-1").await, App::start("db-2").await];
    let specs = [Spec::new("db", "db-1", apps[0].port()), Spec::new("db", "db-2", apps[1].port())];
    let _stays = mesh.sidecar(&specs[0]).await;
    let falls = mesh.sidecar(&specs[1]).await;
    let cache = App::start("cache-1").await;
    let _cache = mesh.sidecar(&Spec::new("cache", "cache-1", cache.port())).await;
    let door = Spec::new("web", "web-1", 1).upstream("db").upstream("cache");
    let web = mesh.sidecar(&door).await;
    // The truth: of `db` one is always alive, of `cache` its only one.
    let fewest =
        [("db", 1.0), ("cache", 1.0)].map(|(name, least)| (least, Fewest::watch(web.admin, name)));

    let load = Load::start(door.door(), PER_SECOND);
    load.answers_by("db-1", 20, DEADLINE).await;
    load.answers_by("db-2", 20, DEADLINE).await;
    load.last(phase).await;
    assert_eq!(load.seen().failures.len(), 0, "{:?}", load.seen());

    let mut open = Vec::new();
    while !["db-1", "db-2"].iter().all(|name| open.iter().any(|(on, _)| on == name)) {
        let mut talk = Conversation::open(door.door()).await.unwrap();
        let on = talk.say("").await.unwrap();
        open.push((on.trim().to_owned(), talk));
    }
    falls.kill().await;
    let mut lives = Vec::new();
    for (on, talk) in open {
        match on.as_str() {
            "db-2" => assert!(talk.cut().await.is_err(), "a crash is no clean end"),
            _ => lives.push(talk),
        }
    }
    load.last(phase).await;
    let lost = load.seen().failures;
    println!("sidecar killed: {} of {} failed", lost.len(), load.seen().total());
    assert_all_were_on(&web, &lost, "db-2");

    mesh.kill_server().await;
    load.last(phase).await;
    assert_eq!(load.seen().failures.len(), lost.len(), "without a server: {:?}", load.seen());

    mesh.start_server().await;
    let _back = mesh.sidecar(&specs[1]).await;
    load.answers_by("db-2", 50, RETURN).await;
    load.last(phase).await;
    for mut talk in lives {
        assert_eq!(talk.say("still there").await.unwrap(), "db-1 still there");
        talk.finish().await.unwrap();
    }
    let seen = load.finish().await;
    println!("at the end: {} failed, answers {:?}", seen.failures.len(), seen.answers);
    assert_eq!(seen.failures.len(), lost.len(), "after the return: {seen:?}");
    assert_eq!(mesh.passing("db").await, ["db-1", "db-2"]);
    for (least, fewest) in fewest {
        assert!(
            (least..=2.0).contains(&fewest.seen()),
            "an endpoint that was alive had gone for a while"
        );
    }
}

/// The fewest healthy endpoints that a sidecar ever knew of an upstream, after it had known one.
struct Fewest(Arc<Mutex<f64>>, AbortHandle);

impl Fewest {
    fn watch(admin: SocketAddr, upstream: &'static str) -> Self {
        let fewest = Arc::new(Mutex::new(f64::MAX));
        let seen = Arc::clone(&fewest);
        let sampling = tokio::spawn(async move {
            let sample = format!(r#"weft_endpoints{{dst="{upstream}",state="healthy"}}"#);
            let mut every = interval(Duration::from_millis(20));
            loop {
                every.tick().await;
                let Some(now) = metric(admin, &sample).await else { continue };
                let mut seen = seen.lock().unwrap();
                *seen = seen.min(now);
            }
        });
        Self(fewest, sampling.abort_handle())
    }

    fn seen(self) -> f64 {
        self.1.abort();
        *self.0.lock().unwrap()
    }
}

/// Every connection that failed had been given to this instance when it died.
fn assert_all_were_on(web: &Sidecar, failures: &[Failure], instance: &str) {
    let log = web.process.connections();
    for failure in failures {
        let client = failure.client.map(|address| address.to_string());
        let line: Option<&Value> =
            log.iter().rev().find(|line| line["client_addr"].as_str() == client.as_deref());
        let line = line.unwrap_or_else(|| panic!("no record of {failure:?}"));
        assert!(line["endpoint"].as_str().unwrap().ends_with(instance), "{failure:?} {line}");
        assert!(matches!(line["reason"].as_str(), Some("peer_reset")), "{failure:?} {line}");
    }
}
