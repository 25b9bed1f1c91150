//! What a sidecar hears, in which order, and how often.

use super::*;
use crate::catalog::resource::Resource;
use crate::model::snapshot::{Change, EndpointState};
use crate::model::{EndpointId, Weights};

fn endpoint(snapshot: &Snapshot, name: &str, id: &str) -> Option<EndpointState> {
    let id = EndpointId { node: n1(), instance: instance(id) };
    snapshot.services[&service(name)].endpoints.get(&id).cloned()
}

#[tokio::test]
async fn a_new_service_is_told_in_the_order_to_apply_it() {
    let c = open().await;
    let mut reader = c.subscribe(interest(&["db"], &[]));
    let first = reader.snapshot();
    assert!(first.snapshot);
    let (db, action) = (service("db"), Action::Allow);
    let expected = [Change::Service { name: db.clone(), exists: false }, Change::DefaultAction(action)];
    assert_eq!(first.changes, expected);
    add(&c, meshed("db", "db-1")).await;
    changed(&mut reader).await;
    let batch = reader.take();
    assert_eq!(batch.position, c.position());
    let kinds: Vec<_> = batch.changes.iter().map(kind).collect();
    assert_eq!(kinds, ["service", "endpoint", "health"]);
    assert!(reader.take().changes.is_empty());
    remove(&c, "db-1").await;
    let kinds: Vec<_> = reader.take().changes.iter().map(kind).collect();
    assert_eq!(kinds, ["service", "gone"]);
}

async fn changed(reader: &mut Subscription) {
    tokio::time::timeout(DEADLINE, reader.changed()).await.expect("something changes");
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Service { .. } => "service",
        Change::Endpoint(_) => "endpoint",
        Change::EndpointGone { .. } => "gone",
        Change::Health { .. } => "health",
        Change::Intention { .. } => "intention",
        Change::IntentionGone { .. } => "intention gone",
        Change::DefaultAction(_) => "default",
        Change::Ban(_) => "ban",
        Change::BanGone(_) => "ban gone",
        Change::Bundle(_) => "bundle",
    }
}

#[tokio::test]
async fn an_endpoint_is_the_sidecar_with_the_weights_and_health_of_both() {
    let c = open().await;
    let mut db = meshed("db", "db-1");
    db.weights = Weights { passing: 7, warning: 2 };
    add(&c, &db).await;
    let seen = || endpoint(&fresh(&c, &interest(&["db"], &[])), "db", "db-1").unwrap();
    let state = seen();
    assert_eq!((state.endpoint.host.as_str(), state.endpoint.port), ("10.0.0.1", 21000));
    assert_eq!((state.status, state.weight()), (CheckStatus::Passing, 7));
    report(&c, "service:db-1", CheckStatus::Warning, "").await;
    assert_eq!((seen().status, seen().weight()), (CheckStatus::Warning, 2));
    report(&c, "service:db-1-sidecar-proxy", CheckStatus::Critical, "").await;
    assert_eq!(seen().status, CheckStatus::Critical);
}

#[tokio::test]
async fn a_sidecar_alone_and_a_native_application_are_endpoints_and_a_plain_one_is_not() {
    let c = open().await;
    let mut alone = expand(&meshed("db", "db-1")).split_off(1);
    alone[0].instance.address = "192.0.2.9".to_owned();
    c.register(alone, Owner::Permanent, Unlisted::Remove).await.unwrap();
    let mut native = plain("api", "api-1");
    native.native = true;
    add(&c, &native).await;
    add(&c, plain("web", "web-1")).await;
    let snapshot = fresh(&c, &interest(&["db", "api", "web", "nil"], &[]));
    assert_eq!(endpoint(&snapshot, "db", "db-1").unwrap().endpoint.host, "192.0.2.9");
    assert_eq!(endpoint(&snapshot, "api", "api-1").unwrap().endpoint.port, 5000);
    assert_eq!(endpoint(&snapshot, "web", "web-1"), None);
    let exists = |name| snapshot.services[&service(name)].exists;
    assert_eq!(["db", "api", "web", "nil"].map(exists), [true, true, true, false]);
    assert_eq!(c.connect(&service("api")).len(), 1);
}

#[tokio::test]
async fn endpoints_follow_the_address_of_their_node() {
    let c = open().await;
    let n2 = NodeName::new("n2").unwrap();
    let mut db = meshed("db", "db-1");
    c.register(db.expand(&n2, 21000).unwrap(), Owner::Permanent, Unlisted::Remove).await.unwrap();
    let mut reader = c.subscribe(interest(&["db"], &[]));
    let host = |snapshot: &Snapshot| {
        let view = &snapshot.services[&service("db")];
        view.endpoints.values().next().unwrap().endpoint.host.clone()
    };
    let mut snapshot = Snapshot::default();
    apply(&mut snapshot, reader.snapshot());
    assert_eq!(host(&snapshot), "10.0.0.1", "nobody gave the node an address");
    db = plain("other", "aa");
    db.address = "10.0.0.7".to_owned();
    c.register(db.expand(&n2, 0).unwrap(), Owner::Permanent, Unlisted::Remove).await.unwrap();
    apply(&mut snapshot, reader.take());
    assert_eq!(host(&snapshot), "10.0.0.7");
}

