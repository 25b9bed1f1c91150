//! What a stream sends, and when, over values.

use proptest::prelude::*;

use super::*;
use crate::model::{Endpoint, InstanceId, NodeName, Weights};

const BEAT: Duration = Duration::from_secs(5);

fn db() -> ServiceName {
    ServiceName::new("db").unwrap()
}

fn id(n: usize) -> EndpointId {
    EndpointId {
        node: NodeName::new("n1").unwrap(),
        instance: InstanceId::new(format!("db-{n}")).unwrap(),
    }
}

fn endpoint(n: usize) -> Change {
    let weights = Weights::default();
    Change::Endpoint(Endpoint {
        id: id(n),
        service: db(),
        host: "127.0.0.1".to_owned(),
        port: 1,
        weights,
    })
}

fn health(n: usize, status: CheckStatus) -> Change {
    Change::Health { service: db(), id: id(n), status }
}

fn batch(revision: u64, changes: Vec<Change>) -> Batch {
    Batch { position: Position { epoch: 1, revision }, changes, snapshot: false }
}

fn position(message: &Message) -> Option<u64> {
    match message {
        Message::Batch(batch) => batch.position.map(|p| p.revision),
        Message::SnapshotEnd(end) => end.position.map(|p| p.revision),
        Message::Heartbeat(beat) => beat.position.map(|p| p.revision),
        _ => None,
    }
}

fn synced(now: Instant) -> Flow {
    let mut flow = Flow::new(now, BEAT);
    flow.snapshot(batch(1, vec![]), now);
    while flow.is_due(now) {
        flow.emit(now).unwrap();
    }
    assert!(flow.acknowledge(Position { epoch: 1, revision: 1 }));
    flow
}

#[test]
fn a_snapshot_is_framed_and_cut() {
    let now = Instant::now();
    let mut flow = Flow::new(now, BEAT);
    flow.note(Message::Registered(pb::Registered { lease_ttl_ms: 1 }));
    flow.snapshot(batch(7, (0..20_000).map(endpoint).collect()), now);
    let mut sent = Vec::new();
    while flow.is_due(now) {
        sent.push(flow.emit(now).unwrap());
    }
    assert!(matches!(sent[0], Message::Registered(_)));
    assert!(matches!(sent[1], Message::SnapshotBegin(_)));
    let pieces: Vec<_> =
        sent.iter().filter_map(|m| if let Message::Batch(b) = m { Some(b) } else { None }).collect();
    assert!(pieces.len() > 2);
    assert!(pieces.iter().all(|b| b.position.is_none() && b.encoded_len() < 2 * MAX_PIECE_BYTES));
    assert_eq!(pieces.iter().map(|b| b.resources.len()).sum::<usize>(), 20_000);
    assert_eq!(position(sent.last().unwrap()), Some(7));
    assert!(!flow.wants_changes(), "a snapshot must be acknowledged first");
    assert!(!flow.acknowledge(Position { epoch: 1, revision: 6 }));
    assert!(flow.acknowledge(Position { epoch: 1, revision: 7 }) && flow.wants_changes());
}

#[test]
fn the_first_change_leaves_at_once_and_the_next_after_the_floor() {
    let now = Instant::now();
    let mut flow = synced(now);
    flow.delta(batch(2, vec![endpoint(1)]));
    assert!(flow.is_due(now));
    assert_eq!(position(&flow.emit(now).unwrap()), Some(2));
    flow.acknowledge(Position { epoch: 1, revision: 2 });

    flow.delta(batch(3, vec![health(1, CheckStatus::Passing)]));
    assert!(!flow.is_due(now));
    assert_eq!(flow.wake(now), now + BATCH_FLOOR);
    flow.delta(batch(4, vec![health(1, CheckStatus::Warning), endpoint(2)]));
    let later = now + BATCH_FLOOR;
    assert!(flow.is_due(later));
    let Message::Batch(sent) = flow.emit(later).unwrap() else { panic!("not a batch") };
    assert_eq!(sent.position.unwrap().revision, 4);
    assert_eq!(sent.resources.len(), 2, "the older state of db-1 was replaced");
}

#[test]
fn bad_news_waits_for_no_floor() {
    let (source, destination) = (Party::Any, Party::Any);
    for urgent in [
        health(1, CheckStatus::Critical),
        Change::EndpointGone { service: db(), id: id(1) },
        Change::Intention {
            source: source.clone(),
            destination: destination.clone(),
            action: Action::Deny,
        },
        Change::IntentionGone { source, destination },
        Change::DefaultAction(Action::Deny),
    ] {
        let now = Instant::now();
        let mut flow = synced(now);
        flow.delta(batch(2, vec![endpoint(1)]));
        flow.emit(now).unwrap();
        flow.acknowledge(Position { epoch: 1, revision: 2 });
        flow.delta(batch(3, vec![urgent]));
        assert!(flow.is_due(now));
    }
}

