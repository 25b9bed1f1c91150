//! What all connections of one worker share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admission::{Limit, Place};
use super::budget::Budget;
use super::endpoint::Endpoints;
use super::guard::{Guard, Guarded};
use super::reports::Reports;
use super::route::Route;
use super::settings::Plan;
use crate::agent;
use crate::model::Snapshot;
use crate::net::limits;
use crate::net::rng::Rng;
use crate::telemetry::ProxyMetrics;
use crate::tls::Identity;
use crate::tunnel::Lane;
use crate::tunnel::pool::Pool;

/// While a limit is reached, the log says so this often.
const LIMIT_LOGGED_EVERY: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Context {
    pub(super) plan: Arc<Plan>,
    pub(super) agent: agent::Handle,
    pub(super) metrics: ProxyMetrics,
    pub(super) pool: Rc<Pool>,
    pub(super) guard: Rc<Guard>,
    pub(super) rng: RefCell<Rng>,
    pub(super) reports: Rc<Reports>,
    /// In the order of the routes.
    upstreams: Vec<Upstream>,
    limit_logged: Cell<Option<Instant>>,
}

/// What this worker keeps of one upstream.
pub(super) struct Upstream {
    pub(super) endpoints: Endpoints,
    pub(super) retries: RefCell<Budget>,
}

impl Context {
    pub(super) fn new(plan: Arc<Plan>, agent: agent::Handle, metrics: ProxyMetrics) -> Self {
        let upstream = |_: &Route| Upstream {
            endpoints: Endpoints::default(),
            retries: RefCell::new(Budget::new(Instant::now())),
        };
        Self {
            upstreams: plan.routes.iter().map(upstream).collect(),
            plan,
            reports: Rc::new(Reports::new(agent.edges.clone())),
            agent,
            metrics,
            pool: Rc::new(Pool::default()),
            guard: Rc::default(),
            rng: RefCell::new(Rng::new()),
            limit_logged: Cell::new(None),
        }
    }

    /// Watches over a new tunnel connection; one whose peer is banned ends at once.
    pub(super) fn guarded(&self, lane: &Lane) -> Guarded {
        self.guard.admit(lane, &self.snapshot().bans)
    }

    pub(super) fn upstream(&self, route: &Route) -> &Upstream {
        &self.upstreams[route.index]
    }

    /// Forgets the endpoints that have left.
    pub(super) fn forget_endpoints(&self, snapshot: &Snapshot) {
        for (route, upstream) in self.plan.routes.iter().zip(&self.upstreams) {
            let view = snapshot.services.get(&route.destination);
            let is_known = |id: &_| view.is_some_and(|view| view.endpoints.contains_key(id));
            upstream.endpoints.retain(is_known);
            route.outliers.retain(is_known);
            self.show_ejected(route);
        }
    }

    /// Brings the metric of endpoints that are out up to date.
    pub(super) fn show_ejected(&self, route: &Route) {
        let now = Instant::now();
        let same = self.plan.routes.iter().filter(|other| other.destination == route.destination);
        let count = same.map(|route| route.outliers.ejected(now)).sum();
        self.metrics.endpoints(route.destination.as_str(), "ejected", count);
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

    /// A place for one more connection of the application, or `None` at a limit, which is counted.
    pub(super) fn admit(&self) -> Option<Place> {
        self.admitted(self.plan.admission.connection())
    }

    /// What was asked of the admission; a refusal is counted.
    pub(super) fn admitted(&self, place: Result<Place, Limit>) -> Option<Place> {
        place.inspect_err(|limit| self.limit_reached(limit)).ok()
    }

    /// Counts a limit that was reached, and says so now and then.
    pub(super) fn limit_reached(&self, limit: Limit) {
        self.metrics.limit_reached(limit);
        let now = Instant::now();
        let logged = self.limit_logged.get();
        if logged.is_none_or(|at| now.saturating_duration_since(at) >= LIMIT_LOGGED_EVERY) {
            self.limit_logged.set(Some(now));
            tracing::warn!(
                limit,
                "a limit is reached: refusing what is beyond it; docs/limits.md says more"
            );
        }
    }

    pub(super) fn local_dial_limit(&self) -> Duration {
        self.plan.app.connect_timeout
    }
}
