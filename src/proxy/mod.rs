//! The data plane of one sidecar: takes the application's connections to its upstreams, and peers'
//! connections to the application.
//!
//! `app` starts it. Each worker is one thread with its own runtime, lanes and balancer; all share the
//! listening sockets, and a connection stays on the worker that accepted it. Configuration reaches a
//! worker as the agent's immutable snapshot. Nothing reaches an application before TLS and
//! authorization have passed.

mod admission;
mod balance;
mod budget;
mod connection;
mod context;
mod dial;
mod endpoint;
mod guard;
mod inbound;
mod lobby;
mod outbound;
mod outlier;
mod passive;
mod reports;
mod route;
mod settings;
mod worker;

pub use settings::{LocalApp, Settings, Upstream};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::agent;
use crate::net::drain;
use crate::telemetry::ProxyMetrics;
use crate::tunnel::flow;

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
        flow::bound_growth(settings.capacity.window_growth);
        let (plan, listeners) = settings.split();
        let plan = Arc::new(plan);
        let mut ended = Vec::new();
        for number in 0..workers {
            let (done, end) = oneshot::channel();
            let parts = worker::Parts {
                number,
                plan: Arc::clone(&plan),
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

    /// Takes nothing new on either side, because a successor does; what runs goes on.
    pub fn stop_accepting(&self) {
        self.inbound.begin();
        self.outbound.begin();
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
        if self.ended.is_empty() {
            return; // the last one was the one that died before
        }
        let (_, dead, _) = futures_util::future::select_all(&mut self.ended).await;
        self.ended.swap_remove(dead); // nobody may wait for it again
    }
}

async fn stop_workers(stop: &watch::Sender<bool>, ended: Vec<oneshot::Receiver<()>>) {
    stop.send_replace(true);
    for end in ended {
        // A worker that died has dropped its end; it is just as gone.
        let _gone = end.await;
    }
}

#[cfg(test)]
#[path = "tests/impostors.rs"]
mod impostors;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_worker_died_the_rest_can_still_drain() {
        let (inbound, outbound) = (drain::new(), drain::new());
        let (stop, _stopped) = watch::channel(false);
        let (dead, first) = oneshot::channel();
        let (alive, second) = oneshot::channel();
        let mut proxy = Proxy { inbound, outbound, stop, ended: vec![first, second] };
        drop(dead);
        proxy.worker_died().await;
        alive.send(()).unwrap();
        assert!(proxy.drain(Duration::from_secs(1)).await);
    }
}
