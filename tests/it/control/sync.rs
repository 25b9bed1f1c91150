//! Sync streams: what reaches an agent, and what becomes of its instance.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use weft::agent::{Agent, AgentError, EdgeCount};
use weft::catalog::{Owner, Unlisted};
use weft::control::Settings;
use weft::control::edges::Side;
use weft::model::{Action, CheckReport, CheckStatus, Party, Reason};
use weft::pb;
use weft::pb::mesh_client::MeshClient;
use weft::pb::sync_request::Message as Request;
use weft::pb::sync_response::Message as Response;

use super::enrol::as_agent;
use super::{Options, Plane, endpoints, eventually, instance, name, within};

use crate::pace::throughout;
use CheckStatus::{Critical, Passing};

fn at(status: CheckStatus) -> Vec<(String, u16, CheckStatus)> {
    vec![("127.0.0.1".to_owned(), 21_000, status)]
}

async fn intend(plane: &Plane, source: &str, destination: &str, action: Action) {
    let party = |text| Party::Service(name(text));
    let written = plane.catalog.put_intention(
        party(source),
        party(destination),
        action,
        String::new(),
        BTreeMap::new(),
    );
    written.await.unwrap();
}

#[tokio::test]
async fn a_snapshot_and_deltas_reach_an_agent() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &["db"]).await;
    assert_eq!(endpoints(&web, "db"), []);
    assert!(web.handle.snapshot.load().bundle.is_some());
    let db = plane.agent("db", &[]).await;
    eventually("the endpoint", || endpoints(&web, "db") == at(Passing)).await;
    assert!(web.handle.snapshot.load().services[&name("db")].exists);

    let report = |status| CheckReport { id: "service:db-1".to_owned(), status, output: "x".to_owned() };
    db.handle.checks.send(report(Critical)).await.unwrap();
    eventually("the flip", || endpoints(&web, "db") == at(Critical)).await;
    db.handle.checks.send(report(Passing)).await.unwrap();
    eventually("the flip back", || endpoints(&web, "db") == at(Passing)).await;
    let board = plane.catalog.proxies();
    let web_on_board = board.iter().find(|proxy| proxy.service == name("web")).unwrap();
    assert!(web_on_board.connected && web_on_board.leaf_not_after.is_some());
}

#[tokio::test]
async fn an_unrelated_change_is_not_sent() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &["db"]).await;
    let before = *web.handle.changes.borrow();
    let _other = plane.agent("other", &[]).await;
    let _db = plane.agent("db", &[]).await;
    eventually("the endpoint", || endpoints(&web, "db").len() == 1).await;
    assert!(web.handle.snapshot.load().services.keys().all(|service| *service == name("db")));
    assert!(*web.handle.changes.borrow() > before);
}

#[tokio::test]
async fn a_denial_reaches_the_destination_within_a_second() {
    let plane = Plane::start().await;
    let db = plane.agent("db", &[]).await;
    let allowed = |agent: &Agent| {
        agent.handle.snapshot.load().intentions.decide(&name("web"), &name("db")).is_allowed()
    };
    assert!(allowed(&db), "the default is to allow");
    let started = tokio::time::Instant::now();
    intend(&plane, "web", "db", Action::Deny).await;
    eventually("the denial", || !allowed(&db)).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let (web, database) = (Party::Service(name("web")), Party::Service(name("db")));
    plane.catalog.delete_intention(&web, &database).await.unwrap();
    eventually("the end of the denial", || allowed(&db)).await;
}