#[test]
fn heartbeats_tell_a_position_only_when_it_holds() {
    let now = Instant::now();
    let mut flow = synced(now);
    flow.delta(batch(9, vec![]));
    assert_eq!(flow.wake(now), now + BEAT);
    assert!(!flow.is_due(now) && flow.is_due(now + BEAT));
    assert_eq!(position(&flow.emit(now + BEAT).unwrap()), Some(9));

    flow.delta(batch(10, vec![endpoint(1)]));
    flow.emit(now + BEAT).unwrap();
    let beat = flow.emit(now + 2 * BEAT).unwrap();
    assert!(matches!(beat, Message::Heartbeat(_)) && position(&beat).is_none());
}

#[test]
fn silence_makes_lag_and_then_loss() {
    let now = Instant::now();
    let mut flow = synced(now);
    flow.delta(batch(2, vec![endpoint(1)]));
    flow.emit(now).unwrap();
    assert_eq!(flow.overdue(now + LAG_AFTER / 2), None);
    assert_eq!(flow.overdue(now + LAG_AFTER), Some(Overdue::Lagging));
    assert_eq!(flow.overdue(now + LAG_AFTER * 2), None, "reported once");
    assert_eq!(flow.overdue(now + CLOSE_AFTER), Some(Overdue::Lost));
    flow.acknowledge(Position { epoch: 1, revision: 2 });
    assert_eq!(flow.overdue(now + LAG_AFTER), None);
}

#[test]
fn a_client_that_does_not_read_is_lost_in_the_end() {
    let now = Instant::now();
    let mut flow = synced(now);
    let blocked = now + BEAT;
    assert!(flow.is_due(blocked));
    assert!(flow.wake(blocked) > blocked, "no spinning while there is no room");
    assert_eq!(flow.overdue(blocked + CLOSE_AFTER), Some(Overdue::Lost));
}

proptest! {
    /// Whatever arrives in whatever order, what is sent ends in the state of the last changes.
    #[test]
    fn coalescing_loses_nothing(steps in proptest::collection::vec((0..4_usize, 0..3_u8, any::<bool>()), 1..60)) {
        let mut now = Instant::now();
        let (mut flow, mut truth, mut seen) = (synced(now), crate::model::Snapshot::default(), Vec::new());
        let mut revision = 1;
        for (n, what, acknowledge) in steps {
            if flow.wants_changes() {
                revision += 1;
                let changes = match what {
                    0 => vec![endpoint(n), health(n, CheckStatus::Passing)],
                    1 => vec![health(n, CheckStatus::Critical)],
                    _ => vec![Change::EndpointGone { service: db(), id: id(n) }],
                };
                changes.iter().for_each(|change| truth.apply(change.clone()));
                flow.delta(batch(revision, changes));
            }
            now += Duration::from_millis(2);
            drain(&mut flow, now, acknowledge, &mut seen);
        }
        drain(&mut flow, now + BATCH_FLOOR, true, &mut seen);
        drain(&mut flow, now + 2 * BATCH_FLOOR, true, &mut seen);
        let mut got = crate::model::Snapshot::default();
        seen.iter().for_each(|resource| got.apply(decoded(resource)));
        prop_assert_eq!(got.services, truth.services);
    }
}

/// Back to a change, for the three kinds the test sends.
fn decoded(resource: &pb::Resource) -> Change {
    let number = |instance: &str| instance.strip_prefix("db-").unwrap().parse().unwrap();
    match resource.resource.as_ref().unwrap() {
        pb::resource::Resource::Endpoint(message) => endpoint(number(&message.instance)),
        pb::resource::Resource::EndpointGone(message) => {
            Change::EndpointGone { service: db(), id: id(number(&message.instance)) }
        }
        pb::resource::Resource::Health(message) if message.status() == pb::CheckStatus::Critical => {
            health(number(&message.instance), CheckStatus::Critical)
        }
        pb::resource::Resource::Health(message) => {
            health(number(&message.instance), CheckStatus::Passing)
        }
        other => panic!("{other:?} was not sent"),
    }
}

fn drain(flow: &mut Flow, now: Instant, acknowledge: bool, seen: &mut Vec<pb::Resource>) {
    while flow.is_due(now) {
        if let Some(Message::Batch(batch)) = flow.emit(now) {
            seen.extend(batch.resources);
        }
    }
    if acknowledge && let Some(awaited) = flow.awaiting {
        flow.acknowledge(awaited);
    }
}
