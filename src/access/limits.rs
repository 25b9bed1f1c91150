//! Every bound of access control in one place, each with its reason.

use std::time::Duration;

/// Most tokens that may exist; each is read when tokens are listed.
pub const MAX_TOKENS: usize = 10_000;
/// Most expired tokens removed along with one creation, to bound the transaction.
pub(super) const MAX_SWEEP: usize = 100;
/// Longest description of a token.
pub const MAX_DESCRIPTION_BYTES: usize = 256;
/// Shortest life of a token: a shorter one would be over before it is used.
pub const MIN_TTL: Duration = Duration::from_secs(60);
/// Longest life of a token that ends at all.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Longest credential that is looked at; Consul's have 36 bytes, ours 84.
pub(super) const MAX_CREDENTIAL_BYTES: usize = 512;
/// Longest path that an audit line shows.
pub(super) const MAX_TARGET_CHARS: usize = 1024;
/// Longest audit line: a path of which each character is escaped, and the rest, fit twice.
pub(super) const MAX_LINE_BYTES: usize = 16 * 1024;
/// Audit lines that wait to be written; beyond it, whoever writes one waits.
pub(super) const MAX_QUEUED_LINES: usize = 1024;
/// Audit lines that share one wait for the disk.
pub(super) const MAX_SYNCED_TOGETHER: usize = 256;
/// Refusals that are written in one second; the others are counted.
pub(super) const MAX_REFUSALS_PER_SECOND: u32 = 50;
/// Shortest operator token: 32 hexadecimal digits are 128 random bits.
pub const MIN_OPERATOR_BYTES: usize = 32;
