//! The DNS port: UDP and TCP on one address, answered from the catalog, recursors for the rest.
//!
//! A datagram is answered where it is read: an answer takes microseconds and waits for nobody, so the
//! kernel's buffer is the only queue. Only questions for recursors get a task, of which there is a
//! limited number.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::budget::Budget;
use super::respond::{Forward, Outcome, Reply, Responder, Transport};
use super::settings::Settings;
use super::{DnsError, limits, recursor, tcp, udp};
use crate::catalog::Catalog;
use crate::net::drain::{self, Watcher};
use crate::net::rng::Rng;
use crate::net::seats::{Seat, Seats};
use crate::net::socket;
use crate::telemetry::ServerMetrics;

/// How often both ports of one number are tried when any number will do.
const PORT_TRIES: usize = 16;

/// A bound DNS server.
pub struct Server {
    address: SocketAddr,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

/// What every task of the server holds.
pub(super) struct Shared {
    catalog: Catalog,
    settings: ArcSwap<Settings>,
    pub(super) metrics: ServerMetrics,
    recursions: Arc<Seats>,
    budget: Mutex<Budget>,
}

impl Server {
    /// Binds UDP and TCP at one address; port 0 takes any that is free for both.
    ///
    /// # Errors
    /// When the address cannot be bound, or a recursor is this server itself.
    pub fn bind(
        address: SocketAddr,
        catalog: Catalog,
        settings: Settings,
        metrics: ServerMetrics,
    ) -> Result<Self, DnsError> {
        let (udp, tcp) = both(address).map_err(|source| DnsError::Bind { address, source })?;
        let address = tcp.local_addr().map_err(|source| DnsError::Bind { address, source })?;
        refuse_self(&settings, address)?;
        let recursions = Seats::new(limits::RECURSIONS);
        let budget = Mutex::new(Budget::new(Instant::now()));
        let settings = ArcSwap::from_pointee(settings);
        let shared = Arc::new(Shared { catalog, settings, metrics, recursions, budget });
        Ok(Self { address, udp: Arc::new(udp), tcp, shared })
    }

    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// For changing the settings while it runs.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        Tuner { address: self.address, shared: Arc::clone(&self.shared) }
    }

    /// Answers until `stop`, then gives the answers under way a moment.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let drain = drain::new();
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _worker in 0..workers {
            tokio::spawn(udp::serve(Arc::clone(&self.udp), Arc::clone(&self.shared), drain.watcher()));
        }
        tokio::spawn(tcp::serve(self.tcp, Arc::clone(&self.shared), drain.watcher()));
        stop.await;
        drain.finish(limits::DRAIN, Duration::ZERO).await;
    }
}

/// Changes the settings of a running server.
#[derive(Clone)]
pub struct Tuner {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Tuner {
    /// From the next question on, these settings count.
    ///
    /// # Errors
    /// When a recursor is this server itself; then the old settings go on.
    pub fn set(&self, settings: Settings) -> Result<(), DnsError> {
        refuse_self(&settings, self.address)?;
        self.shared.settings.store(Arc::new(settings));
        Ok(())
    }
}

/// What became of a message.
pub(super) enum Answered {
    Silence,
    Now(Reply),
    Later(Recursion),
}

/// A question for a recursor that has a seat.
pub(super) struct Recursion {
    forward: Forward,
    _seat: Seat,
}

impl Shared {
    /// Answers at once, unless a recursor has to be asked.
    pub(super) fn answer(&self, asked: &[u8], transport: Transport, rng: &mut Rng) -> Answered {
        let settings = self.settings.load();
        let responder = Responder { registry: &self.catalog, settings: &settings, now: now() };
        match responder.respond(asked, transport, rng) {
            Outcome::Silence => {
                self.metrics.dns_dropped("no_question");
                Answered::Silence
            }
            Outcome::Reply(reply) => Answered::Now(self.counted(reply)),
            Outcome::Forward(forward) => match self.recursions.take() {
                Some(seat) => Answered::Later(Recursion { forward, _seat: seat }),
                None => {
                    self.metrics.dns_dropped("recursions");
                    Answered::Now(self.counted(forward.failure))
                }
            },
        }
    }

    pub(super) async fn recurse(&self, recursion: Recursion, transport: Transport) -> Reply {
        let Recursion { forward, _seat } = recursion;
        let settings = self.settings.load_full();
        let reply = recursor::resolve(&settings, forward, transport, &mut Rng::new()).await;
        self.counted(reply)
    }

    /// What of an answer may go to whoever seems to have asked.
    pub(super) fn sendable(&self, reply: Reply, asked_bytes: usize, client: SocketAddr) -> Vec<u8> {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.admits(client, asked_bytes, reply.bytes.len(), Instant::now()) {
            return reply.bytes;
        }
        self.metrics.dns_dropped("allowance");
        reply.cut()
    }

    fn counted(&self, reply: Reply) -> Reply {
        self.metrics.dns_query(type_label(reply.kind), code_label(reply.code));
        reply
    }
}

/// Sockets for both protocols with the same number.
fn both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let tcp = socket::listen(address)?;
        match datagrams(tcp.local_addr()?) {
            Ok(udp) => return Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

fn datagrams(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    // The kernel gives what its own limit allows.
    socket.set_recv_buffer_size(limits::RECEIVE_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn refuse_self(settings: &Settings, own: SocketAddr) -> Result<(), DnsError> {
    match settings.recursors.iter().find(|recursor| is_self(**recursor, own)) {
        Some(recursor) => Err(DnsError::OwnRecursor(*recursor)),
        None => Ok(()),
    }
}

/// Whether asking this recursor would be asking ourselves, for ever.
fn is_self(recursor: SocketAddr, own: SocketAddr) -> bool {
    let everywhere = own.ip().is_unspecified() && socket::is_local(recursor.ip());
    recursor.port() == own.port() && (recursor.ip() == own.ip() || everywhere)
}

/// Unix time in seconds; its last 32 bits are enough for a serial number.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

const fn type_label(kind: Option<RecordType>) -> &'static str {
    match kind {
        Some(RecordType::A) => "A",
        Some(RecordType::AAAA) => "AAAA",
        Some(RecordType::ANY) => "ANY",
        Some(RecordType::CNAME) => "CNAME",
        Some(RecordType::HTTPS) => "HTTPS",
        Some(RecordType::MX) => "MX",
        Some(RecordType::NS) => "NS",
        Some(RecordType::PTR) => "PTR",
        Some(RecordType::SOA) => "SOA",
        Some(RecordType::SRV) => "SRV",
        Some(RecordType::TXT) => "TXT",
        Some(_) => "other",
        None => "none",
    }
}

const fn code_label(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}

/// Whether a task should go on, for loops that also wait for something else.
pub(super) async fn draining(watcher: &mut Watcher) {
    watcher.reached(drain::Phase::Draining).await;
}
