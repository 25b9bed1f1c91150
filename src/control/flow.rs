//! What one sidecar is sent, and when. Pure: the clock is an argument, messages are values.
//!
//! Invariants: at most one batch or snapshot is unacknowledged; while one is, nothing is taken from
//! the subscription, which coalesces; at most one change per resource waits here. The first change
//! leaves at once, the next no sooner than [`BATCH_FLOOR`] after it unless it is urgent.

use std::collections::{HashSet, VecDeque};
use std::iter::Peekable;
use std::time::Duration;
use std::vec;

use prost::Message as _;
use tokio::time::Instant;

use super::limits::{BATCH_FLOOR, CLOSE_AFTER, LAG_AFTER, MAX_PIECE_BYTES};
use crate::catalog::Batch;
use crate::model::ban::Subject;
use crate::model::snapshot::Change;
use crate::model::{Action, CheckStatus, EndpointId, Party, Position, ServiceName};
use crate::pb;
use crate::pb::sync_response::Message;

/// The outgoing half of a Sync stream.
#[derive(Debug)]
pub(super) struct Flow {
    heartbeat: Duration,
    /// Answers to single requests: at most one of each kind at a time.
    notes: VecDeque<Message>,
    sending: Option<Sending>,
    pending: Option<Pending>,
    awaiting: Option<Position>,
    /// What a sidecar without pending changes is current at.
    current: Position,
    last_sent: Instant,
    last_batch: Option<Instant>,
    /// When the batch or snapshot under way last moved.
    progress: Instant,
    lagging: bool,
}

/// A snapshot or delta on its way, cut into pieces.
#[derive(Debug)]
struct Sending {
    kind: Kind,
    position: Position,
    rest: Peekable<vec::IntoIter<Change>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A snapshot before its first message.
    NewSnapshot,
    Snapshot,
    Delta,
}

/// Changes that were taken but wait for the floor.
#[derive(Debug)]
struct Pending {
    position: Position,
    changes: Vec<Change>,
    urgent: bool,
}

/// What a stream without progress has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// To be reported, once.
    Lagging,
    /// To be closed.
    Lost,
}

impl Flow {
    pub(super) fn new(now: Instant, heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            notes: VecDeque::new(),
            sending: None,
            pending: None,
            awaiting: None,
            current: Position::default(),
            last_sent: now,
            last_batch: None,
            progress: now,
            lagging: false,
        }
    }

    /// Queues the answer to a single request; a second one of the same kind replaces the first.
    pub(super) fn note(&mut self, message: Message) {
        let kind = std::mem::discriminant(&message);
        self.notes.retain(|queued| std::mem::discriminant(queued) != kind);
        self.notes.push_back(message);
    }

    /// Sends a snapshot in place of everything pending.
    pub(super) fn snapshot(&mut self, batch: Batch, now: Instant) {
        self.pending = None;
        self.send(Kind::NewSnapshot, batch.position, batch.changes, now);
    }

    /// Adds a delta that brings the sidecar to a position. One without changes only moves that.
    pub(super) fn delta(&mut self, batch: Batch) {
        let Batch { position, changes, .. } = batch;
        self.current = position;
        let urgent = changes.iter().any(is_urgent);
        if let Some(pending) = &mut self.pending {
            pending.merge(changes);
            pending.position = position;
            pending.urgent |= urgent;
        } else if !changes.is_empty() {
            self.pending = Some(Pending { position, changes, urgent });
        }
    }

    /// Whether changes may be taken from the subscription.
    pub(super) const fn wants_changes(&self) -> bool {
        self.sending.is_none() && self.awaiting.is_none()
    }

    /// Takes an acknowledgement; says whether it was the one awaited.
    pub(super) fn acknowledge(&mut self, position: Position) -> bool {
        if self.awaiting != Some(position) {
            return false;
        }
        self.awaiting = None;
        self.lagging = false;
        true
    }

    /// Whether [`Self::emit`] has something to send.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.notes.is_empty()
            || self.sending.is_some()
            || self.batch_is_ripe(now)
            || self.heartbeat_is_due(now)
    }

    /// When to look again if nothing happens before. What is due already waits for room on the
    /// stream, not for the clock.
    pub(super) fn wake(&self, now: Instant) -> Instant {
        let patience = if self.lagging { CLOSE_AFTER } else { LAG_AFTER };
        let overdue = self.stalled_since() + patience;
        if self.is_due(now) {
            return overdue;
        }
        let floor = self.last_batch.map(|at| at + BATCH_FLOOR);
        let floor = floor.filter(|_| self.pending.is_some() && self.wants_changes());
        let beat = self.last_sent + self.heartbeat;
        floor.map_or(beat, |floor| floor.min(beat)).min(overdue)
    }

    /// Whether the sidecar has made no progress for too long.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Overdue> {
        let stalled = now.saturating_duration_since(self.stalled_since());
        if stalled >= CLOSE_AFTER {
            return Some(Overdue::Lost);
        }
        if stalled >= LAG_AFTER && !self.lagging {
            self.lagging = true;
            return Some(Overdue::Lagging);
        }
        None
    }

    /// The next message. Call only when [`Self::is_due`].
    pub(super) fn emit(&mut self, now: Instant) -> Option<Message> {
        let message = self.next(now)?;
        self.last_sent = now;
        Some(message)
    }

    fn next(&mut self, now: Instant) -> Option<Message> {
        if let Some(note) = self.notes.pop_front() {
            return Some(note);
        }
        if self.sending.is_none() && self.batch_is_ripe(now) {
            let pending = self.pending.take()?;
            self.last_batch = Some(now);
            self.send(Kind::Delta, pending.position, pending.changes, now);
        }
        if let Some(sending) = &mut self.sending {
            let (message, last) = sending.piece();
            self.progress = now;
            if last {
                self.awaiting = Some(sending.position);
                self.sending = None;
            }
            return Some(message);
        }
        self.heartbeat_is_due(now).then(|| self.beat())
    }

    fn send(&mut self, kind: Kind, position: Position, changes: Vec<Change>, now: Instant) {
        self.current = position;
        self.progress = now;
        self.sending = Some(Sending { kind, position, rest: changes.into_iter().peekable() });
    }

    /// The position is told only when it is true: nothing is pending or on its way.
    fn beat(&self) -> Message {
        let clear = self.wants_changes() && self.pending.is_none();
        let position = clear.then(|| self.current.into());
        Message::Heartbeat(pb::ServerHeartbeat { position })
    }

    fn batch_is_ripe(&self, now: Instant) -> bool {
        let Some(pending) = &self.pending else { return false };
        let rested = self.last_batch.is_none_or(|at| now >= at + BATCH_FLOOR);
        self.wants_changes() && (pending.urgent || rested)
    }

    fn heartbeat_is_due(&self, now: Instant) -> bool {
        now >= self.last_sent + self.heartbeat
    }

    /// Since when the client owes progress: an acknowledgement, or room on the stream.
    fn stalled_since(&self) -> Instant {
        if self.wants_changes() { self.last_sent + self.heartbeat } else { self.progress }
    }
}

