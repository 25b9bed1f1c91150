//! Reads, writes and waiting: the handle that others hold.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::draft::{Draft, settle};
use super::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use super::operation::carry_out;
use super::session::NodeChecks;
use super::state::{Effects, State};
use super::{Content, Entry, KvError, Operation, Refusal, Session, SessionId, Wish};
use super::{ending, record, tasks};
use crate::catalog::{Catalog, new_uuid};
use crate::model::NodeName;
use crate::net::deadlines::Clock;
use crate::net::waiters::Waiters;
use crate::store::replica::{Plan, Replica};
use crate::store::{Revision, Store};

/// What has an index of its own and can be waited for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    Key(String),
    /// All keys that begin so.
    Prefix(String),
    Sessions,
}

/// What became of a transaction: an entry or more for each operation that shows some, or every
/// operation that did not hold, by its place.
pub type Outcome = Result<Vec<Entry>, Vec<(usize, Refusal)>>;

/// As [`Outcome`], before the commit.
type Planned = Result<Vec<Arc<Entry>>, Vec<(usize, Refusal)>>;

/// The key-value store. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Kv {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

/// What handles and tasks share.
pub(super) struct Shared {
    pub(super) replica: Replica<State>,
    pub(super) catalog: Catalog,
    /// Of sessions that have a period.
    pub(super) clock: Clock<SessionId>,
    waiters: Waiters<Subject>,
}

impl Kv {
    /// Loads the key-value store and gives every session a full period.
    ///
    /// # Errors
    /// When the store cannot be read or holds a damaged record.
    pub async fn open(store: Arc<dyn Store>, catalog: Catalog) -> Result<Self, KvError> {
        let load = |image: &_| State::load(image, Instant::now());
        let (replica, feed) = Replica::open(store, record::PREFIX, load).await?;
        let (clock, waiters) = (Clock::new("sessions"), Waiters::default());
        let shared = Arc::new(Shared { replica, catalog, clock, waiters });
        let orphans = shared.replica.read(|state| {
            for session in state.sessions.values() {
                shared.timed(&session.id, session.period());
            }
            state.orphans()
        });
        let mut running = JoinSet::new();
        let following = Arc::clone(&shared);
        running.spawn(async move {
            following.replica.follow(feed, |effects| following.tell(&effects)).await;
        });
        running.spawn(tasks::expire(Arc::clone(&shared), orphans));
        running.spawn(tasks::review(Arc::clone(&shared)));
        Ok(Self { shared, _tasks: Arc::new(running) })
    }

    /// How many keys and sessions there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.shared.replica.read(|state| (state.entries.len(), state.sessions.len()))
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.shared.replica.read(|state| state.entries.get(key).cloned())
    }

    /// Everything under a prefix, in the order of the keys.
    #[must_use]
    pub fn list(&self, prefix: &str) -> Vec<Arc<Entry>> {
        self.shared.replica.read(|state| state.under(prefix).cloned().collect())
    }

    /// Keys under a prefix; those that go on behind a separator are cut after it and come once. An empty
    /// separator cuts nothing.
    #[must_use]
    pub fn keys(&self, prefix: &str, separator: &str) -> Vec<String> {
        self.shared.replica.read(|state| state.keys(prefix, separator))
    }

    /// All sessions, or those on one node, by id.
    #[must_use]
    pub fn sessions(&self, node: Option<&NodeName>) -> Vec<Arc<Session>> {
        self.shared.replica.read(|state| state.sessions_on(node))
    }

    #[must_use]
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.shared.replica.read(|state| state.sessions.get(id).cloned())
    }

    /// The index of a subject (never 0).
    #[must_use]
    pub fn index(&self, subject: &Subject) -> Revision {
        self.shared.index(subject)
    }

    /// Waits until the index of a subject passes `index`, however long that takes. Cancel-safe.
    pub async fn changed(&self, subject: &Subject, index: Revision) {
        self.shared.waiters.changed(subject, || self.index(subject) > index).await;
    }

    /// Carries out all operations, or none, in one commit.
    ///
    /// # Errors
    /// `KeyTooLong`, `ValueTooLarge` and `Full` by the limits; those of the store.
    pub async fn apply(&self, operations: Vec<(String, Operation)>) -> Result<Outcome, KvError> {
        operations.iter().try_for_each(check_size)?;
        let write = self.shared.replica.write(|state| plan(state, &operations));
        let (revision, outcome) = write.await?;
        Ok(outcome.map(|shown| shown.iter().map(|entry| settle(entry, revision)).collect()))
    }

    /// Starts a session; its id cannot be guessed.
    ///
    /// # Errors
    /// `Session` when it cannot be as wished; those of the store.
    pub async fn create_session(&self, wish: Wish) -> Result<SessionId, KvError> {
        let checks = self.shared.checks_on(&wish.node);
        let session = Session::new(new_uuid()?, wish, checks.as_ref())?;
        self.shared.replica.write(|state| ending::begin(state, &session)).await?;
        Ok(session.id)
    }

    /// Ends a session and its locks. One that does not exist is none either.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end_session(&self, id: &str) -> Result<(), KvError> {
        self.shared.end_session(id).await
    }

    /// Starts the period of a session anew and returns it; `None` when there is no such session.
    #[must_use]
    pub fn renew_session(&self, id: &str) -> Option<Arc<Session>> {
        let session = self.session(id)?;
        if session.period().is_some() {
            // Not on the clock any more: it is being ended.
            self.shared.clock.renew(&session.id)?;
        }
        Some(session)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.shared.waiters.len()
    }
}

