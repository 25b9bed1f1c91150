//! The listener: HTTP/2, in plain text on loopback, elsewhere over TLS between those who have certificates.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tower_service::Service as _;

use super::limits;
use super::service::Service;
use super::shell::Keys;
use crate::catalog::Catalog;
use crate::net::accept::{Acceptor, TlsSource};
use crate::net::http2;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error(
        "the etcd port in plain text listens on loopback only, not on {0}; let it speak TLS and ask its \
         clients for certificates with --etcd-cert-file, --etcd-key-file and --etcd-client-ca-file"
    )]
    NotLoopback(SocketAddr),
    #[error("the port for etcd clients cannot be used: {0}")]
    Listen(#[from] io::Error),
}

/// A listener that does not accept yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsSource>,
    routes: Routes,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Prepares the services on a listening socket that does not block. The settings of `tls`, if there
    /// are any, ask every client for a certificate: here nothing else says who calls.
    ///
    /// # Errors
    /// When plain text would leave this machine.
    pub fn new(
        listener: std::net::TcpListener,
        tls: Option<TlsSource>,
        keys: Keys,
        catalog: &Catalog,
    ) -> Result<Self, EtcdError> {
        let address = listener.local_addr()?;
        if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(EtcdError::NotLoopback(address));
        }
        let listener = TcpListener::from_std(listener)?;
        let (stop, stopped) = watch::channel(false);
        let service = Service {
            keys,
            id: catalog.position().epoch.max(1),
            name: catalog.settings().node.to_string(),
            url: url(address, tls.is_some(), &catalog.settings().node_address),
            stop: stopped,
        };
        Ok(Self { listener, address, tls, routes: service.routes(), stop })
    }

    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then ends all streams and waits for the connections to close, at most
    /// five seconds. Leases are left alone: their holders will be back.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, address, tls, routes, stop } = self;
        tracing::info!(%address, tls = tls.is_some(), "etcd listener is open");
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
                    // The settings of the moment: files may have changed since the last one came.
                    let tls = tls.as_ref().map(|source| source());
                    let (routes, stop) = (routes.clone(), stop.subscribe());
                    connections.spawn(async move {
                        let _held = slot;
                        connection(tcp, tls, peer, routes, stop).await;
                    });
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

/// How clients find this server: a member without an address of its own says that of the node.
fn url(address: SocketAddr, tls: bool, node_address: &str) -> String {
    let scheme = if tls { "https" } else { "http" };
    match (address.ip().is_unspecified(), node_address.parse::<IpAddr>()) {
        (false, _) => format!("{scheme}://{address}"),
        (true, Ok(ip)) => format!("{scheme}://{}", SocketAddr::new(ip, address.port())),
        (true, Err(_)) => format!("{scheme}://{node_address}:{}", address.port()),
    }
}

async fn connection(
    tcp: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    peer: SocketAddr,
    routes: Routes,
    stop: watch::Receiver<bool>,
) {
    let Some(config) = tls else { return serve(tcp, peer, routes, stop).await };
    let handshake = TlsAcceptor::from(config).accept(tcp);
    match timeout(limits::HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => serve(stream, peer, routes, stop).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with an etcd client"),
        Err(_) => tracing::debug!(%peer, "an etcd client did not finish TLS in time"),
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: SocketAddr,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| routes.clone().call(request));
    let served = http2::server(&limits::HTTP2).serve_connection(TokioIo::new(stream), service);
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