impl Pending {
    /// Appends changes in place of earlier ones of the same resources.
    fn merge(&mut self, later: Vec<Change>) {
        let replaced: HashSet<_> = later.iter().map(key).collect();
        self.changes.retain(|change| !replaced.contains(&key(change)));
        drop(replaced);
        self.changes.extend(later);
    }
}

impl Sending {
    /// The next piece, and whether it was the last.
    fn piece(&mut self) -> (Message, bool) {
        match self.kind {
            Kind::NewSnapshot => {
                self.kind = Kind::Snapshot;
                (Message::SnapshotBegin(pb::SnapshotBegin {}), false)
            }
            Kind::Snapshot if self.rest.peek().is_none() => {
                (Message::SnapshotEnd(pb::SnapshotEnd { position: Some(self.position.into()) }), true)
            }
            Kind::Snapshot => {
                (Message::Batch(pb::Batch { position: None, resources: self.cut() }), false)
            }
            Kind::Delta => {
                let resources = self.cut();
                let last = self.rest.peek().is_none();
                let position = last.then(|| self.position.into());
                (Message::Batch(pb::Batch { position, resources }), last)
            }
        }
    }

    /// Resources until the piece is full.
    fn cut(&mut self) -> Vec<pb::Resource> {
        let (mut resources, mut bytes) = (Vec::new(), 0);
        while bytes < MAX_PIECE_BYTES {
            let Some(change) = self.rest.next() else { break };
            let resource = pb::Resource::from(&change);
            bytes += resource.encoded_len();
            resources.push(resource);
        }
        resources
    }
}

/// Whether a change takes something away that a sidecar must not go on using: it waits for no floor.
const fn is_urgent(change: &Change) -> bool {
    match change {
        Change::EndpointGone { .. }
        | Change::Health { status: CheckStatus::Critical, .. }
        | Change::Intention { action: Action::Deny, .. }
        | Change::IntentionGone { .. }
        | Change::DefaultAction(Action::Deny)
        | Change::Ban(_)
        | Change::Bundle(_) => true,
        Change::Service { .. }
        | Change::Endpoint(_)
        | Change::Health { .. }
        | Change::Intention { .. }
        | Change::DefaultAction(_)
        | Change::BanGone(_) => false,
    }
}

/// What a change replaces when both wait: the later one of a key counts.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Service(&'a ServiceName),
    Endpoint(&'a ServiceName, &'a EndpointId),
    Health(&'a ServiceName, &'a EndpointId),
    Intention(&'a Party, &'a Party),
    Default,
    Ban(&'a Subject),
    Bundle,
}

const fn key(change: &Change) -> Key<'_> {
    match change {
        Change::Service { name, .. } => Key::Service(name),
        Change::Endpoint(endpoint) => Key::Endpoint(&endpoint.service, &endpoint.id),
        Change::EndpointGone { service, id } => Key::Endpoint(service, id),
        Change::Health { service, id, .. } => Key::Health(service, id),
        Change::Intention { source, destination, .. }
        | Change::IntentionGone { source, destination } => Key::Intention(source, destination),
        Change::DefaultAction(_) => Key::Default,
        Change::Ban(subject) | Change::BanGone(subject) => Key::Ban(subject),
        Change::Bundle(_) => Key::Bundle,
    }
}

#[cfg(test)]
#[path = "tests/flow.rs"]
mod tests;
