//! Waiting for a topic: one notifier for each topic somebody waits on, gone with the last of them.
//!
//! `catalog` and `kv` hold their blocking queries by it. There are never more notifiers than waiters,
//! and the callers (`api`, `control`) bound those.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// Everybody who waits, by topic.
#[derive(Debug)]
pub struct Waiters<T> {
    topics: Mutex<HashMap<T, Arc<Notify>>>,
}

/// A place among those who wait for a topic.
struct Waiter<'a, T: Eq + Hash> {
    waiters: &'a Waiters<T>,
    topic: &'a T,
    notify: Arc<Notify>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self { topics: Mutex::default() }
    }
}

impl<T: Clone + Eq + Hash> Waiters<T> {
    /// Waits until `passed` holds or `timeout` is over; it is asked at once and after every wake-up of
    /// the topic. Cancel-safe.
    pub async fn wait(&self, topic: &T, timeout: Duration, passed: impl Fn() -> bool) {
        // Either way the caller looks for himself.
        let _passed = tokio::time::timeout(timeout, self.changed(topic, passed)).await;
    }

    /// As [`Self::wait`], for as long as it takes, and without a timer of its own.
    pub async fn changed(&self, topic: &T, passed: impl Fn() -> bool) {
        let waiter = self.join(topic);
        loop {
            // Listening begins before the look, so nothing is missed in between.
            let woken = waiter.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if passed() {
                return;
            }
            woken.await;
        }
    }

    /// Wakes those who wait for one of these topics.
    pub fn wake<'a>(&self, topics: impl IntoIterator<Item = &'a T>)
    where
        T: 'a,
    {
        let waiting = self.lock();
        for notify in topics.into_iter().filter_map(|topic| waiting.get(topic)) {
            notify.notify_waiters();
        }
    }

    /// Wakes those who wait for a topic that is meant. Looks at every topic waited for.
    pub fn wake_where(&self, meant: impl Fn(&T) -> bool) {
        let waiting = self.lock();
        for (_, notify) in waiting.iter().filter(|(topic, _)| meant(topic)) {
            notify.notify_waiters();
        }
    }

    /// Topics waited for now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn join<'a>(&'a self, topic: &'a T) -> Waiter<'a, T> {
        let notify = Arc::clone(self.lock().entry(topic.clone()).or_default());
        Waiter { waiters: self, topic, notify }
    }
}

impl<T> Waiters<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<T, Arc<Notify>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Eq + Hash> Deref for Waiter<'_, T> {
    type Target = Notify;
    fn deref(&self) -> &Notify {
        &self.notify
    }
}

impl<T: Eq + Hash> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let mut topics = self.waiters.lock();
        // Joining takes the lock, so nobody can come in between: the map and this waiter are all.
        if Arc::strong_count(&self.notify) == 2 {
            topics.remove(self.topic);
        }
    }
}
