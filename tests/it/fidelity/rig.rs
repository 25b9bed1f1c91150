//! Two sidecars with a wire between them, and the two ends that applications see.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::foreign;
use super::relay::Relay;
use crate::pace;
use crate::plane::{Authority, DEADLINE, Plane, Tuning, application, local, soon};

/// What the sidecars speak to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// `weft/1`: many streams on one connection.
    Lanes,
    /// One TLS connection for each stream, with a foreign proxy in between.
    Connect,
}

/// `web` with an upstream `db`, both allowed everything.
pub(super) struct Rig {
    pub(super) web: Plane,
    pub(super) db: Plane,
    app: TcpListener,
}

impl Rig {
    pub(super) async fn new(wire: Wire) -> Self {
        Self::with_listeners(wire, local(), local()).await
    }

    /// With the listeners of `db`'s sidecar and of the foreign proxy, if there is one.
    pub(super) async fn with_listeners(
        wire: Wire,
        inbound: std::net::TcpListener,
        foreign: std::net::TcpListener,
    ) -> Self {
        let (rig, ca, at) = Self::unconnected(inbound).await;
        let at = match wire {
            Wire::Lanes => at,
            Wire::Connect => bridged(foreign, &ca, at),
        };
        rig.web.knows("db", "db-1", at);
        rig
    }

    /// With a relay before each sidecar that is dialled, which can cut what passes through it.
    pub(super) async fn with_relays(wire: Wire) -> (Self, Vec<Relay>) {
        let (rig, ca, at) = Self::unconnected(local()).await;
        let mut relays = vec![Relay::start(at).await];
        if wire == Wire::Connect {
            relays.push(Relay::start(bridged(local(), &ca, relays[0].address)).await);
        }
        rig.web.knows("db", "db-1", relays[relays.len() - 1].address);
        (rig, relays)
    }

    async fn unconnected(inbound: std::net::TcpListener) -> (Self, Authority, SocketAddr) {
        let ca = Authority::new().await;
        let (app, address) = application().await;
        let db = Plane::behind(inbound, &ca, "db", address, &[], Tuning::default());
        let web = Plane::start(&ca, "web", address, &["db"]);
        db.allow_all();
        let at = db.inbound;
        (Self { web, db, app }, ca, at)
    }

    /// The end of the application that is dialled.
    pub(super) async fn accept(&self) -> TcpStream {
        soon("connection at the application", self.app.accept()).await.unwrap().0
    }

    /// A connection that has carried a byte each way: the client's end and the server's.
    pub(super) async fn connected(&self) -> (TcpStream, TcpStream) {
        let mut client = self.web.dial("db").await;
        client.set_nodelay(true).unwrap();
        client.write_all(b"x").await.unwrap();
        let mut server = self.accept().await;
        server.set_nodelay(true).unwrap();
        let mut byte = [0];
        soon("byte", server.read_exact(&mut byte)).await.unwrap();
        server.write_all(b"y").await.unwrap();
        soon("byte", client.read_exact(&mut byte)).await.unwrap();
        (client, server)
    }

    /// As [`Self::connected`], with the ends in the order (who acts, who sees it).
    pub(super) async fn connected_from(&self, actor: Side) -> (TcpStream, TcpStream) {
        let (client, server) = self.connected().await;
        match actor {
            Side::Client => (client, server),
            Side::Server => (server, client),
        }
    }
}

/// A foreign proxy before the sidecar of `db`.
fn bridged(listener: std::net::TcpListener, ca: &Authority, db: SocketAddr) -> SocketAddr {
    foreign::bridge(listener, &ca.identity("db", 1), &ca.identity("web", 1), "db", db)
}

/// Who of the two applications does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

pub(crate) const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// Everything until the end, which is clean or an error.
pub(super) async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("end of stream", stream.read_to_end(&mut all)).await?;
    Ok(all)
}

