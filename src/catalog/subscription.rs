//! What one sidecar hears: the set of resources that changed since it was last asked, never a queue.
//!
//! Used by `control`, one subscription for each stream. Marks are set while the state is locked for
//! writing and taken while it is locked for reading, so a batch at a position holds everything up to it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::resource::{Resource, Scope};
use super::shared::{Live, Shared};
use super::{Interest, Tasks};
use crate::model::Position;
use crate::model::snapshot::Change;

/// Most resources that may be pending for one reader; beyond it, a snapshot is cheaper.
const MAX_PENDING: usize = 65_536;

/// Changes for one sidecar, coalesced: at most one for each resource.
#[derive(Debug, Clone)]
pub struct Batch {
    pub position: Position,
    /// In the order to apply them: services, endpoints, endpoints gone, health, policy.
    pub changes: Vec<Change>,
    /// These are all resources there are: what is not among them is gone.
    pub snapshot: bool,
}

/// A sidecar's view: the set of resources that changed since it was last asked, never a queue.
pub struct Subscription {
    shared: Arc<Shared>,
    interest: Interest,
    inbox: Arc<Inbox>,
    number: u64,
    /// Of the last batch.
    position: Position,
    /// Keeps the catalog alive.
    _tasks: Arc<Tasks>,
}

/// Where changes are marked for one reader.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pending: Mutex<Pending>,
    marked: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    resources: BTreeSet<Arc<Resource>>,
    overflow: bool,
}

/// All readers, by what they follow.
#[derive(Debug, Default)]
pub(super) struct Registry {
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    next: u64,
    by_scope: HashMap<Scope, HashMap<u64, Arc<Inbox>>>,
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>, interest: Interest, tasks: Arc<Tasks>) -> Self {
        let inbox = Arc::new(Inbox::default());
        let number = shared.readers.add(&interest, &inbox);
        let position = shared.read().state.position;
        Self { shared, interest, inbox, number, position, _tasks: tasks }
    }

    /// Everything the interest covers, now; forgets pending changes.
    pub fn snapshot(&mut self) -> Batch {
        let live = self.shared.read();
        self.inbox.take();
        let batch = whole(&live, &self.interest);
        drop(live);
        self.position = batch.position;
        batch
    }

    /// What changed after `position`, or `None` when that is not known any more: send a snapshot.
    pub fn resume(&mut self, position: Position) -> Option<Batch> {
        let live = self.shared.read();
        let now = live.state.position;
        if position.epoch != now.epoch || position.revision > now.revision {
            return None;
        }
        let changed = live.log.since(position.revision, self.interest.scopes())?;
        self.inbox.take();
        // The default is a setting of the server and may differ since it was restarted.
        let default = Change::DefaultAction(live.state.rules.default_action());
        let changes = current(&live, changed.iter().map(|r| &**r), [default]);
        drop(live);
        self.position = now;
        Some(Batch { position: now, changes, snapshot: false })
    }

    /// Waits until something the interest covers has changed. Cancel-safe.
    pub async fn changed(&mut self) {
        while self.inbox.is_empty() {
            self.inbox.marked.notified().await;
        }
    }

    /// The current value of everything that changed since the last call. May be empty. A reader that
    /// left very much pending gets a snapshot.
    pub fn take(&mut self) -> Batch {
        let live = self.shared.read();
        let pending = self.inbox.take();
        let position = live.state.position;
        let batch = if pending.overflow {
            whole(&live, &self.interest)
        } else {
            let changes = current(&live, pending.resources.iter().map(|r| &**r), []);
            Batch { position, changes, snapshot: false }
        };
        drop(live);
        self.position = position;
        batch
    }

    /// The position that a reader with no pending changes is current at; with pending changes, that
    /// of the last batch.
    pub fn position(&self) -> Position {
        let live = self.shared.read();
        if self.inbox.is_empty() { live.state.position } else { self.position }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.readers.remove(&self.interest, self.number);
    }
}

impl Registry {
    fn add(&self, interest: &Interest, inbox: &Arc<Inbox>) -> u64 {
        let mut readers = self.lock();
        readers.next += 1;
        let number = readers.next;
        for scope in interest.scopes() {
            readers.by_scope.entry(scope).or_default().insert(number, Arc::clone(inbox));
        }
        number
    }

    fn remove(&self, interest: &Interest, number: u64) {
        let mut readers = self.lock();
        for scope in interest.scopes() {
            if let Some(inboxes) = readers.by_scope.get_mut(&scope) {
                inboxes.remove(&number);
                if inboxes.is_empty() {
                    readers.by_scope.remove(&scope);
                }
            }
        }
    }

    /// Marks resources for those who follow them; returns whom to wake once the state is unlocked.
    pub(super) fn mark(&self, resources: &[Arc<Resource>]) -> Vec<Arc<Inbox>> {
        let readers = self.lock();
        let mut marked = Vec::new();
        for resource in resources {
            for inbox in readers.by_scope.get(&resource.scope()).into_iter().flat_map(HashMap::values) {
                inbox.mark(resource);
                marked.push(Arc::clone(inbox));
            }
        }
        marked
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().by_scope.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    pub(super) fn wake(&self) {
        self.marked.notify_one();
    }

    fn mark(&self, resource: &Arc<Resource>) {
        let mut pending = self.lock();
        if pending.overflow {
            return;
        }
        pending.resources.insert(Arc::clone(resource));
        if pending.resources.len() > MAX_PENDING {
            *pending = Pending { resources: BTreeSet::new(), overflow: true };
        }
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut *self.lock())
    }

    fn is_empty(&self) -> bool {
        let pending = self.lock();
        pending.resources.is_empty() && !pending.overflow
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch of everything an interest covers.
fn whole(live: &Live, interest: &Interest) -> Batch {
    let covered = live.state.covered(interest);
    let default = Change::DefaultAction(live.state.rules.default_action());
    let changes = current(live, covered.iter(), [default]);
    Batch { position: live.state.position, changes, snapshot: true }
}

/// The values of resources now, and other changes, in the order to apply them.
fn current<'a>(
    live: &Live,
    resources: impl Iterator<Item = &'a Resource>,
    others: impl IntoIterator<Item = Change>,
) -> Vec<Change> {
    let mut changes: Vec<_> = resources.filter_map(|r| live.state.change(r)).chain(others).collect();
    changes.sort_by_key(rank);
    changes
}

/// A service before its endpoints, new endpoints before old ones go, an endpoint before its health.
const fn rank(change: &Change) -> u8 {
    match change {
        Change::Service { .. } => 0,
        Change::Endpoint(_) => 1,
        Change::EndpointGone { .. } => 2,
        Change::Health { .. } => 3,
        Change::DefaultAction(_) => 4,
        Change::Intention { .. } => 5,
        Change::IntentionGone { .. } => 6,
        Change::Ban(_) | Change::BanGone(_) => 7,
        Change::Bundle(_) => 8,
    }
}
