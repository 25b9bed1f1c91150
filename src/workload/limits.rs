//! Every bound of the Workload API, with its reason.

use std::time::Duration;

use crate::net::http2::Allowance;

/// Connections at once of users on the list. An application needs one or two.
pub const MAX_CONNECTIONS: usize = 128;
/// Connections at once of all others: enough to tell each what is wrong, and no more.
pub const MAX_STRANGERS: usize = 8;
/// Time for the first 24 bytes of HTTP/2, which come with the connection.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one connection may have of HTTP/2.
pub const HTTP2: Allowance = Allowance {
    // four kinds that stay open, some calls, and some slack.
    streams: 32,
    // Header list of one request. Those of clients are under 1 KiB.
    header_list_bytes: 8 * 1024,
    send_buffer_bytes: 64 * 1024,
    stream_window_bytes: 64 * 1024,
    connection_window_bytes: 128 * 1024,
    ping_interval: Duration::from_secs(30),
};
/// One request. The longest holds a token of [`MAX_TOKEN_BYTES`].
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024;
/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Audiences of one request, and bytes of one.
pub const MAX_AUDIENCES: usize = 16;
pub const MAX_AUDIENCE_BYTES: usize = 1024;
/// Tokens that are asked for at once; further callers wait.
pub const MAX_MINTING: usize = 4;
/// Tokens that are kept, each for other audiences.
pub const MAX_KEPT_TOKENS: usize = 64;
/// How long a call waits for the sidecar's first certificate before it is told to come again.
pub const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Pause after accepting failed for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A refused user is logged no more often than this.
pub const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// How long connections may take to end after the stop.
pub const STOP_GRACE: Duration = Duration::from_secs(1);
