//! Leases: who has to come back until when (pure), and the task that ends those who did not.
//!
//! The period of a lease is in the store, its deadline only here: after a restart every lease gets a
//! full period. So it does after the process stood still, because nobody could be heard meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::shared::Shared;
use super::{CatalogError, LeaseId};
use crate::store::StoreError;

/// Shortest and longest period of a lease.
pub const LEASE_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);
/// Most leases at a time; one for each sidecar and some for tools.
pub(super) const MAX_LEASES: usize = 100_000;

/// How often the task looks at the clock while there are leases.
const TICK: Duration = Duration::from_secs(1);
/// A task that wakes so much later than planned has missed what its clients said.
const STANDSTILL: Duration = Duration::from_secs(2);
/// Leases that are ended at the same time; the store commits them as a group.
const AT_ONCE: usize = 64;
/// Pause before an end that failed is tried again when the lease itself is gone.
const RETRY: Duration = Duration::from_secs(5);

/// The deadlines of all leases. Time is passed in.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    leases: HashMap<LeaseId, (Duration, Instant)>,
    queue: BTreeSet<(Instant, LeaseId)>,
}

impl Deadlines {
    /// Starts a lease; one that runs already keeps its deadline.
    pub(super) fn grant(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        if !self.leases.contains_key(&lease) {
            self.set(lease, ttl, now + ttl);
        }
    }

    /// Starts the period anew and returns it; `None` when there is no such lease.
    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) -> Option<Duration> {
        let (ttl, _) = *self.leases.get(&lease)?;
        self.set(lease, ttl, now + ttl);
        Some(ttl)
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        if let Some((_, deadline)) = self.leases.remove(&lease) {
            self.queue.remove(&(deadline, lease));
        }
    }

    /// Starts all periods anew.
    fn renew_all(&mut self, now: Instant) {
        let leases: Vec<_> = self.leases.keys().copied().collect();
        for lease in leases {
            self.renew(lease, now);
        }
    }

    /// Takes out what is over.
    fn expire(&mut self, now: Instant) -> Vec<LeaseId> {
        let mut over = Vec::new();
        while let Some((_, lease)) = self.queue.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(lease);
            over.push(lease);
        }
        over
    }

    fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    fn set(&mut self, lease: LeaseId, ttl: Duration, deadline: Instant) {
        self.remove(lease);
        self.leases.insert(lease, (ttl, deadline));
        self.queue.insert((deadline, lease));
    }
}

/// Ends leases whose time is over, until the store stops. `orphans` are leases that are gone while
/// instances of theirs are not, because the process ended in between.
pub(super) async fn run(shared: Arc<Shared>, orphans: Vec<LeaseId>) {
    let mut over = orphans;
    loop {
        if end_all(&shared, over).await.is_err() {
            return;
        }
        let planned = shared.deadlines().next().map(|next| next.min(Instant::now() + TICK));
        match planned {
            Some(planned) => tokio::select! {
                () = tokio::time::sleep_until(planned) => {}
                () = shared.lease_granted.notified() => {}
            },
            None => shared.lease_granted.notified().await,
        }
        let now = Instant::now();
        let mut deadlines = shared.deadlines();
        if planned.is_some_and(|planned| now > planned + STANDSTILL) {
            tracing::warn!("the process stood still; all leases get a full period");
            deadlines.renew_all(now);
        }
        over = deadlines.expire(now);
    }
}

/// Ends leases, several at a time. Fails when the store has stopped.
async fn end_all(shared: &Arc<Shared>, leases: Vec<LeaseId>) -> Result<(), StoreError> {
    let ends = leases.into_iter().map(|lease| async move { (lease, shared.end_lease(lease).await) });
    let mut ends = futures_util::stream::iter(ends).buffer_unordered(AT_ONCE);
    while let Some((lease, result)) = ends.next().await {
        match result {
            Ok(()) => tracing::info!(lease, "a lease has ended"),
            Err(CatalogError::Store(StoreError::Stopped(reason))) => {
                return Err(StoreError::Stopped(reason));
            }
            Err(error) => {
                tracing::warn!(lease, %error, "a lease could not be ended and is tried again");
                let ttl = shared.read().state.leases.get(&lease).copied();
                shared.deadlines().grant(lease, ttl.unwrap_or(RETRY), Instant::now());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_over_when_nobody_came_back() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.grant(1, 2 * SECOND, start);
        deadlines.grant(2, 3 * SECOND, start);
        assert_eq!(deadlines.next(), Some(start + 2 * SECOND));
        assert!(deadlines.expire(start + SECOND).is_empty());
        assert_eq!(deadlines.renew(1, start + SECOND), Some(2 * SECOND));
        assert_eq!(deadlines.expire(start + 3 * SECOND), [1, 2]);
        assert_eq!(deadlines.renew(1, start + 3 * SECOND), None);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_second_grant_does_not_prolong_and_a_removed_lease_never_ends() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        deadlines.grant(1, SECOND, start);
        deadlines.grant(1, 9 * SECOND, start);
        deadlines.grant(2, SECOND, start);
        deadlines.remove(2);
        assert_eq!(deadlines.expire(start + SECOND), [1]);
        assert!(deadlines.queue.is_empty() && deadlines.leases.is_empty());
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
}
