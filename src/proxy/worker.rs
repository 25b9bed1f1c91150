//! One worker: a thread with a single-threaded runtime that serves its share of the connections.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::context::Context;
use super::settings::{Listeners, Plan};
use super::{inbound, outbound};
use crate::agent;
use crate::model::{Endpoint, Snapshot};
use crate::net::drain::Watcher;
use crate::net::memory;
use crate::telemetry::ProxyMetrics;
use crate::tunnel;
use crate::tunnel::pool::Key;

/// How often a worker looks for what it can forget, and for buffers that nobody used since.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// What a worker thread is started with.
pub(super) struct Parts {
    /// Counted from zero.
    pub(super) number: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) listeners: Listeners,
    pub(super) agent: agent::Handle,
    pub(super) metrics: ProxyMetrics,
    pub(super) inbound: Watcher,
    pub(super) outbound: Watcher,
    pub(super) stopped: watch::Receiver<bool>,
}

/// Runs until `stopped`, or until a fault ended one of the tasks that everything hangs on.
pub(super) fn run(parts: Parts) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(parts))
}

async fn serve(parts: Parts) -> io::Result<()> {
    let Parts { number, plan, listeners, agent, metrics, inbound, outbound, mut stopped } = parts;
    let ctx = Rc::new(Context::new(plan, agent, metrics));
    let mut tasks = JoinSet::new();
    if number == 0 {
        let plan = Arc::clone(&ctx.plan);
        tasks.spawn_local(memory::give_back_after_crowds(move || plan.admission.held()));
    }
    match listeners.inbound {
        Some(listener) => {
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn_local(inbound::serve(Rc::clone(&ctx), listener, inbound));
        }
        None => drop(inbound), // the drain shall not wait for it
    }
    for (index, listener) in listeners.upstreams.into_iter().enumerate() {
        let listener = TcpListener::from_std(listener)?;
        let serve = outbound::serve(Rc::clone(&ctx), index, listener, outbound.clone());
        tasks.spawn_local(serve);
    }
    drop(outbound); // the serving tasks hold theirs; the drain waits for them alone
    let reports = Rc::clone(&ctx.reports);
    tasks.spawn_local(async move { reports.run().await });
    tasks.spawn_local(keep_house(ctx));
    loop {
        tokio::select! {
            // An error means that the handle is gone, which says stop as well.
            _stop = stopped.wait_for(|stop| *stop) => return Ok(()),
            // Those that serve end when the drain begins. One that panicked would leave a port open
            // that nobody serves.
            Some(ended) = tasks.join_next() => ended.map_err(io::Error::other)?,
        }
    }
}

/// Cuts connections of peers that are banned, retires lanes of older identities and to endpoints that
/// left, and forgets the latter, at once: one that comes back under the same id is another one.
async fn keep_house(ctx: Rc<Context>) {
    let (mut identity, mut changes) = (ctx.agent.identity.clone(), ctx.agent.changes.clone());
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    let mut bans = Arc::default();
    loop {
        let changed = tokio::select! {
            changed = identity.changed() => changed,
            changed = changes.changed() => changed,
            _ = tick.tick() => {
                tunnel::release_buffers();
                Ok(())
            }
        };
        if changed.is_err() {
            return;
        }
        let snapshot = ctx.snapshot();
        if !Arc::ptr_eq(&bans, &snapshot.bans) {
            bans = Arc::clone(&snapshot.bans);
            ctx.guard.enforce(&bans);
        }
        let Some(generation) = identity.borrow_and_update().as_ref().map(|held| held.generation())
        else {
            continue;
        };
        ctx.pool.retire_unless(|key| key.generation == generation && is_known(&snapshot, key));
        ctx.forget_endpoints(&snapshot);
    }
}

/// Whether some endpoint of the lane's service is still at its address. A host name may stand for any
/// address.
fn is_known(snapshot: &Snapshot, key: &Key) -> bool {
    let at_its_address = |endpoint: &Endpoint| {
        let ip = endpoint.host.parse::<IpAddr>();
        endpoint.port == key.address.port() && ip.map_or(true, |ip| ip == key.address.ip())
    };
    let view = snapshot.services.get(&key.service);
    view.is_some_and(|view| view.endpoints.values().any(|state| at_its_address(&state.endpoint)))
}