#[tokio::test]
async fn a_thousand_flips_are_one_change() {
    let c = open().await;
    add(&c, meshed("db", "db-1")).await;
    let mut reader = c.subscribe(interest(&["db"], &[]));
    reader.snapshot();
    for round in 0..1000 {
        let status = if round % 2 == 0 { CheckStatus::Critical } else { CheckStatus::Warning };
        report(&c, "service:db-1", status, "").await;
    }
    changed(&mut reader).await;
    let batch = reader.take();
    let id = EndpointId { node: n1(), instance: instance("db-1") };
    let last = Change::Health { service: service("db"), id, status: CheckStatus::Warning };
    assert_eq!((batch.changes, batch.position), (vec![last], c.position()));
}

#[tokio::test]
async fn a_change_touches_only_those_who_follow_it() {
    let c = open().await;
    let mut db = c.subscribe(interest(&["db"], &["web"]));
    let mut api = c.subscribe(interest(&["api"], &["web"]));
    db.snapshot();
    api.snapshot();
    add(&c, meshed("db", "db-1")).await;
    assert_eq!(api.position(), c.position(), "an idle reader is as current as the catalog");
    assert_ne!(db.position(), c.position(), "one with something pending is not");
    assert_eq!(db.take().changes.len(), 3);
    assert_eq!(db.position(), c.position());
    assert!(api.take().changes.is_empty());
    allow(&c, "db", "web", Action::Deny).await;
    allow(&c, "db", "*", Action::Deny).await;
    allow(&c, "web", "db", Action::Deny).await;
    assert_eq!(db.take().changes.len(), 2, "those toward its own service and toward all");
    drop(db);
    drop(api);
    assert!(c.shared.readers.is_empty());
}

#[tokio::test]
async fn a_reader_resumes_with_what_it_missed_and_nothing_else() {
    let c = open().await;
    add(&c, meshed("db", "db-1")).await;
    add(&c, meshed("api", "api-1")).await;
    let both = interest(&["db", "api"], &["web"]);
    let mut snapshot = fresh(&c, &both);
    report(&c, "service:db-1", CheckStatus::Critical, "").await;
    allow(&c, "db", "web", Action::Deny).await;
    let batch = c.subscribe(both.clone()).resume(snapshot.position).unwrap();
    let kinds: Vec<_> = batch.changes.iter().map(kind).collect();
    assert_eq!(kinds, ["health", "default", "intention"]);
    apply(&mut snapshot, batch);
    assert_eq!(snapshot, fresh(&c, &both));
    let now = c.position();
    for unknown in [
        Position { epoch: now.epoch + 1, ..now },
        Position { revision: now.revision + 1, ..now },
        Position { revision: 0, epoch: now.epoch.wrapping_add(1) },
    ] {
        assert!(c.subscribe(both.clone()).resume(unknown).is_none(), "{unknown:?}");
    }
}

#[tokio::test]
async fn after_a_restart_only_current_readers_resume() {
    let store = Arc::new(MemoryStore::new());
    let first = open_on(&store).await;
    add(&first, meshed("db", "db-1")).await;
    let old = first.position();
    add(&first, meshed("db", "db-2")).await;
    let second = open_on(&store).await;
    let both = interest(&["db"], &[]);
    assert!(second.subscribe(both.clone()).resume(old).is_none());
    assert!(second.subscribe(both).resume(first.position()).is_some());
}

#[tokio::test]
async fn waiting_for_changes_can_be_given_up_and_taken_up() {
    let c = open().await;
    let mut reader = c.subscribe(interest(&["db"], &[]));
    reader.snapshot();
    tokio::select! {
        biased;
        () = reader.changed() => panic!("nothing has changed"),
        () = tokio::task::yield_now() => {}
    }
    add(&c, meshed("db", "db-1")).await;
    for _ in 0..2 {
        changed(&mut reader).await;
    }
    reader.take();
    tokio::select! {
        biased;
        () = reader.changed() => panic!("all was taken"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn a_reader_that_left_too_much_pending_gets_a_snapshot() {
    let c = open().await;
    add(&c, meshed("db", "db-1")).await;
    let mut reader = c.subscribe(interest(&["db"], &[]));
    reader.snapshot();
    let gone = |n| EndpointId { node: n1(), instance: instance(&format!("gone-{n}")) };
    let many: Vec<_> =
        (0..70_000).map(|n| Arc::new(Resource::Endpoint(service("db"), gone(n)))).collect();
    c.shared.readers.mark(&many[..60_000]);
    c.shared.readers.mark(&many);
    let batch = reader.take();
    assert!(batch.snapshot);
    assert_eq!(batch.changes.len(), 4, "all there is, and nothing of what is gone");
    assert!(!reader.take().snapshot);
}
