//! Two processes of one sidecar: the successor observes, then holds the instance; the old one the
//! other way round.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weft::agent::{Agent, AgentError};
use weft::model::{Action, CheckReport, CheckStatus, InstanceId, NodeName, Party};
use weft::pb;
use weft::pb::mesh_client::MeshClient;
use weft::pb::sync_request::Message as Request;

use super::enrol::as_agent;
use super::{Plane, eventually, instance, name, within};

const LIMIT: Duration = Duration::from_secs(5);

/// Of the application `db-1`.
fn health(plane: &Plane) -> Option<CheckStatus> {
    let (node, id) = (NodeName::new("n1").unwrap(), InstanceId::new("db-1").unwrap());
    plane.catalog.instance(&node, &id).map(|entry| entry.status())
}

#[tokio::test]
async fn the_instance_changes_hands_without_a_trace() {
    let plane = Plane::start().await;
    let old = plane.agent("db", &[]).await;
    let report = CheckReport {
        id: "service:db-1".to_owned(),
        status: CheckStatus::Warning,
        output: "as the old process saw it".to_owned(),
    };
    old.handle.checks.send(report).await.unwrap();
    eventually("the result", || health(&plane) == Some(CheckStatus::Warning)).await;
    let before = plane.catalog.position();

    let (estate, _rest) = old.succession.estate().await.unwrap();
    let mut settings = plane.settings("db", &[]);
    settings.token = Some("good for nothing".to_owned());
    let new = Agent::succeed(settings, estate).unwrap();
    eventually("the configuration", || new.handle.status.borrow().synced).await;
    let serial = |agent: &Agent| agent.handle.identity.borrow().as_ref().unwrap().serial().to_owned();
    assert_eq!(serial(&new), serial(&old));
    assert_eq!(plane.sessions.connected(), 1, "an observer holds nothing");

    old.succession.cede();
    let held = old.handle.status.borrow().connected;
    assert!(held, "it keeps the instance until the successor takes it");
    let mut status = old.handle.status.clone();
    status.mark_unchanged();
    new.succession.claim();
    within("the end of the old stream", status.wait_for(|status| !status.connected)).await.unwrap();
    eventually("the old one observes", || old.handle.status.borrow().connected).await;
    eventually("the new one holds", || new.handle.status.borrow().registered).await;
    assert_eq!(plane.sessions.connected(), 1);
    assert_eq!(health(&plane), Some(CheckStatus::Warning));
    assert_eq!(plane.catalog.position(), before, "nobody could have noticed");

    let party = |text| Party::Service(name(text));
    let written = plane.catalog.put_intention(
        party("web"),
        party("db"),
        Action::Deny,
        String::new(),
        BTreeMap::new(),
    );
    written.await.unwrap();
    for (which, agent) in [("old", &old), ("new", &new)] {
        let decided = || {
            let snapshot = agent.handle.snapshot.load();
            !snapshot.intentions.decide(&name("web"), &name("db")).is_allowed()
        };
        eventually(&format!("the denial at the {which} process"), decided).await;
    }
    old.stop(LIMIT).await;
    assert_eq!(health(&plane), Some(CheckStatus::Warning), "it is not the old one's any more");
    new.stop(LIMIT).await;
    assert_eq!(health(&plane), None);
}

/// It cedes, and is gone before the successor's stream is there.
#[tokio::test]
async fn who_has_ceded_deregisters_nothing() {
    let plane = Plane::start().await;
    let old = plane.agent("db", &[]).await;
    old.succession.cede();
    old.stop(LIMIT).await;
    assert!(health(&plane).is_some());
}

#[tokio::test]
async fn an_estate_is_for_its_own_service() {
    let plane = Plane::start().await;
    let db = plane.agent("db", &[]).await;
    let (estate, _rest) = db.succession.estate().await.unwrap();
    assert!(!format!("{estate:?}").contains("key"));
    let refused = Agent::succeed(plane.settings("web", &[]), estate).err();
    assert!(matches!(refused, Some(AgentError::Inherited(_))), "{refused:?}");
}

#[tokio::test]
async fn an_observer_speaks_for_nobody() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &[]).await;
    let mut client = MeshClient::new(as_agent(&plane, &web).await);
    let hello = pb::Hello {
        instances: instance("web", "web-2", 21_001).iter().map(|one| (&one.instance).into()).collect(),
        observe: true,
        ..Default::default()
    };
    let (requests, outgoing) = tokio::sync::mpsc::channel(8);
    let send = |message| pb::SyncRequest { message: Some(message) };
    requests.send(send(Request::Hello(hello))).await.unwrap();
    let mut answers = client.sync(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    assert!(within("the first answer", answers.message()).await.unwrap().is_some());
    let held = plane.catalog.health(&name("web"));
    assert!(held.iter().all(|one| one.instance.instance.id.as_str() == "web-1"));
    requests.send(send(Request::Drain(pb::Drain {}))).await.unwrap();
    let refused = async {
        loop {
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    };
    assert_eq!(within("the refusal", refused).await.code(), Code::FailedPrecondition);
}