impl Shared {
    pub(super) fn index(&self, subject: &Subject) -> Revision {
        self.replica.read(|state| match subject {
            Subject::Key(key) => state.key_index(key),
            Subject::Prefix(prefix) => state.prefix_index(prefix),
            Subject::Sessions => state.sessions_index(),
        })
    }

    /// Ends a session. Once it is gone nothing new can be locked by it, but something may have been just
    /// before: so until nothing is left.
    pub(super) async fn end_session(&self, id: &str) -> Result<(), KvError> {
        let more = || self.replica.write(|state| Ok::<_, KvError>(ending::end(state, id)));
        while more().await?.1 {}
        Ok(())
    }

    /// Waits for sessions to come or go.
    pub(super) async fn sessions_changed(&self, index: Revision, timeout: Duration) {
        let passed = || self.index(&Subject::Sessions) > index;
        self.waiters.wait(&Subject::Sessions, timeout, passed).await;
    }

    /// The checks of a node; `None` when there is no such node.
    pub(super) fn checks_on(&self, node: &str) -> Option<NodeChecks> {
        let checks = self.catalog.checks_on(&NodeName::new(node).ok()?);
        let checks: NodeChecks =
            checks.into_iter().map(|record| (record.check.id.clone(), record.check.status)).collect();
        // A node that exists has at least the check that it is alive.
        (!checks.is_empty()).then_some(checks)
    }

    fn timed(&self, id: &SessionId, period: Option<Duration>) {
        if let Some(period) = period {
            self.clock.grant(id.clone(), period);
        }
    }

    fn tell(&self, Effects { keys, sessions }: &Effects) {
        for (id, came) in sessions {
            match came {
                Some(period) => self.timed(id, *period),
                None => self.clock.remove(id),
            }
        }
        if !sessions.is_empty() {
            self.waiters.wake([&Subject::Sessions]);
        }
        if keys.is_empty() {
            return;
        }
        let changed: Vec<Subject> = keys.iter().cloned().map(Subject::Key).collect();
        self.waiters.wake(&changed);
        self.waiters.wake_where(|subject| match subject {
            Subject::Prefix(prefix) => keys.iter().any(|key| key.starts_with(prefix)),
            Subject::Key(_) | Subject::Sessions => false,
        });
    }
}

fn plan(state: &State, operations: &[(String, Operation)]) -> Result<Plan<Planned>, KvError> {
    let mut draft = Draft::new(state, Instant::now());
    let (mut shown, mut refused) = (Vec::new(), Vec::new());
    for (place, (key, operation)) in operations.iter().enumerate() {
        match carry_out(&mut draft, key, operation) {
            Ok(entries) => shown.extend(entries),
            Err(refusal) => refused.push((place, refusal)),
        }
    }
    if refused.is_empty() {
        return Ok(Plan { txn: draft.finish()?, value: Ok(shown) });
    }
    Ok(Plan { txn: crate::store::Txn::default(), value: Err(refused) })
}

fn check_size((key, operation): &(String, Operation)) -> Result<(), KvError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(KvError::KeyTooLong(key.len()));
    }
    match operation {
        Operation::Set(Content { value, .. })
        | Operation::Cas(Content { value, .. }, _)
        | Operation::Lock(Content { value, .. }, _)
        | Operation::Unlock(Content { value, .. }, _)
            if value.len() > MAX_VALUE_BYTES =>
        {
            Err(KvError::ValueTooLarge(value.len()))
        }
        _ => Ok(()),
    }
}
