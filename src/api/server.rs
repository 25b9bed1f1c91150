//! The listener: binds, accepts within limits, serves, and drains.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

use super::answers::Answers;
use super::gate::Peer;
use super::guard::Ends;
use super::leaf::Leaves;
use super::limits::{
    ACCEPT_PAUSE, DRAIN_DEADLINE, HEADER_DEADLINE, MAX_ACCEPT_PAUSE, MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_PEER, MAX_HEAD_BYTES, MIN_GZIP_BYTES, WRITE_STALL,
};
use super::listen::{Listen, Listener, Raw, Refused, Stream};
use super::stall::WriteStall;
use super::{ApiState, Shared, routes};
use crate::telemetry::ServerMetrics;

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
#[error(
    "the HTTP API cannot listen on {address}: {source}; choose another address or stop what uses it"
)]
pub struct BindError {
    pub address: String,
    pub source: io::Error,
}

/// A bound HTTP API that does not serve yet: its addresses are known, connections queue up.
pub struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<Option<SocketAddr>>,
    router: Router,
    metrics: ServerMetrics,
    draining: watch::Sender<bool>,
}

impl Server {
    /// Binds every place.
    ///
    /// # Errors
    /// When one of them cannot be bound.
    pub async fn bind(places: &[Listen], state: ApiState) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(places.len());
        let mut addresses = Vec::with_capacity(places.len());
        for place in places {
            let fail = |source| BindError { address: place.to_string(), source };
            let listener = Listener::bind(place).await.map_err(fail)?;
            addresses.push(listener.local_addr().map_err(fail)?);
            listeners.push(listener);
        }
        let (draining, watch) = watch::channel(false);
        let answers = Answers::new(state.metrics.clone());
        let metrics = state.metrics.clone();
        let shared = Shared {
            state,
            bound: addresses.iter().copied().flatten().collect(),
            draining: watch,
            leaves: Leaves::default(),
            answers,
            writes: Mutex::new(()),
        };
        Ok(Self { listeners, addresses, router: routes::router(shared), metrics, draining })
    }

    /// The addresses that were bound, in the order asked for; a UNIX socket has none.
    #[must_use]
    pub fn local_addrs(&self) -> &[Option<SocketAddr>] {
        &self.addresses
    }

    /// Serves until `shutdown` is ready; then accepts nothing more, answers waiting queries, and gives
    /// requests in flight five seconds.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let peers = Arc::new(Peers::default());
        let mut loops = JoinSet::new();
        for listener in self.listeners {
            let context = Context {
                router: self.router.clone(),
                metrics: self.metrics.clone(),
                draining: self.draining.subscribe(),
                slots: Arc::clone(&slots),
                peers: Arc::clone(&peers),
            };
            loops.spawn(accept_loop(listener, context));
        }
        shutdown.await;
        self.draining.send_replace(true);
        while loops.join_next().await.is_some() {}
    }
}

/// What every accept loop needs.
struct Context {
    router: Router,
    metrics: ServerMetrics,
    draining: watch::Receiver<bool>,
    slots: Arc<Semaphore>,
    peers: Arc<Peers>,
}

