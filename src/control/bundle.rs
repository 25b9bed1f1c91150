//! The bundle endpoint: what other trust domains need to believe this one (SPIFFE Federation, profile
//! `https_spiffe`).
//!
//! TLS 1.3 with the server's own SVID, no client certificates, and one document. Everything in it is
//! public; every connection is short.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{limits, stopping};
use crate::ca::Ca;
use crate::net::accept::Acceptor;
use crate::net::seats::{Seat, Seats};

/// Where the document is; also at the root, for short addresses.
const PATH: &str = "/.well-known/spiffe/bundle.json";

/// Everything a connection needs.
#[derive(Clone)]
pub(super) struct BundlePort {
    pub tls: watch::Receiver<Arc<ServerConfig>>,
    pub ca: Ca,
    pub stop: watch::Receiver<bool>,
}

impl BundlePort {
    /// Accepts until `stop`.
    pub(super) async fn run(mut self, listener: TcpListener) {
        let seats = Seats::new(limits::MAX_BUNDLE_CONNECTIONS);
        let mut connections = JoinSet::new();
        let mut acceptor = Acceptor::new(listener);
        loop {
            tokio::select! {
                () = stopping(&mut self.stop) => return,
                Some(_) = connections.join_next() => {}
                (tcp, address) = acceptor.accept() => match seats.take() {
                    Some(seat) => {
                        connections.spawn(self.clone().connection(tcp, seat));
                    }
                    None => tracing::debug!(peer = %address, "too many connections for the bundle"),
                },
            }
        }
    }

    async fn connection(self, tcp: TcpStream, _seat: Seat) {
        let acceptor = TlsAcceptor::from(self.tls.borrow().clone());
        let Ok(Ok(stream)) = timeout(limits::HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await else {
            return; // whoever it was learnt nothing, and will say so where it is read
        };
        let service = service_fn(|request| std::future::ready(self.answer(&request)));
        let mut settings = http1::Builder::new();
        settings
            .timer(TokioTimer::new())
            .header_read_timeout(limits::BUNDLE_HEADER_TIMEOUT)
            .max_buf_size(limits::BUNDLE_BUFFER_BYTES);
        let served = settings.serve_connection(TokioIo::new(stream), service);
        // A connection that breaks or lasts too long takes nothing with it.
        let _ended = timeout(limits::BUNDLE_CONNECTION_TIMEOUT, served).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, body) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/" | PATH) => (StatusCode::OK, self.ca.spiffe_bundle()),
            (_, "/" | PATH) => (StatusCode::METHOD_NOT_ALLOWED, error("use GET")),
            _ => (StatusCode::NOT_FOUND, error(&format!("the bundle is at {PATH}"))),
        };
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        Ok(response)
    }
}

fn error(what: &str) -> serde_json::Value {
    serde_json::json!({ "error": what })
}
