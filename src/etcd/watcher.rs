//! One watch: which events it is to hear, and up to where it has. Pure.

use std::sync::Arc;

use prost::Message;

use super::history::Event;
use super::keyspace::Keyspace;
use super::limits::{BYTES_PER_ANSWER, EVENTS_PER_ANSWER};
use super::span::Span;
use crate::pb::etcd::etcdserverpb::WatchCreateRequest;
use crate::pb::etcd::etcdserverpb::watch_create_request::FilterType;
use crate::pb::etcd::mvccpb;
use crate::pb::etcd::mvccpb::KeyValue;
use crate::pb::etcd::mvccpb::event::EventType;

pub(super) struct Watcher {
    span: Span,
    /// First revision that was not looked at.
    next: i64,
    puts: bool,
    deletes: bool,
    prev_kv: bool,
    pub(super) wants_progress: bool,
}

/// What a look at the keys gives a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// Nothing for it, and it has seen everything.
    Nothing,
    /// Whole revisions, up to this one; perhaps none of it is for it.
    Events(Vec<mvccpb::Event>, i64),
    /// It is too far behind; the first revision that can be watched from.
    Compacted(i64),
}

impl Watcher {
    /// # Errors
    /// A text for a range in which no key can be.
    pub(super) fn new(request: &WatchCreateRequest, revision: i64) -> Result<Self, &'static str> {
        // As in etcd: no key is the least key there is.
        let key = match request.key.is_empty() {
            true => bytes::Bytes::from_static(&[0]),
            false => request.key.clone(),
        };
        let span = Span::new(&key, &request.range_end);
        if span.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        let filters: Vec<FilterType> = request.filters().collect();
        Ok(Self {
            span,
            next: if request.start_revision > 0 { request.start_revision } else { revision + 1 },
            puts: !filters.contains(&FilterType::Noput),
            deletes: !filters.contains(&FilterType::Nodelete),
            prev_kv: request.prev_kv,
            wants_progress: request.progress_notify,
        })
    }

    /// Looks at what came after the last look; never at half a revision.
    pub(super) fn look(&mut self, space: &Keyspace) -> Found {
        if self.next > space.revision {
            return Found::Nothing;
        }
        let events = match space.events(self.next) {
            Ok(events) => events,
            Err(first) => return Found::Compacted(first),
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let (mut last, mut complete) = (self.next - 1, true);
        for (count, event) in events.enumerate() {
            let full = count >= EVENTS_PER_ANSWER || bytes >= BYTES_PER_ANSWER;
            if full && event.revision > last {
                complete = false;
                break;
            }
            last = event.revision;
            if let Some(shown) = self.shown(event) {
                bytes += shown.encoded_len();
                found.push(shown);
            }
        }
        if complete {
            last = space.revision;
        }
        self.next = last + 1;
        if found.is_empty() && complete { Found::Nothing } else { Found::Events(found, last) }
    }

    /// Whether it has seen everything up to a revision.
    pub(super) const fn has_seen(&self, revision: i64) -> bool {
        self.next > revision
    }

    fn shown(&self, event: &Event) -> Option<mvccpb::Event> {
        let wanted = if event.new.is_some() { self.puts } else { self.deletes };
        if !wanted || !self.span.contains(&event.key) {
            return None;
        }
        let kv = match &event.new {
            Some(new) => (**new).clone(),
            None => {
                KeyValue { key: event.key.clone(), mod_revision: event.revision, ..KeyValue::default() }
            }
        };
        let prev = event.old.as_ref().filter(|_| self.prev_kv).map(Arc::as_ref);
        let kind = if event.new.is_some() { EventType::Put } else { EventType::Delete };
        Some(mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv: prev.cloned() })
    }
}