/// Accepts until the drain begins, then waits for its connections, at most [`DRAIN_DEADLINE`].
async fn accept_loop(listener: Listener, context: Context) {
    let mut connections = JoinSet::new();
    let mut draining = context.draining.clone();
    let mut drain = pin!(begun(&mut draining));
    let mut pause = ACCEPT_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut drain => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &context.slots) => accepted,
        };
        match accepted {
            Ok((raw, peer, slot)) => {
                pause = ACCEPT_PAUSE;
                let Some(place) = context.peers.enter(peer) else {
                    tracing::debug!(%peer, limit = MAX_CONNECTIONS_PER_PEER, "too many connections");
                    continue;
                };
                let (router, draining) = (context.router.clone(), context.draining.clone());
                let metrics = context.metrics.clone();
                connections.spawn(async move {
                    let _held = (slot, place);
                    // A handshake is much larger than a connection that waits, which is to keep nothing of it.
                    match Box::pin(raw.open(peer)).await {
                        Ok(opened) => serve_connection(opened, peer, router, draining).await,
                        Err(refused) => refuse(peer, &refused, &metrics),
                    }
                });
            }
            Err(fault) if is_about_one_connection(&fault) => {}
            Err(fault) => {
                tracing::warn!(%fault, pause_ms = pause.as_millis(), "cannot accept; pausing");
                tokio::select! {
                    () = &mut drain => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = next_pause(pause);
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    // What is left after the deadline is cut off when the set is dropped.
    let _in_time = tokio::time::timeout(DRAIN_DEADLINE, finish).await;
}

type Slot = tokio::sync::OwnedSemaphorePermit;

/// Takes a slot first: without one, callers wait in the kernel's backlog.
async fn accept(listener: &Listener, slots: &Arc<Semaphore>) -> io::Result<(Raw, Peer, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (raw, peer) = listener.accept().await?;
    Ok((raw, peer, slot))
}

/// Faults of a connection that was gone before it was accepted say nothing about the next.
fn is_about_one_connection(fault: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(fault.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied)
}

fn next_pause(pause: Duration) -> Duration {
    (pause * 2).min(MAX_ACCEPT_PAUSE)
}

fn refuse(peer: Peer, refused: &Refused, metrics: &ServerMetrics) {
    let Refused { reason, certificate, fault } = refused;
    match certificate {
        Some(why) => tracing::info!(%peer, %reason, why, "refused a certificate over HTTPS"),
        None => tracing::debug!(%peer, %fault, "HTTP connection refused"),
    }
    metrics.tls_refused("https", *reason);
}

async fn serve_connection(
    (stream, ends): (Box<dyn Stream>, Ends),
    peer: Peer,
    router: Router,
    mut draining: watch::Receiver<bool>,
) {
    // Around all routes at once: a layer of the router would cost each waiting query an allocation.
    let zipping = CompressionLayer::new().compress_when(SizeAbove::new(MIN_GZIP_BYTES));
    let router = zipping.layer(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ends.clone());
        router.clone().oneshot(request)
    });
    let io = TokioIo::new(WriteStall::new(stream, WRITE_STALL));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = begun(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = outcome {
        tracing::debug!(%peer, %fault, "HTTP connection ended");
    }
}

/// Waits for the drain; a server that is gone counts as draining.
async fn begun(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

/// Counts connections by peer address, so that one host cannot take all slots. This machine is not
/// counted: everybody on it shares its addresses.
#[derive(Default)]
struct Peers {
    counts: StdMutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    fn enter(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let counted = match peer {
            Peer::Tcp(address) => Some(address.ip().to_canonical()).filter(|ip| !ip.is_loopback()),
            Peer::User(_) => None,
        };
        if let Some(peer) = counted {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(peer).or_default();
            if *count >= MAX_CONNECTIONS_PER_PEER {
                return None;
            }
            *count += 1;
        }
        Some(Place { peers: Arc::clone(self), counted })
    }
}

/// A connection's place in the count; leaving is dropping it.
struct Place {
    peers: Arc<Peers>,
    counted: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(peer) = self.counted else { return };
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_its_share_and_gives_it_back() {
        let peers = Arc::new(Peers::default());
        let tcp = |ip: &str| Peer::Tcp((ip.parse::<IpAddr>().unwrap(), 1).into());
        let remote = tcp("192.0.2.1");
        let held: Vec<_> = (0..MAX_CONNECTIONS_PER_PEER).map(|_| peers.enter(remote).unwrap()).collect();
        assert!(peers.enter(remote).is_none());
        assert!(peers.enter(tcp("192.0.2.2")).is_some());
        drop(held);
        assert!(peers.counts.lock().unwrap().is_empty());
        assert!(peers.enter(remote).is_some());
    }

    #[test]
    fn loopback_is_not_counted() {
        let peers = Arc::new(Peers::default());
        let all: Vec<_> = (0..=MAX_CONNECTIONS_PER_PEER)
            .map(|_| peers.enter(Peer::Tcp("[::ffff:127.0.0.1]:1".parse().unwrap())))
            .collect();
        assert!(all.iter().all(Option::is_some));
        assert!(peers.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn want_of_descriptors_pauses_and_lost_connections_do_not() {
        let emfile = rustix::io::Errno::MFILE;
        assert!(!is_about_one_connection(&io::Error::from_raw_os_error(emfile.raw_os_error())));
        assert!(is_about_one_connection(&io::ErrorKind::ConnectionAborted.into()));
        let mut pause = ACCEPT_PAUSE;
        for _ in 0..20 {
            pause = next_pause(pause);
        }
        assert_eq!(pause, MAX_ACCEPT_PAUSE);
    }
}
