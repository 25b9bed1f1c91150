//! The data plane of one sidecar: takes the application's connections to its upstreams, and peers'
//! connections to the application.
//!
//! `app` starts it. Each worker is one thread with its own runtime, lanes and balancer; all share the
//! listening sockets, and a connection stays on the worker that accepted it. Configuration reaches a
//! worker as the agent's immutable snapshot. Nothing reaches an application before TLS and
//! authorization have passed.

mod balance;
mod connection;
mod context;
mod dial;
mod endpoint;
mod inbound;
mod outbound;
mod settings;
mod worker;

pub use settings::{LocalApp, Settings, Upstream};

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::agent;
use crate::net::drain;
use crate::telemetry::ProxyMetrics;

/// What is left after the grace is closed within this time.
const CLOSING: Duration = Duration::from_secs(1);

/// A running data plane.
pub struct Proxy {
    inbound: drain::Trigger,
    outbound: drain::Trigger,
    stop: watch::Sender<bool>,
    ended: Vec<oneshot::Receiver<()>>,
}

impl Proxy {
    /// Starts the workers; the listeners accept from now on.
    ///
    /// # Errors
    /// When a socket or a thread cannot be had.
    pub fn start(settings: Settings, agent: &agent::Handle, metrics: &ProxyMetrics) -> io::Result<Self> {
        let (inbound, outbound) = (drain::new(), drain::new());
        let (stop, stopped) = watch::channel(false);
        let workers = settings.workers.max(1);
        let (plan, listeners) = settings.split();
        let plan = std::sync::Arc::new(plan);
        let mut ended = Vec::new();
        for number in 0..workers {
            let (done, end) = oneshot::channel();
            let parts = worker::Parts {
                plan: std::sync::Arc::clone(&plan),
                listeners: listeners.share()?,
                agent: agent.clone(),
                metrics: metrics.clone(),
                inbound: inbound.watcher(),
                outbound: outbound.watcher(),
                stopped: stopped.clone(),
            };
            std::thread::Builder::new().name(format!("weft-data-{number}")).spawn(move || {
                if let Err(error) = worker::run(parts) {
                    tracing::error!(%error, "a data worker could not run");
                }
                // Nobody listens any more when the process is about to end anyway.
                let _unheard = done.send(());
            })?;
            ended.push(end);
        }
        Ok(Self { inbound, outbound, stop, ended })
    }

    /// Drains inbound first, so that the application can finish its own calls, then outbound; each
    /// has until `grace` is over. Says whether every stream ended by itself.
    pub async fn drain(self, grace: Duration) -> bool {
        self.drain_around(grace, std::future::ready(())).await
    }

    /// As [`Self::drain`], with `between` after the inbound side has drained and before the outbound
    /// side does.
    pub async fn drain_around(self, grace: Duration, between: impl Future<Output = ()>) -> bool {
        let started = tokio::time::Instant::now();
        let inbound = self.inbound.finish(grace, CLOSING).await;
        between.await;
        let left = grace.saturating_sub(started.elapsed());
        let outbound = self.outbound.finish(left, CLOSING).await;
        stop_workers(&self.stop, self.ended).await;
        inbound && outbound
    }

    /// Stops without draining, as a crash would; every socket is closed when it returns.
    pub async fn kill(self) {
        stop_workers(&self.stop, self.ended).await;
    }

    /// Waits until a worker has died, which none does by itself: a fault that ends the process.
    pub async fn worker_died(&mut self) {
        let ended = self.ended.iter_mut();
        let _which = futures_util::future::select_all(ended).await;
    }
}

async fn stop_workers(stop: &watch::Sender<bool>, ended: Vec<oneshot::Receiver<()>>) {
    stop.send_replace(true);
    for end in ended {
        // A worker that died has dropped its end; it is just as gone.
        let _gone = end.await;
    }
}

/// The listening sockets of one worker.
struct Listeners {
    inbound: Option<TcpListener>,
    upstreams: Vec<TcpListener>,
}
