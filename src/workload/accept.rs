//! The socket: accepts, asks the kernel who is there, and runs HTTP/2 on each connection with hard limits.
//!
//! Accepting survives everything: one connection's fault ends that one only, and users who are not on the
//! list cannot take the places of those who are.

use std::io;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::service::Routes;
use tower_service::Service as _;

use super::authority::Filter;
use super::caller::Caller;
use super::{limits, stopping};
use crate::net::http2;
use crate::net::local::LocalListener;
use crate::net::seats::{Seat, Seats};

/// Everything a connection needs.
pub(super) struct Port {
    pub routes: Routes,
    pub uids: Vec<u32>,
    pub stop: watch::Receiver<bool>,
}

impl Port {
    /// Accepts until `stop`, removes the socket, and lets the connections end within the grace.
    pub(super) async fn run(mut self, socket: LocalListener) {
        let (listed, strangers) =
            (Seats::new(limits::MAX_CONNECTIONS), Seats::new(limits::MAX_STRANGERS));
        let mut connections = JoinSet::new();
        let mut complained = None;
        loop {
            let accepted = tokio::select! {
                () = stopping(&mut self.stop) => break,
                Some(_) = connections.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            let (stream, caller) = match accepted {
                Ok((stream, process)) => (stream, Caller::new(process, &self.uids)),
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            if !caller.listed {
                complain(caller, &mut complained);
            }
            let seats = if caller.listed { &listed } else { &strangers };
            match seats.take() {
                Some(seat) => {
                    let (routes, stop) = (self.routes.clone(), self.stop.clone());
                    connections.spawn(connection(stream, caller, routes, stop, seat));
                }
                None => tracing::debug!(?caller, "too many connections to the workload socket"),
            }
        }
        drop(socket);
        let ended = async { while connections.join_next().await.is_some() {} };
        // Whoever does not let go is cut when the connections are dropped.
        let _cut = timeout(limits::STOP_GRACE, ended).await;
    }
}

/// Running out of descriptors or memory passes; everything else concerns the connection that failed.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "a workload's connection was not accepted");
    sleep(limits::ACCEPT_PAUSE).await;
}

fn complain(caller: Caller, last: &mut Option<Instant>) {
    if last.is_none_or(|last| last.elapsed() >= limits::COMPLAIN_EVERY) {
        *last = Some(Instant::now());
        let Caller { uid, pid, .. } = caller;
        tracing::warn!(uid, pid, "a user who is not on the list asks for an identity; refused");
    }
}

async fn connection(
    stream: UnixStream,
    caller: Caller,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
    _seat: Seat,
) {
    let filtered = match timeout(limits::PREFACE_TIMEOUT, Filter::accept(stream)).await {
        Ok(Ok(filtered)) => filtered,
        Ok(Err(error)) => return tracing::debug!(?caller, %error, "no connection of a workload"),
        Err(_) => return tracing::debug!(?caller, "a workload's connection said nothing in time"),
    };
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        routes.clone().call(request)
    });
    let connection = http2::server(&limits::HTTP2).serve_connection(TokioIo::new(filtered), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(?caller, %error, "a workload's connection broke");
    }
}
