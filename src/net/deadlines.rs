//! Deadlines that are put off by signs of life: who has to come back until when (pure), and a clock
//! that says who did not.
//!
//! `catalog` keeps its leases by it, `kv` its sessions and `etcd` its leases. Deadlines live in memory
//! only: after a restart whoever loads the periods grants each a full one. So it is after the process
//! stood still, because nobody could be heard meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How often the clock is looked at while there are deadlines.
const TICK: Duration = Duration::from_secs(1);
/// A look that comes so much later than planned has missed what others said.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Periods and deadlines by key. Time is passed in.
#[derive(Debug)]
pub struct Deadlines<K> {
    periods: HashMap<K, (Duration, Instant)>,
    queue: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { periods: HashMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Clone + Ord + Hash> Deadlines<K> {
    /// Starts a period; one that runs already keeps its deadline.
    pub fn grant(&mut self, key: K, period: Duration, now: Instant) {
        if !self.periods.contains_key(&key) {
            self.set(key, period, now + period);
        }
    }

    /// Starts the period anew and returns it; `None` when there is none.
    pub fn renew(&mut self, key: &K, now: Instant) -> Option<Duration> {
        let (period, _) = *self.periods.get(key)?;
        self.set(key.clone(), period, now + period);
        Some(period)
    }

    /// What is left of the period; `None` when there is none.
    #[must_use]
    pub fn left(&self, key: &K, now: Instant) -> Option<Duration> {
        self.periods.get(key).map(|(_, deadline)| deadline.saturating_duration_since(now))
    }

    pub fn remove(&mut self, key: &K) {
        if let Some((_, deadline)) = self.periods.remove(key) {
            self.queue.remove(&(deadline, key.clone()));
        }
    }

    /// Starts all periods anew.
    pub fn renew_all(&mut self, now: Instant) {
        let keys: Vec<_> = self.periods.keys().cloned().collect();
        for key in keys {
            self.renew(&key, now);
        }
    }

    /// Takes out what is over.
    pub fn expire(&mut self, now: Instant) -> Vec<K> {
        let mut over = Vec::new();
        while let Some((_, key)) = self.queue.first().filter(|(at, _)| *at <= now).cloned() {
            self.remove(&key);
            over.push(key);
        }
        over
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    fn set(&mut self, key: K, period: Duration, deadline: Instant) {
        self.remove(&key);
        self.periods.insert(key.clone(), (period, deadline));
        self.queue.insert((deadline, key));
    }
}

/// Deadlines that many tasks share, and one waits for.
#[derive(Debug)]
pub struct Clock<K> {
    /// For the log: whose deadlines these are.
    what: &'static str,
    deadlines: Mutex<Deadlines<K>>,
    granted: Notify,
}

impl<K: Clone + Ord + Hash> Clock<K> {
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, deadlines: Mutex::default(), granted: Notify::new() }
    }

    /// See [`Deadlines::grant`].
    pub fn grant(&self, key: K, period: Duration) {
        self.lock().grant(key, period, Instant::now());
        self.granted.notify_one();
    }

    /// See [`Deadlines::renew`].
    pub fn renew(&self, key: &K) -> Option<Duration> {
        self.lock().renew(key, Instant::now())
    }

    /// See [`Deadlines::left`].
    #[must_use]
    pub fn left(&self, key: &K) -> Option<Duration> {
        self.lock().left(key, Instant::now())
    }

    /// See [`Deadlines::remove`].
    pub fn remove(&self, key: &K) {
        self.lock().remove(key);
    }

    /// Waits until somebody's time is over and takes those out. For one task at a time; cancel-safe.
    pub async fn over(&self) -> Vec<K> {
        loop {
            let planned = self.lock().next().map(|next| next.min(Instant::now() + TICK));
            match planned {
                Some(planned) => tokio::select! {
                    () = tokio::time::sleep_until(planned) => {}
                    () = self.granted.notified() => {}
                },
                None => self.granted.notified().await,
            }
            let now = Instant::now();
            let mut deadlines = self.lock();
            if planned.is_some_and(|planned| now > planned + STANDSTILL) {
                tracing::warn!(what = self.what, "the process stood still; all get a full period");
                deadlines.renew_all(now);
            }
            let over = deadlines.expire(now);
            if !over.is_empty() {
                return over;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Deadlines<K>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_over_when_nobody_came_back() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.grant(1, 2 * SECOND, start);
        deadlines.grant(2, 3 * SECOND, start);
        assert_eq!(deadlines.next(), Some(start + 2 * SECOND));
        assert!(deadlines.expire(start + SECOND).is_empty());
        assert_eq!(deadlines.renew(&1, start + SECOND), Some(2 * SECOND));
        assert_eq!(deadlines.left(&1, start + 2 * SECOND), Some(SECOND));
        assert_eq!(deadlines.expire(start + 3 * SECOND), [1, 2]);
        assert_eq!(deadlines.renew(&1, start + 3 * SECOND), None);
        assert_eq!((deadlines.next(), deadlines.left(&1, start)), (None, None));
    }

    #[test]
    fn a_second_grant_does_not_prolong_and_what_is_removed_never_ends() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.grant(1, SECOND, start);
        deadlines.grant(1, 9 * SECOND, start);
        deadlines.grant(2, SECOND, start);
        deadlines.remove(&2);
        assert_eq!(deadlines.expire(start + SECOND), [1]);
        assert!(deadlines.queue.is_empty() && deadlines.periods.is_empty());
    }

    #[test]
    fn after_a_standstill_all_periods_start_anew() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.grant(1, SECOND, start);
        deadlines.grant(2, 5 * SECOND, start);
        deadlines.renew_all(start + 30 * SECOND);
        assert!(deadlines.expire(start + 30 * SECOND).is_empty());
        assert_eq!(deadlines.expire(start + 31 * SECOND), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_says_who_is_over_and_hears_of_earlier_deadlines() {
        let clock = Clock::new("tests");
        let started = Instant::now();
        clock.grant("late", 9 * SECOND);
        let earlier = async {
            tokio::time::sleep(SECOND / 2).await;
            clock.grant("soon", SECOND);
        };
        let (over, ()) = tokio::join!(clock.over(), earlier);
        assert_eq!((over, started.elapsed()), (vec!["soon"], 3 * SECOND / 2));
        assert_eq!((clock.over().await, started.elapsed()), (vec!["late"], 9 * SECOND));
    }
}
