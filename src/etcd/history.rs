//! The recent past of the keys: what watches are fed from, and how an older state is found. Pure.
//!
//! Bounded; whole revisions are forgotten at a time. Invariant: events are in the order they happened
//! in, and everything after `floor` is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::limits::{MAX_EVENT_BYTES, MAX_EVENTS};
use super::span::Span;
use crate::pb::etcd::mvccpb::KeyValue;

/// One change of one key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) revision: i64,
    pub(super) key: Bytes,
    /// `None`: it was deleted.
    pub(super) new: Option<Arc<KeyValue>>,
    pub(super) old: Option<Arc<KeyValue>>,
}

#[derive(Debug)]
pub(super) struct History {
    floor: i64,
    events: VecDeque<Event>,
    bytes: usize,
    most_events: usize,
}

impl History {
    /// Nothing is known of what was before `floor` or at it.
    pub(super) const fn new(floor: i64) -> Self {
        Self { floor, events: VecDeque::new(), bytes: 0, most_events: MAX_EVENTS }
    }

    /// The newest revision whose events are forgotten.
    pub(super) const fn floor(&self) -> i64 {
        self.floor
    }

    pub(super) fn push(&mut self, event: Event) {
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.events.len() > self.most_events || self.bytes > MAX_EVENT_BYTES {
            let Some(oldest) = self.events.front() else { return };
            self.forget(oldest.revision);
        }
    }

    /// Forgets everything up to a revision.
    pub(super) fn forget(&mut self, revision: i64) {
        self.floor = self.floor.max(revision);
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            if let Some(event) = self.events.pop_front() {
                self.bytes -= weight(&event);
            }
        }
    }

    /// Events from a revision on. The caller has looked at `floor`.
    pub(super) fn from(&self, revision: i64) -> impl Iterator<Item = &Event> {
        let first = self.events.partition_point(|event| event.revision < revision);
        self.events.range(first..)
    }

    /// The keys of a span as they were at a revision, made from what they are now.
    pub(super) fn rewind(
        &self,
        span: &Span,
        now: impl Iterator<Item = Arc<KeyValue>>,
        revision: i64,
    ) -> Vec<Arc<KeyValue>> {
        let mut then: BTreeMap<Bytes, Arc<KeyValue>> = now.map(|kv| (kv.key.clone(), kv)).collect();
        for event in self.events.iter().rev().take_while(|event| event.revision > revision) {
            if !span.contains(&event.key) {
                continue;
            }
            match &event.old {
                Some(old) => drop(then.insert(event.key.clone(), Arc::clone(old))),
                None => drop(then.remove(&event.key)),
            }
        }
        then.into_values().collect()
    }
}

/// What an event keeps alive that nobody else does.
fn weight(event: &Event) -> usize {
    event.key.len() + event.old.as_ref().map_or(0, |old| old.value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: i64, key: &'static str) -> Event {
        Event { revision, key: key.into(), new: None, old: None }
    }

    #[test]
    fn whole_revisions_are_forgotten() {
        let mut history = History { most_events: 3, ..History::new(1) };
        for (revision, key) in [(2, "a"), (2, "b"), (3, "a"), (4, "a")] {
            history.push(event(revision, key));
        }
        assert_eq!(history.floor(), 2);
        let seen = |from| history.from(from).map(|event| event.revision).collect::<Vec<_>>();
        assert_eq!((seen(3), seen(4), seen(5)), (vec![3, 4], vec![4], vec![]));
        history.forget(3);
        assert_eq!((history.floor(), history.events.len()), (3, 1));
        history.forget(9);
        assert_eq!((history.floor(), history.bytes), (9, 0));
    }
}
