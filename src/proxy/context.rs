//! What all connections of one worker share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoints;
use super::settings::Plan;
use crate::agent;
use crate::model::Snapshot;
use crate::net::limits;
use crate::net::rng::Rng;
use crate::telemetry::ProxyMetrics;
use crate::tls::Identity;
use crate::tunnel::pool::Pool;

/// See the module.
pub(super) struct Context {
    pub(super) plan: Arc<Plan>,
    pub(super) agent: agent::Handle,
    pub(super) metrics: ProxyMetrics,
    pub(super) pool: Rc<Pool>,
    pub(super) endpoints: Endpoints,
    pub(super) rng: RefCell<Rng>,
    connections: Cell<usize>,
}

impl Context {
    pub(super) fn new(plan: Arc<Plan>, agent: agent::Handle, metrics: ProxyMetrics) -> Self {
        Self {
            plan,
            agent,
            metrics,
            pool: Rc::new(Pool::default()),
            endpoints: Endpoints::default(),
            rng: RefCell::new(Rng::new()),
            connections: Cell::new(0),
        }
    }

    /// The configuration now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.agent.snapshot.load_full()
    }

    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.agent.identity.borrow().clone()
    }

    /// The identity, once there is one and a first configuration: a connection that arrives during
    /// start-up waits, but not for ever.
    pub(super) async fn ready(&self) -> Option<Arc<Identity>> {
        if let Some(identity) = self.ready_now() {
            return Some(identity);
        }
        tokio::time::timeout(limits::FIRST_CONFIG, self.becomes_ready()).await.ok().flatten()
    }

    fn ready_now(&self) -> Option<Arc<Identity>> {
        if self.agent.status.borrow().synced { self.identity() } else { None }
    }

    async fn becomes_ready(&self) -> Option<Arc<Identity>> {
        let mut status = self.agent.status.clone();
        let mut identity = self.agent.identity.clone();
        // An error means that the agent is gone, and with it all hope.
        status.wait_for(|status| status.synced).await.ok()?;
        identity.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Room for one more connection, or `None` at the limit.
    pub(super) fn admit(self: &Rc<Self>) -> Option<Admission> {
        if self.connections.get() >= limits::CONNECTIONS {
            return None;
        }
        self.connections.set(self.connections.get() + 1);
        Some(Admission(Rc::clone(self)))
    }

    pub(super) fn local_dial_limit(&self) -> Duration {
        self.plan.app.connect_timeout
    }
}

/// A connection's place under the limit.
pub(super) struct Admission(Rc<Context>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
    }
}
