//! Every bound of the key-value store, with its reason.

use std::time::Duration;

/// Longest key; with its prefix it fits a key of the store.
pub const MAX_KEY_BYTES: usize = 1000;
/// Largest value, Consul's `kv_max_value_size`.
pub const MAX_VALUE_BYTES: usize = 512 * 1024;
/// Most operations of one transaction, Consul's.
pub const MAX_OPERATIONS: usize = 64;
/// Most bytes of values in one transaction, Consul's `txn_max_req_len`.
pub const MAX_TXN_BYTES: usize = 512 * 1024;
/// Most keys; all of them are in memory.
pub(super) const MAX_KEYS: usize = 500_000;
/// Most bytes of keys and values together, for the same reason.
pub(super) const MAX_BYTES: usize = 512 << 20;
/// Most sessions.
pub(super) const MAX_SESSIONS: usize = 100_000;
/// Most locks of one session: deleting them all still fits one transaction of the store.
pub(super) const MAX_LOCKS: usize = 10_000;
/// Most checks that one session depends on.
pub(super) const MAX_CHECKS: usize = 64;
/// Most bytes of a session's name.
pub(super) const MAX_NAME_BYTES: usize = 256;
/// Bytes of released values in one transaction; the store takes twice that.
pub(super) const MAX_RELEASED_BYTES: usize = 8 << 20;
/// Deleted keys whose index is remembered. Older deletions raise the index of all absent keys.
pub(super) const MAX_GRAVES: usize = 50_000;

/// Shortest and longest period of a session, Consul's.
pub const SESSION_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(86_400);
/// Lock-delay of a session that does not say, Consul's.
pub const DEFAULT_LOCK_DELAY: Duration = Duration::from_secs(15);
/// Longest lock-delay; larger wishes are cut to it, as Consul does.
pub(super) const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
