//! Every bound of the certificate authority, with its reason.

use std::time::Duration;

/// Most roots at once: an old one, an active one and a prepared one, and some that wait for their last
/// leaf after rotations in a row.
pub const MAX_ROOTS: usize = 8;
/// How often a change of the roots may lose against another server's before it is an error.
pub(super) const CHANGE_ATTEMPTS: usize = 16;
/// How long a rotation waits for sidecars that are away or do not answer, and the longest such wait.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(120);
pub const MAX_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// After a start nobody is connected yet, which must not pass for everybody agreeing.
pub const SETTLE: Duration = Duration::from_secs(15);
/// How often a rotation under way looks whether it may go on.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Least life of a cross-signed certificate.
pub(super) const CROSS_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Largest file with keys for the store, and most keys in one.
pub(super) const MAX_KEY_FILE_BYTES: u64 = 4096;
pub(super) const MAX_KEYS: usize = 8;
/// Largest PEM text that is imported: a chain of four and a key have about 8 KiB.
pub const MAX_PEM_BYTES: usize = 64 * 1024;

/// Clocks of servers and sidecars differ; a root stays so much longer than its last leaf can live.
pub(super) fn slack(leaf_ttl: Duration) -> Duration {
    (leaf_ttl / 20).clamp(Duration::from_secs(1), Duration::from_secs(600))
}
