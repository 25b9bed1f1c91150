//! A proxy's end of the control stream: enrol, renew, sync, last-known-good.
//!
//! `proxy` starts it and reads its handle. Invariants: what was published stays until something newer
//! takes its place, whatever happens to the control plane; a state or certificate is checked before
//! it is published; keys live in memory only.

mod application;
mod connect;
mod convert;
mod credentials;
mod edges;
mod estate;
mod fault;
mod keeper;
mod link;
mod receiver;
mod renewal;
mod shared;
mod stream;
mod svid;

pub use application::{Application, MintError, Minted};
pub use estate::{Estate, Rest, Succession};
pub use svid::Svid;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::application::Supplier;
use self::credentials::Credentials;
use self::edges::Reporter;
use self::keeper::Keeper;
use self::link::{Link, Profile, Progress};
use self::receiver::Receiver;
use self::shared::{Life, Results, Role, Shared, keep_results};
use crate::model::{CheckReport, EndpointId, Reason, Registration, ServiceName, Snapshot};
use crate::tls::Identity;

/// Check results and edge counts that wait to be summed up.
const QUEUE: usize = 1024;
/// Random bytes that name this process.
const PROCESS_BYTES: usize = 16;

/// What an agent needs to know.
#[derive(Clone)]
pub struct Settings {
    /// `host:port` of control plane servers, tried in turn.
    pub servers: Vec<String>,
    /// Enrolment token; `None` only toward a dev server on loopback.
    pub token: Option<String>,
    pub service: ServiceName,
    /// The instance and its sidecar, with real ports.
    pub registrations: Vec<Registration>,
    pub upstreams: Vec<ServiceName>,
    /// Whether to get certificate and keys for the application, too.
    pub serves_workload: bool,
}

impl fmt::Debug for Settings {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("servers", &self.servers)
            .field("has_token", &self.token.is_some())
            .field("service", &self.service)
            .field("registrations", &self.registrations)
            .field("upstreams", &self.upstreams)
            .field("serves_workload", &self.serves_workload)
            .finish()
    }
}

/// A failure that retrying cannot mend, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    #[error("there is no control plane server to connect to; name one with --server")]
    NoServer,
    #[error("there is nothing to register; describe the service instance first")]
    NoInstance,
    #[error("no certificate: {0}")]
    Enrolment(String),
    #[error("the predecessor's certificate is of no use: {0}")]
    Inherited(String),
    #[error("the registration was refused: {0}")]
    Registration(String),
}

/// Where the agent stands; for readiness, metrics and logs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    pub connected: bool,
    pub registered: bool,
    /// A snapshot was applied at least once.
    pub synced: bool,
    /// States that were refused because they were older than the one in force.
    pub stale_refused: u64,
    /// Times that the control plane said that the configuration is current.
    pub heartbeats: u64,
    /// Resources that were refused one by one; the older ones stay in force.
    pub resources_refused: u64,
    /// Certificates got so far, and attempts that failed.
    pub certificates: u64,
    pub certificate_failures: u64,
    /// The last failure, in words, until the next success.
    pub last_error: Option<String>,
}

/// Connections of one edge, to be reported to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeCount {
    pub source: ServiceName,
    pub destination: ServiceName,
    pub reason: Reason,
    pub connections: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// What the rest of a proxy sees of its agent. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    /// Last-known-good configuration; never goes back to empty.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Changes after every applied batch.
    pub changes: watch::Receiver<u64>,
    /// The identity in use; `None` before enrolment. An expired one is replaced by nothing newer.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    pub status: watch::Receiver<Status>,
    /// What there is for the application.
    pub application: Application,
    /// Results of the checks that the proxy runs.
    pub checks: mpsc::Sender<CheckReport>,
    pub edges: mpsc::Sender<EdgeCount>,
}

/// A running agent. Dropping it is a crash as far as the control plane can see: the lease runs out.
pub struct Agent {
    pub handle: Handle,
    failure: mpsc::Receiver<AgentError>,
    life: watch::Sender<Life>,
    progress: watch::Receiver<Progress>,
    pub succession: Succession,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Starts the agent. It retries for ever; a refusal that no retry can mend (a bad token) ends up
    /// in `failed`. Must be called inside a Tokio runtime.
    #[must_use]
    pub fn start(settings: Settings) -> Self {
        let keeper = Keeper::new(settings.service.clone(), watch::Sender::new(None));
        Self::run(settings, keeper, random_name(), Results::new(), Role::Holder)
    }

    /// As [`Self::start`], as the successor of a process that still runs: with its certificate, and
    /// without touching the instance before [`Succession::claim`].
    ///
    /// # Errors
    /// When the certificate is not that of this service, or of no use any more.
    pub fn succeed(settings: Settings, estate: Estate) -> Result<Self, AgentError> {
        let keeper = Keeper::new(settings.service.clone(), watch::Sender::new(None));
        let Estate { process, chain, key, bundle, results } = estate;
        keeper
            .install(chain, key, bundle, SystemTime::now())
            .map_err(|fault| AgentError::Inherited(fault.to_string()))?;
        let known: BTreeSet<_> =
            settings.registrations.iter().flat_map(|one| &one.checks).map(|check| &check.id).collect();
        let results = results.into_iter().filter(|report| known.contains(&report.id));
        let results = results.map(|report| (report.id.clone(), report)).collect();
        Ok(Self::run(settings, keeper, process, results, Role::Observer))
    }

