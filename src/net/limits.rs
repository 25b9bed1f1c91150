//! Every limit of the data plane, with its reason. A limit that is reached is counted in
//! `weft_limit_reached_total{limit}` by whoever enforces it.

use std::time::Duration;

/// A TLS handshake that has not finished by then is given up, on either side. Legitimate ones take
/// milliseconds; this bounds what a silent client can hold.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// One attempt to reach a peer's sidecar, TCP and TLS together, and then its answer to OPEN, which
/// dials its application meanwhile (Consul's `connect_timeout_ms`).
pub const DIAL: Duration = Duration::from_secs(5);
/// A sidecar's dial of its own application (Consul's `local_connect_timeout_ms`).
pub const LOCAL_DIAL: Duration = Duration::from_secs(5);
/// How long an accepted connection waits for the first configuration and identity.
pub const FIRST_CONFIG: Duration = Duration::from_secs(10);
/// Endpoints that one application connection tries before it gives up.
pub const DIAL_ATTEMPTS: u32 = 4;
/// Lanes that one application connection finds retired before it gives up. That is nobody's failure: a
/// peer whose certificate was replaced says so on each lane once, and the next one is new.
pub const LANE_MOVES: u32 = 32;
/// Once one direction has ended, the other must move something in this time.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(300);
/// A lane without streams is given up after this time.
pub const LANE_IDLE: Duration = Duration::from_secs(90);
/// An endpoint that has not answered for this long is left for another one, when there is one and no
/// application can have seen a byte. A lost first packet costs a second until TCP sends it again.
pub const PATIENCE: Duration = Duration::from_millis(1200);
/// Application connections to upstreams that a process serves at a time. [`super::capacity`] cuts this
/// and the next three down to what descriptors and memory leave room for.
pub const CONNECTIONS: usize = 40_000;
/// Streams of peers to the application at a time.
pub const STREAMS: usize = 40_000;
/// TLS connections from peers at a time, handshakes included.
pub const PEERS: usize = 20_000;
/// Peers of one worker that have not proved who they are. Beyond it the oldest one leaves: a legitimate
/// handshake takes milliseconds, so that it is hardly ever the oldest.
pub const HANDSHAKES: usize = 2048;
/// Bytes a peer may send before it has proved who it is: the longest chain twice.
pub const HANDSHAKE_BYTES: usize = 32 * 1024;
/// Descriptors that connections leave alone: for the control stream, the admin endpoint, the log,
/// health checks, timers and listeners of all workers.
pub const RESERVED_DESCRIPTORS: usize = 64;
/// Memory of a sidecar without connections, its configuration included.
pub const BASE_BYTES: u64 = 24 * 1024 * 1024;
/// Memory that one connection may take on one side: one window that its reader does not take, its
/// first words, its share of a lane's buffers and TLS session.
pub const CONNECTION_BYTES: usize = 96 * 1024;
/// Streams one lane carries before another lane is opened.
pub const STREAMS_PER_LANE: usize = 256;
/// Streams a peer may have open on one lane before OPEN is refused as overloaded.
pub const ACCEPTED_STREAMS_PER_LANE: usize = 1024;
/// Lanes one worker opens to one endpoint.
pub const LANES_PER_ENDPOINT: usize = 8;
/// Bytes kept of an application's first words until the peer's verdict, so that they can be sent to
/// another endpoint after a refusal.
pub const EARLY_BYTES: usize = 16 * 1024;
/// Plaintext a lane holds before its streams stop reading from their applications.
pub const LANE_BUFFER: usize = 256 * 1024;
/// Bytes that a connection in Connect mode keeps in each direction for a reader that stalls: there is no
/// credit, and each application has a connection of its own. With a piece of a record, below 64 KiB.
pub const RAW_BUFFER: usize = 40 * 1024;
/// Plaintext a lane holds before it stops listening to the peer, which does not read our answers.
/// Far above `LANE_BUFFER` plus what honest streams say beside their data, so that two lanes that wait
/// for each other are no honest ones.
pub const LANE_ANSWERS: usize = 8 * LANE_BUFFER;
/// Connections that wait in a listener's accept queue.
pub const BACKLOG: i32 = 1024;
