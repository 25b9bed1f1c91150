//! The admin endpoint: health and metrics over plain HTTP, for probes and Prometheus.
//!
//! Its own routes only read (GET and HEAD), belongs on loopback, and is guarded against clients that are slow or
//! many: the mesh must not be hurt by whoever can reach this port.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::metrics;
use super::readiness::Readiness;
use crate::net::accept::Acceptor;

/// Connections served at a time; further ones wait in the kernel's backlog. Probes and scrapers need a
/// handful.
const MAX_CONNECTIONS: usize = 64;
/// A client must send a whole request head within this time, also on a connection kept alive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is asked to end after this time, so that a client that never reads cannot keep it.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(60);
/// The first request of a client that has just connected may take this long to arrive when we end:
/// without an answer the client would take us for broken.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Responses under way get this long when a connection has to end.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const LISTING: &str = "\
GET /health/live     200 while the process runs
GET /health/ready    200 when traffic is served, 503 with what is missing otherwise
GET /health/startup  200 once start-up has finished
GET /metrics         OpenMetrics
";

/// The routes. A caller may merge its own, such as a dump of its configuration.
pub fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    let health = Router::new()
        .route("/health/ready", get(ready))
        .route("/health/startup", get(startup))
        .with_state(readiness);
    Router::new()
        .route("/", get(async || LISTING))
        .route("/health/live", get(live))
        .route("/metrics", get(scrape))
        .with_state(registry)
        .merge(health)
}

async fn live() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "alive" }))
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    if readiness.is_draining() {
        return json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
    }
    if missing.is_empty() {
        return json_response(StatusCode::OK, &json!({ "status": "ready" }));
    }
    let body = json!({ "status": "not_ready", "missing": missing });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

async fn startup(State(readiness): State<Readiness>) -> Response {
    if readiness.started() {
        return json_response(StatusCode::OK, &json!({ "status": "started" }));
    }
    let body = json!({ "status": "starting", "missing": readiness.missing() });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::encode(&registry)).into_response()
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

/// Serves until `shutdown` resolves, then gives responses under way a short time.
pub async fn serve(listeners: Vec<TcpListener>, router: Router, shutdown: impl Future<Output = ()>) {
    let (closing, watch_closing) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let loops = listeners.into_iter().map(|listener| {
        accept_loop(listener, router.clone(), Arc::clone(&permits), watch_closing.clone())
    });
    let stop = async {
        shutdown.await;
        closing.send_replace(true);
    };
    tokio::join!(join_all(loops), stop);
}

async fn accept_loop(
    listener: TcpListener,
    router: Router,
    permits: Arc<Semaphore>,
    mut closing: watch::Receiver<bool>,
) {
    let mut acceptor = Acceptor::new(listener);
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed, so a permit always comes.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, acceptor.accept().await)
        };
        let (permit, (stream, _)) = tokio::select! {
            accepted = accepted => accepted,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        while connections.try_join_next().is_some() {}
        let (router, closing) = (router.clone(), closing.clone());
        connections.spawn(async move {
            let _permit = permit;
            serve_connection(stream, router, closing).await;
        });
    }
    drop(acceptor);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let heard = Instant::now() + FIRST_REQUEST;
    let ending = async {
        drop(closing.wait_for(|closing| *closing).await); // an error says the same
        sleep_until(heard).await;
    };
    tokio::select! {
        result = connection.as_mut() => return log_end(result),
        () = ending => {}
        () = sleep(MAX_CONNECTION_AGE) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(result) = timeout(CLOSE_GRACE, connection).await {
        log_end(result);
    }
}

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection ended early");
    }
}

#[cfg(test)]
mod tests;
