//! The listener: HTTP/2 in plain text, and therefore on loopback only.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::service::Routes;
use tower_service::Service as _;

use super::limits;
use super::service::Service;
use super::shell::Keys;
use crate::catalog::Catalog;
use crate::net::accept::Acceptor;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error(
        "the etcd port has neither TLS nor users and so listens on loopback only, not on {0}; give \
         --etcd-addr 127.0.0.1:2379, and let a proxy that knows its callers stand before it"
    )]
    NotLoopback(SocketAddr),
    #[error("the port for etcd clients cannot be used: {0}")]
    Listen(#[from] io::Error),
}

/// A listener that does not accept yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Routes,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Prepares the services on a listening socket that does not block.
    ///
    /// # Errors
    /// When it is not on loopback.
    pub fn new(
        listener: std::net::TcpListener,
        keys: Keys,
        catalog: &Catalog,
    ) -> Result<Self, EtcdError> {
        let address = listener.local_addr()?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(EtcdError::NotLoopback(address));
        }
        let listener = TcpListener::from_std(listener)?;
        let (stop, stopped) = watch::channel(false);
        let service = Service {
            keys,
            id: catalog.position().epoch.max(1),
            name: catalog.settings().node.to_string(),
            address,
            stop: stopped,
        };
        Ok(Self { listener, address, routes: service.routes(), stop })
    }

    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then ends all streams and waits for the connections to close, at most
    /// five seconds. Leases are left alone: their holders will be back.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, address, routes, stop } = self;
        tracing::info!(%address, "etcd listener is open");
        let slots = Arc::new(Semaphore::new(limits::MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut acceptor = Acceptor::new(listener);
        let mut shutdown = pin!(shutdown);
        loop {
            let next = async {
                // A slot first: while there is none, connections wait in the kernel's queue.
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                let (tcp, peer) = acceptor.accept().await;
                Some((tcp, peer, slot))
            };
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                Some((tcp, peer, slot)) = next => {
                    connections.spawn(connection(tcp, peer, slot, routes.clone(), stop.subscribe()));
                }
            }
        }
        drop(acceptor);
        stop.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(limits::SHUTDOWN_GRACE, ended).await.is_err() {
            tracing::warn!("some connections of etcd clients did not end in time and are cut");
        }
    }
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    _slot: OwnedSemaphorePermit,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| routes.clone().call(request));
    let served = http2_settings().serve_connection(TokioIo::new(tcp), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopping(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection of an etcd client broke");
    }
}

async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which says stop as well.
    let _gone = stop.wait_for(|stop| *stop).await;
}

fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::MAX_STREAMS)
        .max_header_list_size(limits::MAX_HEADER_LIST_BYTES)
        .max_send_buf_size(limits::MAX_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(limits::MAX_PENDING_RESETS)
        .max_local_error_reset_streams(limits::MAX_LOCAL_RESETS)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits::PING_INTERVAL)
        .keep_alive_timeout(limits::PING_TIMEOUT);
    settings
}
