//! Snapshots, deltas and refusals as they arrive.

use super::*;
use crate::model::{Action, CheckStatus, ServiceName};

fn endpoint(instance: &str, port: u32) -> pb::Resource {
    let resource = pb::resource::Resource::Endpoint(pb::Endpoint {
        service: "db".to_owned(),
        node: "n1".to_owned(),
        instance: instance.to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        weight_passing: 1,
        weight_warning: 1,
    });
    pb::Resource { resource: Some(resource) }
}

fn health(instance: &str, status: pb::CheckStatus) -> pb::Resource {
    let resource = pb::resource::Resource::Health(pb::EndpointHealth {
        service: "db".to_owned(),
        node: "n1".to_owned(),
        instance: instance.to_owned(),
        status: status.into(),
    });
    pb::Resource { resource: Some(resource) }
}

fn bundle(version: u64) -> pb::Resource {
    let roots = vec![vec![1]];
    let bundle = pb::Bundle { trust_domain: "t".to_owned(), version, roots };
    pb::Resource { resource: Some(pb::resource::Resource::Bundle(bundle)) }
}

fn at(epoch: u64, revision: u64) -> pb::Position {
    pb::Position { epoch, revision }
}

fn piece(resources: Vec<pb::Resource>) -> pb::Batch {
    pb::Batch { position: None, resources }
}

fn delta(position: pb::Position, resources: Vec<pb::Resource>) -> pb::Batch {
    pb::Batch { position: Some(position), resources }
}

fn any(_: &Bundle) -> Result<(), String> {
    Ok(())
}

fn snapshot(receiver: &mut Receiver, position: pb::Position, resources: Vec<pb::Resource>) -> Applied {
    receiver.begin_snapshot();
    assert!(receiver.batch(piece(resources), any).unwrap().is_none());
    receiver.end_snapshot(Some(position), any).unwrap()
}

fn db(snapshot: &Snapshot) -> Vec<(String, u16, CheckStatus)> {
    let view = &snapshot.services[&ServiceName::new("db").unwrap()];
    let states = view.endpoints.iter();
    states.map(|(id, s)| (id.instance.to_string(), s.endpoint.port, s.status)).collect()
}

const PASSING: pb::CheckStatus = pb::CheckStatus::Passing;

#[test]
fn a_snapshot_replaces_everything_at_its_end() {
    let mut receiver = Receiver::new();
    assert_eq!(receiver.resume(), None);
    snapshot(&mut receiver, at(1, 5), vec![endpoint("a", 1), health("a", PASSING)]);
    receiver.begin_snapshot();
    receiver.batch(piece(vec![endpoint("b", 2)]), any).unwrap();
    assert_eq!(db(&receiver.held), [("a".to_owned(), 1, CheckStatus::Passing)], "not before its end");
    let applied = receiver.end_snapshot(Some(at(1, 6)), any).unwrap();
    assert_eq!(db(&applied.snapshot), [("b".to_owned(), 2, CheckStatus::Critical)]);
    assert_eq!(receiver.resume(), Some(Position { epoch: 1, revision: 6 }));
}

#[test]
fn a_delta_is_applied_whole() {
    let mut receiver = Receiver::new();
    snapshot(&mut receiver, at(1, 5), vec![endpoint("a", 1)]);
    assert!(receiver.batch(piece(vec![endpoint("b", 2)]), any).unwrap().is_none());
    assert_eq!(db(&receiver.held).len(), 1);
    let applied = receiver.batch(delta(at(1, 6), vec![health("b", PASSING)]), any).unwrap().unwrap();
    assert_eq!(db(&applied.snapshot).len(), 2);
    receiver.batch(piece(vec![endpoint("c", 3)]), any).unwrap();
    receiver.start_stream();
    let applied = receiver.batch(delta(at(1, 7), vec![]), any).unwrap().unwrap();
    assert_eq!(db(&applied.snapshot).len(), 2, "half a delta died with its stream");
}

