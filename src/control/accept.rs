//! The gRPC port: accepts, shakes hands, and runs HTTP/2 on each connection with hard limits.
//!
//! Accepting survives everything: it waits when there are too many connections, and one connection's
//! fault ends that one only.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tower_service::Service as _;

use super::answers::{Call, Tell};
use super::peer::{Peer, Proven};
use super::{limits, stopping};
use crate::model::{Bans, Reason};
use crate::net::accept::Acceptor;
use crate::net::http2;
use crate::tls::{self, TlsError};

/// Everything a connection needs.
#[derive(Clone)]
pub(super) struct Port {
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    pub routes: Routes,
    pub stop: watch::Receiver<bool>,
    pub max_connections: usize,
    pub bans: watch::Receiver<Arc<Bans>>,
    pub tell: Option<Tell>,
    /// Hears why a handshake failed.
    pub refused: Option<Refused>,
}

pub(super) type Refused = Arc<dyn Fn(Reason) + Send + Sync>;

/// Why a connection never carried a request.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the TLS handshake did not finish within {:?}", limits::HANDSHAKE_TIMEOUT)]
    Timeout,
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("the certificate cannot be used: {0}")]
    Identity(#[from] TlsError),
}

impl Port {
    /// Accepts until `stop`, then lets the connections end within the grace.
    pub(super) async fn run(mut self, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(self.max_connections));
        let mut connections = JoinSet::new();
        let mut acceptor = Acceptor::new(listener);
        loop {
            let next = async {
                // A slot first: while there is none, connections wait in the kernel's queue.
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                let (tcp, address) = acceptor.accept().await;
                Some((tcp, address, slot))
            };
            tokio::select! {
                () = stopping(&mut self.stop) => break,
                Some(_) = connections.join_next() => {}
                Some((tcp, address, slot)) = next => {
                    connections.spawn(self.clone().connection(tcp, address, slot));
                }
            }
        }
        drop(acceptor);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(limits::SHUTDOWN_GRACE, ended).await.is_err() {
            tracing::warn!("some gRPC connections did not end in time and are cut");
        }
    }

    async fn connection(self, tcp: TcpStream, address: SocketAddr, _slot: OwnedSemaphorePermit) {
        match self.handshake(tcp, address).await {
            Ok((stream, peer)) => self.http(stream, peer).await,
            Err(error) => self.refuse(address, &error),
        }
    }

    /// Says why a connection carries no request; the other end learns nothing of it.
    fn refuse(&self, peer: SocketAddr, error: &HandshakeError) {
        let tls = if let HandshakeError::Tls(fault) = error { Some(fault) } else { None };
        let reason = tls.map_or(Reason::TlsHandshake, tls::reason_of_io);
        match tls.and_then(tls::rejection_of_io) {
            Some(why) => tracing::info!(%peer, %reason, %why, "refused a certificate over gRPC"),
            None => tracing::debug!(%peer, %error, "no gRPC connection"),
        }
        if let Some(refused) = &self.refused {
            refused(reason);
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Peer), HandshakeError> {
        let acceptor = TlsAcceptor::from(self.tls.borrow().clone());
        let stream = timeout(limits::HANDSHAKE_TIMEOUT, acceptor.accept(tcp))
            .await
            .map_err(|_| HandshakeError::Timeout)?
            .map_err(HandshakeError::Tls)?;
        let certificate = stream.get_ref().1.peer_certificates();
        let certificate = certificate.map(|chain| tls::peer(Some(chain))).transpose()?;
        Ok((stream, Peer { address, certificate }))
    }

    async fn http(mut self, stream: TlsStream<TcpStream>, peer: Peer) {
        let (address, routes, tell) = (peer.address, self.routes, self.tell);
        let banned = banned(self.bans, peer.certificate.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let call = Call::new(request.uri().path(), tell.clone());
            let answer = routes.clone().call(request);
            async move { answer.await.map(|answer| call.watch(answer)) }
        });
        let connection = http2::server(&limits::HTTP2).serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = banned => {
                tracing::warn!(target: "weft::audit", peer = %address, "cut a gRPC connection: the peer is banned");
                return;
            }
            () = stopping(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %address, %error, "gRPC connection broke");
        }
    }
}

/// Waits until whoever is at the other end is banned.
async fn banned(mut bans: watch::Receiver<Arc<Bans>>, peer: Option<Proven>) {
    let Some(Proven { id, serial, .. }) = peer else { return std::future::pending().await };
    if bans.wait_for(|bans| bans.find(&id, &serial).is_some()).await.is_err() {
        std::future::pending::<()>().await; // the catalog is gone, and this server with it
    }
}