#[tokio::test]
async fn an_agent_is_ready_soon() {
    let plane = Plane::start().await;
    let started = tokio::time::Instant::now();
    let _web = plane.agent("web", &["db"]).await;
    // The bar is 50 ms on an idle machine; builds run beside this test.
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

/// The catalog of the restarted server has everything: nobody's view may shrink on the way.
#[tokio::test]
async fn a_restart_of_the_server_is_not_noticed() {
    let plane = Plane::start().await;
    let db = plane.agent("db", &[]).await;
    let web = plane.agent("web", &["db"]).await;
    eventually("the endpoint", || endpoints(&web, "db") == at(Passing)).await;
    let shrunk = watch_for_loss(&web, "db");
    let epoch = web.handle.snapshot.load().position.epoch;
    let (store, address) = plane.stop().await;
    eventually("the loss of the stream", || !web.handle.status.borrow().connected).await;
    assert!(web.handle.status.borrow().last_error.is_some());
    let plane = Plane::over(store, address, Options::default()).await;
    for agent in [&web, &db] {
        eventually("the new stream", || agent.handle.status.borrow().registered).await;
    }
    assert_eq!(web.handle.status.borrow().last_error, None);
    intend(&plane, "a", "web", Action::Deny).await;
    eventually("a change", || web.handle.snapshot.load().intentions.iter().count() == 1).await;
    assert_eq!(web.handle.snapshot.load().position.epoch, epoch);
    shrunk.abort();
    assert!(shrunk.await.unwrap_err().is_cancelled(), "an endpoint was missing for a while");
    assert_eq!(plane.status_of("db"), Some(Passing));
}

/// Ends only when a view without endpoints is seen.
fn watch_for_loss(agent: &Agent, service: &'static str) -> tokio::task::JoinHandle<()> {
    let handle = agent.handle.clone();
    tokio::spawn(async move {
        let mut changes = handle.changes.clone();
        while !handle.snapshot.load().services[&name(service)].endpoints.is_empty() {
            changes.changed().await.unwrap();
        }
    })
}

#[tokio::test]
async fn a_second_claimant_is_refused() {
    let plane = Plane::start().await;
    let first = plane.agent("web", &[]).await;
    let mut second = Agent::start(plane.settings("web", &[]));
    let error = within("the refusal", second.failed()).await;
    assert!(matches!(&error, AgentError::Registration(text) if text.contains("web-1")), "{error}");
    assert!(first.handle.status.borrow().registered);
    // Once the first is gone its place is free.
    first.stop(super::DEADLINE).await;
    plane.agent("web", &[]).await;
}

#[tokio::test]
async fn an_identity_registers_its_own_service_only() {
    let plane = Plane::start().await;
    let _db = plane.agent("db", &[]).await;
    let mut settings = plane.settings("web", &[]);
    settings.registrations = instance("db", "db-2", 21_001);
    let mut liar = Agent::start(settings);
    let error = within("the refusal", liar.failed()).await;
    assert!(
        matches!(&error, AgentError::Registration(text) if text.contains("of service db")),
        "{error}"
    );

    let mut settings = plane.settings("web", &[]);
    settings.registrations = instance("web", "db-1", 21_001);
    let mut thief = Agent::start(settings);
    let error = within("the refusal", thief.failed()).await;
    assert!(matches!(&error, AgentError::Registration(text) if text.contains("belongs to")), "{error}");

    let mut settings = plane.settings("web", &[]);
    settings.registrations[0].checks[0].id = "service:db-1".to_owned();
    let mut squatter = Agent::start(settings);
    let error = within("the refusal", squatter.failed()).await;
    assert!(
        matches!(&error, AgentError::Registration(text) if text.contains("another instance")),
        "{error}"
    );

    let mut settings = plane.settings("web", &[]);
    settings.registrations[1].instance.name = name("db");
    let mut mimic = Agent::start(settings);
    let error = within("the refusal", mimic.failed()).await;
    assert!(
        matches!(&error, AgentError::Registration(text) if text.contains("must be named")),
        "{error}"
    );
    assert_eq!(plane.status_of("db"), Some(Passing));
}

#[tokio::test]
async fn a_crash_is_noticed_when_the_lease_runs_out() {
    let mut options = Options::default();
    options.control = Settings { lease_ttl: Duration::from_secs(1), ..options.control };
    let plane = Plane::with(options).await;
    let web = plane.agent("web", &["db"]).await;
    let db = plane.agent("db", &[]).await;
    eventually("the endpoint", || endpoints(&web, "db").len() == 1).await;
    // A while longer than the lease: heartbeats keep it.
    throughout(Duration::from_millis(1500)).await;
    assert_eq!(endpoints(&web, "db").len(), 1);
    drop(db);
    eventually("the end of the stream", || plane.sessions.connected() == 1).await;
    assert_eq!(plane.status_of("db"), Some(Passing), "the stream alone says nothing");
    eventually("the end of the lease", || plane.status_of("db").is_none()).await;
    eventually("the news", || endpoints(&web, "db").is_empty()).await;
}

#[tokio::test]
async fn draining_and_leaving_are_acknowledged() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &["db"]).await;
    let db = plane.agent("db", &[]).await;
    eventually("the endpoint", || endpoints(&web, "db") == at(Passing)).await;
    within("the drain", db.drain(super::DEADLINE)).await;
    assert_eq!(plane.status_of("db"), Some(Critical), "committed when acknowledged");
    assert!(plane.catalog.proxies().iter().any(|proxy| proxy.draining));
    eventually("the news", || endpoints(&web, "db") == at(Critical)).await;
    within("the leave", db.stop(super::DEADLINE)).await;
    assert_eq!(plane.status_of("db"), None);
    eventually("the news", || endpoints(&web, "db").is_empty()).await;
    assert_eq!(plane.catalog.proxies().len(), 1);
}

