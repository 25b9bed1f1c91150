//! HTTP/2 as our gRPC listeners serve it: what differs between them is how much one client may have.

use std::time::Duration;

use hyper::server::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Streams reset before we took them, after which the connection is cut (rapid reset).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset ourselves for protocol errors, after which the connection is cut.
const MAX_LOCAL_RESETS: usize = 64;
/// How long a silent client may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What one connection may have. The reasons stand where the values do, in each listener's `limits`.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub streams: u32,
    /// Header list of one request.
    pub header_list_bytes: u32,
    /// Unsent bytes that HTTP/2 keeps for one stream.
    pub send_buffer_bytes: usize,
    /// What a client may have in flight toward us on one stream, and on all streams of a connection.
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    /// A client that is silent for so long is asked whether it is there.
    pub ping_interval: Duration,
}

/// A server of such connections.
#[must_use]
pub fn server(allowance: &Allowance) -> Builder<TokioExecutor> {
    let mut settings = Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .max_concurrent_streams(allowance.streams)
        .max_header_list_size(allowance.header_list_bytes)
        .max_send_buf_size(allowance.send_buffer_bytes)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .initial_stream_window_size(allowance.stream_window_bytes)
        .initial_connection_window_size(allowance.connection_window_bytes)
        .keep_alive_interval(allowance.ping_interval)
        .keep_alive_timeout(PING_TIMEOUT);
    settings
}