/// The end of a connection that was broken off, whatever bytes come before.
pub(super) async fn assert_reset(what: &str, stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let end = soon("end of stream", stream.read_to_end(&mut all)).await;
    let error = end.expect_err(&format!("{what}: a clean end after {} bytes", all.len()));
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
    all
}

/// Closes with a TCP reset.
pub(super) fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

/// Writes noise until nothing has been taken for a while; returns how much was.
pub(crate) async fn fill(stream: &mut TcpStream, seed: u64) -> u64 {
    /// Far more than windows and kernel buffers on the way hold.
    const MOST: u64 = 256 * 1024 * 1024;
    const QUIET: Duration = Duration::from_millis(250);
    let mut noise = Noise::new(seed);
    let mut sent = 0;
    loop {
        let block = noise.next_block();
        let mut rest = block;
        while !rest.is_empty() {
            match tokio::time::timeout(QUIET, stream.write(rest)).await {
                Ok(count) => rest = &rest[count.unwrap()..],
                Err(_full) => return sent + (block.len() - rest.len()) as u64,
            }
        }
        sent += block.len() as u64;
        assert!(sent < MOST, "back-pressure never reached the sender");
    }
}

/// Bytes that look random, cheap to make and the same for the same seed.
pub(crate) struct Noise {
    block: Vec<u8>,
    number: u64,
}

impl Noise {
    pub(super) const BLOCK: usize = 64 * 1024;

    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = weft::net::rng::Rng::from_seed(seed);
        let block = (0..Self::BLOCK / 8).flat_map(|_| rng.next_u64().to_be_bytes()).collect();
        Self { block, number: 0 }
    }

    /// The next block; no two of a stream are equal.
    pub(super) fn next_block(&mut self) -> &[u8] {
        self.block[..8].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        &self.block
    }
}

/// The hash of the first `bytes` of a noise.
pub(crate) fn hash_of_noise(seed: u64, bytes: u64) -> Vec<u8> {
    let (mut noise, mut hash, mut left) = (Noise::new(seed), Context::new(&SHA256), bytes);
    while left > 0 {
        let now = left.min(Noise::BLOCK as u64);
        hash.update(&noise.next_block()[..now as usize]);
        left -= now;
    }
    hash.finish().as_ref().to_vec()
}

/// Sends so many bytes of noise, a whole number of blocks.
pub(crate) async fn send_noise<W: AsyncWrite + Unpin>(to: &mut W, seed: u64, bytes: u64) {
    assert_eq!(bytes % Noise::BLOCK as u64, 0);
    let mut noise = Noise::new(seed);
    for _ in 0..bytes / Noise::BLOCK as u64 {
        to.write_all(noise.next_block()).await.unwrap();
    }
}

/// Length and hash of everything until a clean end; bytes must keep coming.
pub(crate) async fn hash_until_end<R: AsyncRead + Unpin>(from: &mut R) -> (u64, Vec<u8>) {
    hash_at_a_pace(from, Duration::ZERO).await
}

/// As [`hash_until_end`], of a reader that takes little and pauses after every read: whatever can pile up
/// on the way does, to the end.
pub(super) async fn hash_at_a_pace<R: AsyncRead + Unpin>(
    from: &mut R,
    pause: Duration,
) -> (u64, Vec<u8>) {
    let (mut hash, mut total) = (Context::new(&SHA256), 0);
    let mut bytes = vec![0; if pause.is_zero() { 256 * 1024 } else { 8 * 1024 }];
    loop {
        let read = tokio::time::timeout(DEADLINE, from.read(&mut bytes)).await;
        match read.unwrap_or_else(|_| panic!("nothing more after {total} bytes")).unwrap() {
            0 => return (total, hash.finish().as_ref().to_vec()),
            count => {
                hash.update(&bytes[..count]);
                total += count as u64;
                if !pause.is_zero() {
                    pace::pause(pause).await;
                }
            }
        }
    }
}