#[tokio::test]
async fn a_drain_outlives_the_stream_it_was_asked_on() {
    let plane = Plane::start().await;
    let db = plane.agent("db", &[]).await;
    within("the drain", db.drain(super::DEADLINE)).await;
    let (store, address) = plane.stop().await;
    eventually("the loss of the stream", || !db.handle.status.borrow().connected).await;
    let plane = Plane::over(store, address, Options::default()).await;
    eventually("the new stream", || db.handle.status.borrow().registered).await;
    assert_eq!(plane.status_of("db"), Some(Critical));
}

#[tokio::test]
async fn what_the_proxy_counts_reaches_the_server() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &["db"]).await;
    let count = |source, destination| EdgeCount {
        source: name(source),
        destination: name(destination),
        reason: Reason::Denied,
        connections: 2,
        bytes_sent: 3,
        bytes_received: 4,
    };
    web.handle.edges.send(count("web", "db")).await.unwrap();
    within("the drain", web.drain(super::DEADLINE)).await;
    eventually("the count", || plane.edges.all().len() == 1).await;
    let (key, totals) = plane.edges.all().remove(0);
    assert_eq!((key.source, key.destination), (name("web"), name("db")));
    assert_eq!((key.reason, key.reported_by, totals.connections), (Reason::Denied, Side::Source, 2));

    let mut client = MeshClient::new(as_agent(&plane, &web).await);
    let mut report = pb::ReportRequest {
        leaf_not_after: 1,
        node: "n1".to_owned(),
        instance: "web-1".to_owned(),
        edges: vec![pb::EdgeCount {
            source: "a".to_owned(),
            destination: "b".to_owned(),
            reason: "ok".to_owned(),
            ..Default::default()
        }],
    };
    assert_eq!(client.report(report.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    report.edges[0].source = "web".to_owned();
    report.edges[0].reason = "because".to_owned();
    let status = client.report(report.clone()).await.unwrap_err();
    assert!(status.message().starts_with("edges[0].reason"), "{status}");
    report.edges.clear();
    report.instance = "db-1".to_owned();
    assert_eq!(client.report(report).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(plane.edges.all().len(), 1);
}

/// A raw stream: what the server sends after a resume, and how it meets a client that breaks rules.
#[tokio::test]
async fn a_resumed_stream_gets_no_snapshot() {
    let plane = Plane::start().await;
    let _db = plane.agent("db", &[]).await;
    let web = plane.agent("web", &["db"]).await;
    eventually("the endpoint", || endpoints(&web, "db").len() == 1).await;
    let mut client = MeshClient::new(as_agent(&plane, &web).await);
    let position = web.handle.snapshot.load().position;
    let bundle_version = plane.ca.bundle().borrow().version;
    let mut held = instance("web", "web-2", 21_001);
    held.truncate(1);
    let hello = |resume: pb::Position| pb::Hello {
        instances: held.iter().map(|one| (&one.instance).into()).collect(),
        upstreams: vec!["db".to_owned()],
        resume: Some(resume),
        process: b"raw".to_vec(),
        bundle_version,
        ..Default::default()
    };
    let (snapshot, after) = first_answers(&mut client, hello(position.into())).await;
    assert!(!snapshot, "{after:?}");
    let foreign = pb::Position { epoch: position.epoch + 1, ..position.into() };
    assert!(first_answers(&mut client, hello(foreign)).await.0, "another epoch");
    let future = pb::Position { revision: position.revision + 1000, ..position.into() };
    assert!(first_answers(&mut client, hello(future)).await.0, "a position that never was");
}

/// Two streams of one process: the later one is the one that lives.
#[tokio::test]
async fn a_later_stream_of_the_same_process_takes_over() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &[]).await;
    let mut client = MeshClient::new(as_agent(&plane, &web).await);
    let held = instance("web", "web-2", 21_001);
    let hello = |process: &[u8]| pb::Hello {
        instances: held.iter().map(|one| (&one.instance).into()).collect(),
        process: process.to_vec(),
        ..Default::default()
    };
    let mut open = async |process: &[u8]| {
        let (requests, outgoing) = tokio::sync::mpsc::channel(8);
        let hello = pb::SyncRequest { message: Some(Request::Hello(hello(process))) };
        requests.send(hello).await.unwrap();
        (requests, client.sync(ReceiverStream::new(outgoing)).await.unwrap().into_inner())
    };
    let (_first, mut first) = open(b"one").await;
    assert!(within("the registration", first.message()).await.is_ok());
    let (_other, mut other) = open(b"two").await;
    let status = within("the refusal", other.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let (_second, mut second) = open(b"one").await;
    assert!(within("the registration", second.message()).await.is_ok());
    let ended = async {
        loop {
            if let Err(status) = first.message().await {
                return status;
            }
        }
    };
    assert_eq!(within("the end of the first", ended).await.code(), Code::Aborted);
    assert_eq!(plane.sessions.connected(), 2);
}

#[tokio::test]
async fn an_agent_waits_for_its_server() {
    let (store, address) = Plane::start().await.stop().await;
    let mut settings = Plane::start().await.settings("web", &[]);
    settings.servers = vec![address.to_string()];
    let agent = Agent::start(settings);
    let refused = || agent.handle.status.borrow().last_error.clone();
    eventually("the reason", || refused().is_some_and(|error| error.contains("cannot be reached")))
        .await;
    throughout(Duration::from_secs(1)).await;
    let _plane = Plane::over(store, address, Options::default()).await;
    let back = tokio::time::Instant::now();
    eventually("the first snapshot", || agent.handle.status.borrow().synced).await;
    assert!(back.elapsed() < Duration::from_millis(1500), "{:?}", back.elapsed());
    assert_eq!(refused(), None);
}

/// Whether a stream begins with a snapshot, and what it begins with.
async fn first_answers(
    client: &mut MeshClient<tonic::transport::Channel>,
    hello: pb::Hello,
) -> (bool, Vec<Response>) {
    let (requests, outgoing) = tokio::sync::mpsc::channel(8);
    let send = |message| pb::SyncRequest { message: Some(message) };
    requests.send(send(Request::Hello(hello))).await.unwrap();
    let mut answers = client.sync(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let answer = within("an answer", answers.message()).await.unwrap().unwrap();
        seen.push(answer.message.unwrap());
    }
    assert!(matches!(seen[0], Response::Registered(_)), "{seen:?}");
    // Let go of the instance, so that the next stream may have it.
    requests.send(send(Request::Leave(pb::Leave {}))).await.unwrap();
    while within("the end", answers.message()).await.unwrap().is_some() {}
    (matches!(seen[1], Response::SnapshotBegin(_)), seen)
}

#[tokio::test]
async fn a_stream_must_begin_with_hello() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &[]).await;
    let mut client = MeshClient::new(as_agent(&plane, &web).await);
    let heartbeat = pb::SyncRequest { message: Some(Request::Heartbeat(pb::Heartbeat {})) };
    let mut answers = client.sync(tokio_stream::iter([heartbeat])).await.unwrap().into_inner();
    let status = within("the refusal", answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// A host that no sidecar can take, in the catalog by another way: it is refused alone.
#[tokio::test]
async fn a_poisoned_endpoint_is_refused_alone() {
    let plane = Plane::start().await;
    let web = plane.agent("web", &["db"]).await;
    let mut bad = instance("db", "db-bad", 21_005);
    bad.iter_mut().for_each(|one| one.instance.address = "no such/host".to_owned());
    let _db = plane.agent("db", &[]).await;
    plane.catalog.register(bad, Owner::Permanent, Unlisted::Remove).await.unwrap();
    eventually("the good endpoint", || endpoints(&web, "db") == at(Passing)).await;
    eventually("the refusal on the board", || {
        let mut refused = plane.catalog.proxies().into_iter().flat_map(|proxy| proxy.refused);
        refused.any(|text| text.starts_with("endpoint db n1/db-bad: "))
    })
    .await;
    assert!(web.handle.status.borrow().registered, "the stream goes on");
}
