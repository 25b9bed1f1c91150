//! Puts a sidecar's snapshot together from what the control plane sends. Pure.
//!
//! Invariants: a snapshot replaces everything, and only at its end; a delta is applied whole; a
//! position of the same epoch never goes back; what is refused leaves the older state in force.

use std::sync::Arc;

use super::convert::{self, Refused};
use crate::model::snapshot::Change;
use crate::model::{Bundle, Position, Snapshot};
use crate::pb;

/// Resources of one snapshot or delta. Ten times the endpoints of the largest mesh we plan for.
const MAX_RESOURCES: usize = 1_000_000;
/// Refusals told to the server; more say nothing new.
const MAX_REFUSALS: usize = 64;

/// The state of one sidecar's view, over all its streams.
#[derive(Debug)]
pub(super) struct Receiver {
    held: Arc<Snapshot>,
    /// Where to resume; may be ahead of `held` when nothing of interest has changed.
    position: Position,
    coming: Coming,
}

/// What has arrived and is not applied yet.
#[derive(Debug, Default)]
struct Coming {
    is_snapshot: bool,
    changes: Vec<Change>,
    refused: Vec<Refused>,
}

/// A new state and what to acknowledge.
#[derive(Debug)]
pub(super) struct Applied {
    pub snapshot: Arc<Snapshot>,
    pub refused: Vec<Refused>,
}

/// What a server must not send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offence {
    Protocol(&'static str),
    /// An older state of the same epoch.
    Behind {
        offered: u64,
        held: u64,
    },
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self { held: Arc::default(), position: Position::default(), coming: Coming::default() }
    }

    /// Where the next stream resumes; `None` before the first snapshot.
    pub(super) fn resume(&self) -> Option<Position> {
        (self.position != Position::default()).then_some(self.position)
    }

    /// Forgets what a broken stream has left unfinished.
    pub(super) fn start_stream(&mut self) {
        self.coming = Coming::default();
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.coming = Coming { is_snapshot: true, ..Coming::default() };
    }

    /// Takes a piece; with a position it was the last one of a delta.
    pub(super) fn batch(
        &mut self,
        message: pb::Batch,
        accept: impl FnMut(&Bundle) -> Result<(), String>,
    ) -> Result<Option<Applied>, Offence> {
        let so_far = self.coming.changes.len() + self.coming.refused.len();
        if so_far + message.resources.len() > MAX_RESOURCES {
            return Err(Offence::Protocol("a snapshot or batch is too large"));
        }
        for resource in message.resources {
            match convert::change(resource) {
                Ok(change) => self.coming.changes.push(change),
                Err(refused) => self.coming.refused.push(refused),
            }
        }
        match message.position {
            None => Ok(None),
            Some(_) if self.coming.is_snapshot => {
                Err(Offence::Protocol("a batch inside a snapshot has a position"))
            }
            Some(position) => self.apply(position.into(), accept).map(Some),
        }
    }

    pub(super) fn end_snapshot(
        &mut self,
        position: Option<pb::Position>,
        accept: impl FnMut(&Bundle) -> Result<(), String>,
    ) -> Result<Applied, Offence> {
        match position {
            _ if !self.coming.is_snapshot => {
                Err(Offence::Protocol("a snapshot ended that did not begin"))
            }
            None => Err(Offence::Protocol("a snapshot ended without a position")),
            Some(position) => self.apply(position.into(), accept),
        }
    }

    /// Nothing of interest has changed up to here.
    pub(super) fn heartbeat(&mut self, position: Option<pb::Position>) {
        let Some(position) = position.map(Position::from) else { return };
        if position.epoch == self.position.epoch && position.revision > self.position.revision {
            self.position = position;
        }
    }

    fn apply(
        &mut self,
        position: Position,
        mut accept: impl FnMut(&Bundle) -> Result<(), String>,
    ) -> Result<Applied, Offence> {
        let coming = std::mem::take(&mut self.coming);
        let same_epoch = position.epoch == self.position.epoch;
        if same_epoch && position.revision < self.position.revision {
            return Err(Offence::Behind { offered: position.revision, held: self.position.revision });
        }
        if !same_epoch && !coming.is_snapshot {
            return Err(Offence::Protocol("a batch of another epoch came without a snapshot"));
        }
        let Coming { is_snapshot, changes, mut refused } = coming;
        let mut next = if is_snapshot { Snapshot::default() } else { self.held.as_ref().clone() };
        // First, so that a health record that was fine still finds its endpoint.
        refused.iter().for_each(|one| self.carry_over(&mut next, one));
        for change in changes {
            if let Change::Bundle(bundle) = &change
                && let Err(reason) = accept(bundle)
            {
                refused.push(Refused::bundle(&reason));
                continue;
            }
            next.apply(change);
        }
        for change in refused.iter().filter_map(|one| one.instead.clone()) {
            next.apply(*change);
        }
        if next.bundle.is_none() {
            next.bundle.clone_from(&self.held.bundle);
        }
        next.position = position;
        self.position = position;
        self.held = Arc::new(next);
        refused.truncate(MAX_REFUSALS);
        Ok(Applied { snapshot: Arc::clone(&self.held), refused })
    }

    /// Puts the older state of a refused endpoint into a new snapshot.
    fn carry_over(&self, next: &mut Snapshot, refused: &Refused) {
        let Some((service, id)) = &refused.endpoint else { return };
        let known = |snapshot: &Snapshot| {
            let view = snapshot.services.get(service)?;
            view.endpoints.get(id).cloned()
        };
        if known(next).is_some() {
            return;
        }
        if let Some(held) = known(&self.held) {
            let (service, id) = (service.clone(), id.clone());
            next.apply(Change::Endpoint(held.endpoint.as_ref().clone()));
            next.apply(Change::Health { service, id, status: held.status });
        }
    }
}

#[cfg(test)]
#[path = "tests/receiver.rs"]
mod tests;
