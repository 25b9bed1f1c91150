//! Every bound of the gRPC port, with its reason.

use std::time::Duration;

use crate::net::http2::Allowance;

/// Connections at once. Above the 10,000 sidecars to be held, below the usual 20,000 open files.
pub const MAX_CONNECTIONS: usize = 16_384;
/// A client that has not finished TLS by then is holding a slot for nothing.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one connection may have of HTTP/2.
pub const HTTP2: Allowance = Allowance {
    // HTTP/2 streams of one connection. A sidecar needs two, a tool some more.
    streams: 128,
    // Header list of one request. Ours are under 1 KiB.
    header_list_bytes: 16 * 1024,
    send_buffer_bytes: 64 * 1024,
    stream_window_bytes: 64 * 1024,
    connection_window_bytes: 256 * 1024,
    ping_interval: Duration::from_secs(10),
};

/// One gRPC message in either direction.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Encoded resources in one message of a batch or snapshot, so that pieces of different streams
/// interleave on a slow link.
pub const MAX_PIECE_BYTES: usize = 256 * 1024;
/// Messages between a Sync task and HTTP/2. One is being written while the next is made.
pub const OUTBOUND_QUEUE: usize = 2;

/// First issues at once. Each is one commit to the store and one signature.
pub const MAX_ENROLMENTS: usize = 64;
/// Renewals at once; apart from enrolments, so that a storm of those starves no renewal.
pub const MAX_RENEWALS: usize = 64;
/// How long a call waits for one of these slots.
pub const SIGNING_QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often something may happen: so many times at once, then so many a second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub burst: u32,
    pub per_second: u32,
}

/// First certificates, of all services: a mesh of thousands starts within a minute.
pub const ENROL_ALL: Rate = Rate { burst: 2000, per_second: 200 };
/// First certificates of one service.
pub const ENROL_SERVICE: Rate = Rate { burst: 1000, per_second: 50 };
/// Refused requests for a first certificate from one address. Each costs a read of the store.
pub const REFUSED_SOURCE: Rate = Rate { burst: 250, per_second: 10 };
/// Renewals of all sidecars: twice the sidecars to be held within a minute.
pub const RENEW_ALL: Rate = Rate { burst: 5000, per_second: 500 };
/// Renewals of one sidecar, whose certificates live for minutes at least, in dev mode for seconds.
pub const RENEW_SIDECAR: Rate = Rate { burst: 10, per_second: 1 };
/// Tokens of all sidecars for their applications; each is one signature and a line of the audit log.
pub const MINT_ALL: Rate = Rate { burst: 5000, per_second: 500 };
/// Tokens of one sidecar, which keeps 64 of them for half of their life of minutes.
pub const MINT_SIDECAR: Rate = Rate { burst: 100, per_second: 10 };
/// Buckets in one table, 100 bytes each.
pub const MAX_RATED: usize = 16_384;

/// A request for a P-256 key has about 300 bytes.
pub const MAX_CSR_BYTES: usize = 8 * 1024;
/// A token has 151 characters.
pub const MAX_TOKEN_BYTES: usize = 256;
/// Audiences of one token, and bytes of one: a URL or a SPIFFE ID.
pub const MAX_AUDIENCES: usize = 16;
pub const MAX_AUDIENCE_BYTES: usize = 1024;

/// Connections at once to the bundle endpoint. Readers come every few minutes and stay for one answer.
pub const MAX_BUNDLE_CONNECTIONS: usize = 256;
/// Time for the head of a request there, and for a whole connection.
pub const BUNDLE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
pub const BUNDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// What one connection there may buffer; the least that HTTP allows.
pub const BUNDLE_BUFFER_BYTES: usize = 8 * 1024;

/// Time for the first message of a Sync stream.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// An application and its sidecar.
pub const MAX_INSTANCES: usize = 2;
/// Checks of one registration.
pub const MAX_CHECKS: usize = 64;
/// Upstreams of one sidecar.
pub const MAX_UPSTREAMS: usize = 1024;
/// Tags, metadata entries or tagged addresses of one instance.
pub const MAX_ATTRIBUTES: usize = 256;
/// One free text of a registration: a tag, a value, a JSON object, a note.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Results in one message.
pub const MAX_REPORTS: usize = 256;
/// Bytes of the random value that names a sidecar's process.
pub const MAX_PROCESS_BYTES: usize = 32;
/// Bytes of the version a sidecar tells.
pub const MAX_VERSION_BYTES: usize = 64;
/// Refused resources kept of one batch.
pub const MAX_REFUSALS: usize = 64;

/// Least time between two batches to one sidecar, unless the second is urgent.
pub const BATCH_FLOOR: Duration = Duration::from_millis(5);
/// A batch or piece unacknowledged for so long makes a sidecar lag: logged once.
pub const LAG_AFTER: Duration = Duration::from_secs(15);
/// And for so long ends its stream.
pub const CLOSE_AFTER: Duration = Duration::from_secs(60);

/// Edges in one report.
pub const MAX_EDGES_PER_REPORT: usize = 1024;
/// Edges in memory: (source, destination, reason, side). 200 bytes each.
pub const MAX_EDGES: usize = 100_000;
/// Leases granted to callers that are known by certificate only.
pub const MAX_REMOTE_LEASES: usize = 10_000;

/// How long streams may take to end after shutdown began.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Sidecars that went away stay on the board for so long.
pub const BOARD_KEEP: Duration = Duration::from_secs(600);
/// How often the board is swept.
pub const BOARD_SWEEP: Duration = Duration::from_secs(60);
/// Pause after the server's own certificate could not be renewed.
pub const MATERIAL_RETRY: Duration = Duration::from_secs(5);
/// A wait for changes of a service in `Registry.Watch`; afterwards it waits again.
pub const WATCH_WAIT: Duration = Duration::from_secs(300);
