//! Every bound of the HTTP API in one place, each with its reason.

use std::time::Duration;

/// Connections served at once. Beyond it the kernel's backlog holds callers back. Room for 5,000
/// waiting queries and the CLI.
pub(super) const MAX_CONNECTIONS: usize = 8192;
/// Connections from one address that is not loopback; Consul's `http_max_conns_per_client`.
pub(super) const MAX_CONNECTIONS_PER_PEER: usize = 200;
/// A request's head must arrive within this time; also how long a kept-alive connection may idle.
pub(super) const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// A TLS handshake must be over within this time.
pub(super) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A request's body must arrive within this time.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A peer that takes no byte of its answer for so long is dropped.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(30);
/// Largest request body, counted while it is read: a registration with every limit used is smaller.
pub(super) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Read buffer of a connection, and with it the largest request head.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Nesting of a request's JSON; real bodies stay below ten.
pub(super) const MAX_JSON_DEPTH: usize = 64;
/// How long a blocking query waits when it does not say, Consul's default.
pub(super) const DEFAULT_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest a blocking query waits; larger wishes are cut to it, as Consul does.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(10 * 60);
/// Longest `?filter` expression; it also bounds the work of reading it.
pub(super) const MAX_FILTER_BYTES: usize = 8 * 1024;
/// Parentheses and negations of an expression inside of each other, and groups of a regular expression.
pub(super) const MAX_FILTER_DEPTH: usize = 64;
/// Regular expressions in one filter, each of which may take [`MAX_FILTER_PATTERN_MEMORY`].
pub(super) const MAX_FILTER_PATTERNS: usize = 16;
/// Memory of one compiled regular expression, in bytes; with it the time per character it is asked for.
pub(super) const MAX_FILTER_PATTERN_MEMORY: usize = 64 * 1024;
/// Names in one `intentions/match`: each costs a copy of the matching rules in the answer.
pub(super) const MAX_MATCH_NAMES: usize = 64;
/// Smaller answers are not compressed: it would cost more than it saves.
pub(super) const MIN_GZIP_BYTES: u16 = 1400;
/// First pause after `accept` failed for want of a resource; doubles up to [`MAX_ACCEPT_PAUSE`].
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause between two tries to accept.
pub(super) const MAX_ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// How long requests in flight may take to finish after the shutdown began.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Encoded answers kept for those who ask the same again, in bytes: a hundred of services with a hundred
/// instances each, which is 90 KB.
pub(super) const MAX_KEPT_BYTES: usize = 16 * 1024 * 1024;
/// The same in number; each costs its question besides.
pub(super) const MAX_KEPT_ANSWERS: usize = 4096;
/// Longer answers are made anew each time, so that one does not push out all others.
pub(super) const MAX_KEPT_ANSWER_BYTES: usize = MAX_KEPT_BYTES / 8;
/// Longest list of parameters of a question that is kept: texts of strangers are memory.
pub(super) const MAX_KEPT_QUESTION_BYTES: usize = 1024;
