//! Every bound of the etcd listener, with its reason.

use std::time::Duration;

use crate::net::http2::Allowance;

/// Longest key, written for the store: a byte below 0x80 counts once, any other twice.
pub const MAX_KEY_BYTES: usize = 1000;
/// Largest request, etcd's `--max-request-bytes`.
pub const MAX_REQUEST_BYTES: usize = 1536 * 1024;
/// Largest gRPC message that is read: a request and room for a clear refusal of a larger one.
pub(super) const MAX_MESSAGE_BYTES: usize = 2 * MAX_REQUEST_BYTES;
/// Largest answer to a read; ask for a part with a limit.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Most operations in one transaction, etcd's `--max-txn-ops`.
pub const MAX_OPERATIONS: usize = 128;
/// Transactions in transactions: each level costs stack.
pub(super) const MAX_NESTING: usize = 8;
/// Most keys; all of them are in memory.
pub(super) const MAX_KEYS: usize = 500_000;
/// Most bytes of keys and values together, for the same reason.
pub(super) const MAX_BYTES: usize = 512 << 20;
/// Bytes of keys deleted by one request; the store takes twice that in a transaction.
pub(super) const MAX_DELETED_BYTES: usize = 8 << 20;
/// Most leases.
pub(super) const MAX_LEASES: usize = 100_000;
/// Shortest period of a lease in seconds, etcd's with default settings; shorter wishes are raised to it.
pub const MIN_LEASE_TTL_S: i64 = 2;
/// Longest period of a lease in seconds, etcd's.
pub const MAX_LEASE_TTL_S: i64 = 9_000_000_000;

/// Events of the past that can be watched from.
pub(super) const MAX_EVENTS: usize = 100_000;
/// Bytes of keys and values in them.
pub(super) const MAX_EVENT_BYTES: usize = 64 << 20;
/// Writes that may wait for the store; further callers wait for a place.
pub(super) const QUEUE: usize = 1024;
/// Writes that become one commit of the store.
pub(super) const MAX_GROUP: usize = 256;
/// Bytes of requests after which a group takes no more.
pub(super) const MAX_GROUP_BYTES: usize = 4 << 20;

/// Watches on one stream.
pub(super) const MAX_WATCHES: usize = 10_000;
/// Events looked at for one answer of a watch, so that a watcher that is far behind shares the stream.
pub(super) const EVENTS_PER_ANSWER: usize = 1000;
/// And bytes of events after which an answer takes no more revisions.
pub(super) const BYTES_PER_ANSWER: usize = 1 << 20;
/// Answers between a watch and HTTP/2: one is being written while the next is made.
pub(super) const OUTBOUND: usize = 2;
/// How often a watch that asked for it hears that nothing has happened, etcd's.
pub(super) const PROGRESS: Duration = Duration::from_secs(600);

/// A client that has not finished TLS by then is holding a slot for nothing.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once.
pub(super) const MAX_CONNECTIONS: usize = 4096;
/// What one connection may have of HTTP/2.
pub(super) const HTTP2: Allowance = Allowance {
    // calls, keep-alives and watches.
    streams: 1024,
    // Header list of one request.
    header_list_bytes: 16 * 1024,
    send_buffer_bytes: 256 * 1024,
    stream_window_bytes: 256 * 1024,
    connection_window_bytes: 1024 * 1024,
    ping_interval: Duration::from_secs(10),
};
/// How long calls may take to end after the shutdown began.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