#[test]
fn older_states_and_foreign_batches_are_offences() {
    let mut receiver = Receiver::new();
    snapshot(&mut receiver, at(1, 5), vec![endpoint("a", 1)]);
    let behind = Offence::Behind { offered: 4, held: 5 };
    assert_eq!(receiver.batch(delta(at(1, 4), vec![]), any).unwrap_err(), behind);
    receiver.begin_snapshot();
    assert_eq!(receiver.end_snapshot(Some(at(1, 4)), any).unwrap_err(), behind);
    assert!(matches!(receiver.batch(delta(at(2, 9), vec![]), any), Err(Offence::Protocol(_))));
    assert!(matches!(receiver.end_snapshot(Some(at(1, 9)), any), Err(Offence::Protocol(_))));
    assert_eq!(db(&receiver.held).len(), 1, "nothing of it was applied");
    snapshot(&mut receiver, at(2, 1), vec![]);
    assert_eq!(receiver.resume(), Some(Position { epoch: 2, revision: 1 }), "another epoch starts anew");
}

#[test]
fn a_bad_resource_is_refused_alone_and_the_old_one_stays() {
    let mut receiver = Receiver::new();
    snapshot(&mut receiver, at(1, 5), vec![endpoint("a", 1), health("a", PASSING)]);
    let bad = vec![endpoint("a", 70_000), endpoint("b", 2)];
    let applied = receiver.batch(delta(at(1, 6), bad.clone()), any).unwrap().unwrap();
    assert_eq!(applied.refused[0].resource, "endpoint db n1/a");
    assert_eq!(db(&applied.snapshot)[0], ("a".to_owned(), 1, CheckStatus::Passing));
    assert_eq!(db(&applied.snapshot)[1].0, "b");
    let mut bad = bad;
    bad.push(health("a", pb::CheckStatus::Critical));
    let applied = snapshot(&mut receiver, at(1, 7), bad);
    assert_eq!(
        db(&applied.snapshot)[0],
        ("a".to_owned(), 1, CheckStatus::Critical),
        "in a snapshot too"
    );
    assert_eq!(applied.refused.len(), 1);
}

#[test]
fn a_rule_that_is_not_understood_denies() {
    let mut receiver = Receiver::new();
    let rule = |action| {
        let (source, destination) = ("web".to_owned(), "db".to_owned());
        let rule = pb::Intention { source, destination, action };
        pb::Resource { resource: Some(pb::resource::Resource::Intention(rule)) }
    };
    let default = pb::DefaultAction { action: pb::Action::Allow.into() };
    let default = pb::Resource { resource: Some(pb::resource::Resource::DefaultAction(default)) };
    let applied = snapshot(&mut receiver, at(1, 1), vec![default, rule(1), rule(9)]);
    assert_eq!(applied.refused.len(), 1);
    let (web, db) = (ServiceName::new("web").unwrap(), ServiceName::new("db").unwrap());
    assert_eq!(applied.snapshot.intentions.decide(&web, &db).action, Action::Deny);
    assert!(applied.snapshot.intentions.decide(&db, &web).is_allowed());
}

#[test]
fn a_refused_bundle_leaves_the_old_one() {
    let mut receiver = Receiver::new();
    snapshot(&mut receiver, at(1, 1), vec![bundle(1)]);
    let refuse = |_: &Bundle| Err("no".to_owned());
    let applied = receiver.batch(delta(at(1, 2), vec![bundle(2)]), refuse).unwrap().unwrap();
    assert_eq!(applied.refused, [Refused::bundle(&"no")]);
    assert_eq!(applied.snapshot.bundle.as_ref().unwrap().version, 1);
    receiver.begin_snapshot();
    receiver.batch(piece(vec![bundle(3)]), refuse).unwrap();
    let applied = receiver.end_snapshot(Some(at(1, 3)), refuse).unwrap();
    assert_eq!(applied.snapshot.bundle.as_ref().unwrap().version, 1);
}

#[test]
fn heartbeats_advance_the_resume_point_only() {
    let mut receiver = Receiver::new();
    snapshot(&mut receiver, at(1, 5), vec![]);
    receiver.heartbeat(Some(at(1, 9)));
    receiver.heartbeat(Some(at(1, 7)));
    receiver.heartbeat(Some(at(2, 99)));
    receiver.heartbeat(None);
    assert_eq!(receiver.resume(), Some(Position { epoch: 1, revision: 9 }));
    assert_eq!(receiver.held.position.revision, 5);
}