    fn run(settings: Settings, keeper: Keeper, process: Vec<u8>, known: Results, role: Role) -> Self {
        let keeper = Arc::new(keeper);
        let identity = keeper.watch();
        let (role_sink, role) = watch::channel(role);
        let (status_sink, status) = watch::channel(Status::default());
        let (changes_sink, changes) = watch::channel(0);
        let (life_sink, life) = watch::channel(Life::Running);
        let (progress_sink, progress) = watch::channel(Progress::default());
        let (channel_sink, channel) = watch::channel(None);
        let (supplier, for_application) = Supplier::new(channel.clone());
        let (results_sink, results) = watch::channel(known);
        let (checks, checks_source) = mpsc::channel(QUEUE);
        let (edges, edges_source) = mpsc::channel(QUEUE);
        let (failed, failure) = mpsc::channel(2);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let handle = Handle {
            snapshot: Arc::clone(&snapshot),
            changes,
            identity: identity.clone(),
            status,
            application: for_application,
            checks,
            edges,
        };
        let mut tasks = JoinSet::new();
        let succession = Succession {
            process: process.clone(),
            keeper: Arc::clone(&keeper),
            results: results.clone(),
            role: role_sink,
        };
        let agent =
            |tasks| Self { handle, failure, life: life_sink, progress, succession, _tasks: tasks };
        let Some(instance) = application(&settings) else {
            // The queue is empty and has room.
            let _taken = failed.try_send(missing(&settings));
            return agent(tasks);
        };

        let Settings { servers, token, service, registrations, upstreams, serves_workload } = settings;
        let shared = Arc::new(Shared::new(servers, status_sink));
        let checks = registrations.iter().flat_map(|one| &one.checks);
        let checks = checks.map(|check| check.id.clone()).collect();
        tasks.spawn(keep_results(checks, checks_source, results_sink));
        if serves_workload {
            tasks.spawn(supplier.run(Arc::clone(&shared), Arc::clone(&keeper)));
        }
        let reporter = Reporter { instance, identity, channel, life: life.clone() };
        tasks.spawn(reporter.run(edges_source));
        let credentials = Credentials::new(&shared, &keeper, &role, service, token);
        tasks.spawn(enrol(credentials, failed.clone()));
        let link = Link {
            profile: Profile { registrations, upstreams, process },
            receiver: Receiver::new(),
            registered: false,
            progress: progress_sink,
            changes: changes_sink,
            channel: channel_sink,
            shared,
            keeper,
            results,
            life,
            role,
            snapshot,
        };
        tasks.spawn(hold(link, failed));
        agent(tasks)
    }

    /// Waits for a failure that retrying cannot mend.
    pub async fn failed(&mut self) -> AgentError {
        match self.failure.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Tells the control plane that peers shall stop choosing this instance; waits for the
    /// acknowledgement at most `limit`.
    pub async fn drain(&self, limit: Duration) {
        self.advance(Life::Draining);
        self.wait(limit, |progress| progress.drained).await;
    }

    /// Deregisters and ends the stream, within `limit`. Without a connection it does not wait: the
    /// lease runs out.
    pub async fn stop(self, limit: Duration) {
        self.advance(Life::Leaving);
        self.wait(limit, |progress| progress.left).await;
    }

    fn advance(&self, to: Life) {
        self.life.send_if_modified(|life| {
            let further = *life < to;
            *life = to.max(*life);
            further
        });
    }

    async fn wait(&self, limit: Duration, reached: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.clone();
        // An error means that nobody will make progress any more.
        let waited = timeout(limit, progress.wait_for(reached)).await.map(drop);
        if waited.is_err() {
            tracing::warn!(?limit, "the control plane did not acknowledge in time");
        }
    }
}

/// Keeps a certificate, or says that there can be none.
async fn enrol(credentials: Credentials, failed: mpsc::Sender<AgentError>) {
    let fault = credentials.run().await;
    // Only the first failure is read.
    let _read = failed.try_send(AgentError::Enrolment(fault.to_string()));
}

/// Keeps the stream, or says that the instance is not wanted.
async fn hold(link: Link, failed: mpsc::Sender<AgentError>) {
    if let Err(fault) = link.run().await {
        // As above.
        let _read = failed.try_send(AgentError::Registration(fault.to_string()));
    }
}

/// The application instance that the sidecar stands before.
fn application(settings: &Settings) -> Option<EndpointId> {
    if settings.servers.is_empty() {
        return None;
    }
    let sidecar = settings.registrations.iter().find_map(|one| {
        let proxy = one.instance.proxy.as_ref()?;
        Some((&one.instance.node, &proxy.destination_id))
    });
    let first = settings.registrations.first().map(|one| (&one.instance.node, &one.instance.id));
    let (node, instance) = sidecar.or(first)?;
    Some(EndpointId { node: node.clone(), instance: instance.clone() })
}

fn missing(settings: &Settings) -> AgentError {
    if settings.servers.is_empty() { AgentError::NoServer } else { AgentError::NoInstance }
}

/// Empty without randomness; then no stream can take over from an earlier one, and has to wait.
fn random_name() -> Vec<u8> {
    let mut name = vec![0; PROCESS_BYTES];
    if aws_lc_rs::rand::fill(&mut name).is_err() {
        name.clear();
    }
    name
}
