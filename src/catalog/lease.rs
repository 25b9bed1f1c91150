//! Leases: the task that ends those whose holder did not come back.
//!
//! The period of a lease is in the store, its deadline only in a `net::deadlines::Clock`: after a restart
//! every lease gets a full period.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::shared::Shared;
use super::{CatalogError, LeaseId};
use crate::store::StoreError;

/// Shortest and longest period of a lease.
pub const LEASE_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);
/// Most leases at a time; one for each sidecar and some for tools.
pub(super) const MAX_LEASES: usize = 100_000;

/// Leases that are ended at the same time; the store commits them as a group.
const AT_ONCE: usize = 64;
/// Pause before an end that failed is tried again when the lease itself is gone.
const RETRY: Duration = Duration::from_secs(5);

/// Ends leases whose time is over, until the store stops. `orphans` are leases that are gone while
/// instances of theirs are not, because the process ended in between.
pub(super) async fn run(shared: Arc<Shared>, orphans: Vec<LeaseId>) {
    let mut over = orphans;
    while end_all(&shared, over).await.is_ok() {
        over = shared.clock.over().await;
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
                shared.clock.grant(lease, ttl.unwrap_or(RETRY));
            }
        }
    }
    Ok(())
}
