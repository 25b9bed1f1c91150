//! Every limit of the DNS server, with its reason.

use std::time::Duration;

/// Longest question that is read, over UDP or TCP: one name and a few options of EDNS.
pub const MAX_QUERY_BYTES: usize = 4096;
/// Room of clients that say nothing of theirs (RFC 1035).
pub const SMALL_ANSWER_BYTES: u16 = 512;
/// Longest answer over UDP, whatever a client says it can take. What HAProxy's manual recommends to
/// clients; longer ones go over TCP.
pub const MAX_UDP_ANSWER_BYTES: u16 = 8192;
/// Answers of so many times the question's length may go to anybody.
pub const FREE_FACTOR: usize = 5;
/// Bytes of longer answers that one network (a /24, or a /56 of IPv6) is sent at once and each second
/// beyond loopback: some seventy answers of sixty addresses. Then the answer is to ask over TCP.
pub const ALLOWANCE_BYTES: u64 = 256 * 1024;
pub const ALLOWANCE_BYTES_PER_SECOND: u64 = 256 * 1024;
/// Longest answer over TCP, where two bytes hold the length.
pub const MAX_TCP_ANSWER_BYTES: u16 = u16::MAX;
/// Connections over TCP at a time; further ones are closed at once.
pub const CONNECTIONS: usize = 256;
/// A connection is closed after this time without a whole question, or with an answer nobody takes.
pub const CONNECTION_IDLE: Duration = Duration::from_secs(10);
/// Questions on one connection; a client that has more opens another one (RFC 7766 lets us).
pub const QUERIES_PER_CONNECTION: u32 = 10_000;
/// Questions that wait for a recursor at a time; further ones fail at once.
pub const RECURSIONS: usize = 512;
/// Datagrams answered before the task lets others have its thread.
pub const DATAGRAMS_PER_TURN: usize = 64;
/// How long connections may take for the answers under way when the server stops.
pub const DRAIN: Duration = Duration::from_secs(1);
/// Bytes that the kernel keeps of questions not read yet: a burst of some thousand.
pub const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;
