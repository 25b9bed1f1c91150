//! Waiting for a topic: one notifier for each topic somebody waits on, gone with the last of them.
//!
//! There are never more notifiers than waiters, and the callers (`api`, `control`) bound those.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::index::Topic;

#[derive(Debug, Default)]
pub(super) struct Waiters {
    topics: Mutex<HashMap<Topic, Arc<Notify>>>,
}

/// A place among those who wait for a topic.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    topic: &'a Topic,
    notify: Arc<Notify>,
}

impl Waiters {
    pub(super) fn join<'a>(&'a self, topic: &'a Topic) -> Waiter<'a> {
        let notify = Arc::clone(self.lock().entry(topic.clone()).or_default());
        Waiter { waiters: self, topic, notify }
    }

    /// Wakes those who wait for one of these topics, and those for whom `also` holds.
    pub(super) fn wake(&self, topics: &BTreeSet<Topic>, also: Option<impl Fn(&Topic) -> bool>) {
        let waiting = self.lock();
        for notify in topics.iter().filter_map(|topic| waiting.get(topic)) {
            notify.notify_waiters();
        }
        if let Some(also) = also {
            for (_, notify) in waiting.iter().filter(|(topic, _)| also(topic)) {
                notify.notify_waiters();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Arc<Notify>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Waiter<'_> {
    type Target = Notify;
    fn deref(&self) -> &Notify {
        &self.notify
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut topics = self.waiters.lock();
        // Joining takes the lock, so nobody can come in between: the map and this waiter are all.
        if Arc::strong_count(&self.notify) == 2 {
            topics.remove(self.topic);
        }
    }
}
