//! One sidecar: agent, checks, data plane and admin endpoint of one service instance.
//!
//! Listeners bind before the first configuration; connections wait for it, bounded. The order of
//! leaving: not ready → peers stop choosing us → their knowledge spreads → inbound drains → outbound
//! drains → deregistered.

mod doors;
mod feed;
mod standby;
mod watch;

pub use doors::{Door, Doors, Purpose};
pub use standby::Standby;

use std::iter;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::upgrade::{Offer, Who};
use super::{AppError, ports};
use crate::agent::{self, Agent};
use crate::health::{Runner, Workload};
use crate::model::service::Upstream as DeclaredUpstream;
use crate::model::upstream::Weight;
use crate::model::{CheckReport, Definition, NodeName, Registration, ServiceName, UpstreamConfig};
use crate::net::capacity::Capacity;
use crate::net::limits;
use crate::proxy::{self, LocalApp, Proxy};
use crate::telemetry::Readiness;
use crate::workload;

/// How long the control plane may take to spread that we leave, and to deregister us.
const GOODBYE: Duration = Duration::from_secs(2);
/// A key of Consul's opaque settings that is a duration in milliseconds.
const LOCAL_CONNECT_TIMEOUT: &str = "local_connect_timeout_ms";
/// And one that is a number of connections.
const MAX_INBOUND: &str = "max_inbound_connections";

/// What a sidecar is told at start. Not printable: it holds the token.
#[derive(Clone)]
pub struct Settings {
    pub definition: Definition,
    pub servers: Vec<String>,
    pub token: Option<String>,
    pub node: NodeName,
    /// Where the inbound side listens.
    pub bind: IpAddr,
    /// What peers are told to dial; the bind address when `None`.
    pub advertise: Option<String>,
    pub inbound_port: Option<u16>,
    /// `None` for no admin endpoint.
    pub admin: Option<SocketAddr>,
    /// Where the application gets an identity of its own, if anywhere.
    pub workload: Option<workload::Settings>,
    pub workers: usize,
    /// Upstream ports that are taken move to the next free one.
    pub next_free_ports: bool,
    /// How long to keep accepting after peers were told to stop choosing us.
    pub drain_delay: Duration,
    /// How long open streams may take to finish.
    pub drain_grace: Duration,
}

/// Addresses a sidecar listens on.
#[derive(Debug, Clone)]
pub struct Bound {
    pub inbound: SocketAddr,
    pub upstreams: Vec<BoundUpstream>,
    pub admin: Option<SocketAddr>,
}

/// One upstream's local address.
#[derive(Debug, Clone)]
pub struct BoundUpstream {
    pub destination: ServiceName,
    pub address: SocketAddr,
    /// The declared port was taken.
    pub moved: bool,
}

/// A running sidecar. Dropping it kills it: nothing is drained, nobody is told.
pub struct Sidecar {
    bound: Bound,
    service: ServiceName,
    agent: Agent,
    proxy: Proxy,
    checks: Arc<Runner>,
    readiness: Readiness,
    settings: Settings,
    doors: Arc<Doors>,
    tasks: Tasks,
    admin: Option<Endpoint>,
    workload: Option<Endpoint>,
}

/// Something that is served beside the data plane; it ends with its owner.
struct Endpoint {
    /// Dropped to let it finish its answers.
    stop: oneshot::Sender<()>,
    serving: JoinSet<()>,
}

impl Endpoint {
    /// Starts what `serve` makes of the signal to stop.
    fn start<T: Future<Output = ()> + Send + 'static>(serve: impl FnOnce(Stopped) -> T) -> Self {
        let (stop, stopped) = oneshot::channel();
        let mut serving = JoinSet::new();
        serving.spawn(serve(Box::pin(async { drop(stopped.await) })));
        Self { stop, serving }
    }

    async fn finish(mut self) {
        drop(self.stop);
        // It bounds itself.
        let _ended = self.serving.join_next().await;
    }
}

type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks that end with their owner.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// The listening sockets of a sidecar, before anything runs.
struct Listeners {
    inbound: TcpListener,
    upstreams: Vec<proxy::Upstream>,
    admin: Option<TcpListener>,
    bound: Bound,
}

/// Waits until traffic can flow.
async fn ready(
    readiness: &Readiness,
    agent: &mut Agent,
    servers: &[String],
    limit: Duration,
) -> Result<(), AppError> {
    let status = agent.handle.status.clone();
    tokio::select! {
        () = readiness.ready() => Ok(()),
        error = agent.failed() => Err(error.into()),
        () = tokio::time::sleep(limit) => Err(AppError::Unreachable {
            servers: servers.join(", "),
            seconds: limit.as_secs(),
            cause: status.borrow().last_error.clone().unwrap_or_else(|| "no answer".to_owned()),
        }),
    }
}

impl Sidecar {
    /// Binds every port and starts everything. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a port cannot be bound or a thread not started; then nothing runs.
    pub fn start(settings: Settings) -> Result<Self, AppError> {
        Standby::start(settings, Doors::default(), None)?.open()
    }

    #[must_use]
    pub const fn bound(&self) -> &Bound {
        &self.bound
    }

    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Where its application gets an identity of its own.
    #[must_use]
    pub const fn workload(&self) -> Option<&workload::Settings> {
        self.settings.workload.as_ref()
    }

    #[must_use]
    pub const fn agent(&self) -> &agent::Handle {
        &self.agent.handle
    }

    #[must_use]
    pub fn checks(&self) -> &Runner {
        &self.checks
    }

    /// Waits until traffic can flow: certificate, registration and configuration are there.
    ///
    /// # Errors
    /// When the control plane refuses us for good, or cannot be reached within `limit`.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), AppError> {
        ready(&self.readiness, &mut self.agent, &self.settings.servers, limit).await
    }

    /// The predecessor has gone: the instance is this process's to hold from now on.
    pub fn claim(&self) {
        self.agent.succession.claim();
    }

    /// What a successor needs. To be dropped before the sidecar ends: it holds the ports open.
    #[must_use]
    pub fn offer(&self) -> Offer {
        Offer {
            who: who(&self.settings),
            doors: Arc::clone(&self.doors),
            succession: self.agent.succession.clone(),
        }
    }

    /// Waits for a fault that ends the sidecar; returns only then.
    pub async fn failed(&mut self) -> AppError {
        tokio::select! {
            error = self.agent.failed() => error.into(),
            () = self.proxy.worker_died() => AppError::Died("a data worker"),
        }
    }

    /// Stops being chosen: not ready, and every peer is told. The inbound side still works.
    pub async fn withdraw(&self) {
        self.readiness.drain();
        self.agent.drain(GOODBYE).await;
        tokio::time::sleep(self.settings.drain_delay).await;
    }

    /// Finishes what runs and leaves. Says whether every stream ended by itself.
    pub async fn finish(self) -> bool {
        self.finish_around(std::future::ready(())).await
    }

    /// As [`Self::finish`], with `between` after the inbound side has drained: the application still
    /// reaches its upstreams then.
    pub async fn finish_around(self, between: impl Future<Output = ()>) -> bool {
        let Self { agent, proxy, checks, settings, doors, tasks, admin, workload, .. } = self;
        let mut doors = Arc::into_inner(doors).unwrap_or_default();
        doors.close(|purpose| !matches!(purpose, Purpose::Upstream(_)));
        let between = async {
            between.await;
            // The application has no use for an identity any more.
            finish(workload).await;
            doors.last_call().await;
        };
        let whole = proxy.drain_around(settings.drain_grace, between).await;
        agent.stop(GOODBYE).await;
        drop((checks, tasks, admin));
        whole
    }

    /// Finishes what runs while a successor has everything else, the instance among it. Says whether
    /// every stream ended by itself.
    pub async fn retire(self) -> bool {
        let Self { agent, proxy, checks, settings, doors, tasks, admin, workload, .. } = self;
        drop((checks, doors));
        proxy.stop_accepting();
        let drain = proxy.drain(settings.drain_grace);
        let (whole, (), ()) = tokio::join!(drain, finish(admin), finish(workload));
        agent.stop(GOODBYE).await;
        drop(tasks);
        whole
    }

    /// What a crash does: nothing is drained, nobody is told; every socket is closed when it returns.
    pub async fn kill(self) {
        drop((self.doors, self.tasks, self.admin, self.workload));
        self.proxy.kill().await;
    }
}

async fn finish(endpoint: Option<Endpoint>) {
    if let Some(endpoint) = endpoint {
        endpoint.finish().await;
    }
}

/// The instance that a sidecar with these settings stands for.
#[must_use]
pub fn who(settings: &Settings) -> Who {
    let Settings { definition, node, .. } = settings;
    Who { service: definition.name.clone(), node: node.clone(), instance: definition.id.clone() }
}

impl Listeners {
    /// Takes what was given where its address is the wanted one, and binds the rest.
    fn bind(
        settings: &Settings,
        declared: &[DeclaredUpstream],
        given: &mut Doors,
    ) -> Result<Self, AppError> {
        let declared_port = settings.definition.sidecar.as_ref().and_then(|sidecar| sidecar.port);
        let port = settings.inbound_port.or(declared_port);
        let will_do = |found: SocketAddr| {
            found.ip() == settings.bind && port.is_none_or(|port| port == found.port())
        };
        let inbound = match (given.take(&Purpose::Inbound, will_do), port) {
            (Some(listener), _) => listener,
            (None, Some(port)) => ports::bind(SocketAddr::new(settings.bind, port), "the inbound side")?,
            (None, None) => ports::bind_sidecar(settings.bind)?,
        };
        let mut upstreams = Vec::new();
        let mut bound_upstreams = Vec::new();
        for upstream in declared {
            let (listener, moved) = bind_upstream(upstream, settings.next_free_ports, given)?;
            bound_upstreams.push(BoundUpstream {
                destination: upstream.destination.clone(),
                address: ports::local(&listener)?,
                moved,
            });
            upstreams.push(proxy::Upstream {
                destination: upstream.destination.clone(),
                listener,
                config: upstream_config(upstream)?,
            });
        }
        let admin = match settings.admin {
            Some(address) => {
                let will_do = |found| ports::is_next_free(address, found);
                Some(match given.take(&Purpose::Admin, will_do) {
                    Some(listener) => listener,
                    None => ports::bind_next_free(address, "the admin endpoint")?.0,
                })
            }
            None => None,
        };
        let bound = Bound {
            inbound: ports::local(&inbound)?,
            upstreams: bound_upstreams,
            admin: admin.as_ref().map(ports::local).transpose()?,
        };
        Ok(Self { inbound, upstreams, admin, bound })
    }

    /// Another handle to each socket.
    fn doors(&self, kept: &[SocketAddr]) -> Result<Doors, AppError> {
        let upstream = |one: &'_ proxy::Upstream| Purpose::Upstream(one.destination.clone());
        let upstreams = self.upstreams.iter().map(|one| (upstream(one), &one.listener));
        let mut doors = Doors::default();
        for (purpose, listener) in iter::once((Purpose::Inbound, &self.inbound))
            .chain(upstreams)
            .chain(self.admin.as_ref().map(|listener| (Purpose::Admin, listener)))
        {
            let address = ports::local(listener)?;
            let what = || format!("another handle to the socket at {address}");
            let listener =
                listener.try_clone().map_err(|source| AppError::Start { what: what(), source })?;
            doors.push(Door { purpose, address, listener, kept: kept.contains(&address) });
        }
        Ok(doors)
    }
}

/// How to dial it. A file was checked already, with the place of each fault; what comes another way is
/// refused here.
fn upstream_config(upstream: &DeclaredUpstream) -> Result<UpstreamConfig, AppError> {
    let (config, findings) = UpstreamConfig::read(&upstream.config);
    match findings.iter().find(|finding| finding.weight != Weight::NoEffect) {
        None => Ok(config),
        Some(fault) => Err(AppError::Usage(format!("upstream {}: {fault}", upstream.destination))),
    }
}

fn bind_upstream(
    upstream: &DeclaredUpstream,
    next_free: bool,
    given: &mut Doors,
) -> Result<(TcpListener, bool), AppError> {
    let host = upstream.bind_address();
    let ip: IpAddr = host.parse().map_err(|_| {
        AppError::Usage(format!(
            "local_bind_address {host:?} of upstream {} is not an IP address",
            upstream.destination
        ))
    })?;
    let address = SocketAddr::new(ip, upstream.local_bind_port);
    let given = given.take(&Purpose::Upstream(upstream.destination.clone()), |found| found == address);
    if let Some(listener) = given {
        return Ok((listener, false));
    }
    let purpose = format!("upstream {}", upstream.destination);
    if next_free {
        ports::bind_next_free(address, &purpose)
    } else {
        ports::bind(address, &purpose).map(|listener| (listener, false))
    }
}

/// The instance and its sidecar as the catalog will hold them, with the real port and address.
fn registrations(settings: &Settings, port: u16) -> Result<Vec<Registration>, AppError> {
    let mut definition = settings.definition.clone();
    if let Some(sidecar) = &mut definition.sidecar {
        sidecar.port = Some(port);
        let bind = (!settings.bind.is_unspecified()).then(|| settings.bind.to_string());
        if let Some(address) = settings.advertise.clone().or_else(|| sidecar.address.take()).or(bind) {
            sidecar.address = Some(address);
        }
    }
    Ok(definition.expand(&settings.node, port)?)
}

fn local_app(registrations: &[Registration]) -> Result<LocalApp, AppError> {
    let spec = registrations.iter().find_map(|registration| registration.instance.proxy.as_ref());
    let Some(spec) = spec else {
        return Err(AppError::Usage("the service has no sidecar to run".to_owned()));
    };
    Ok(LocalApp {
        host: spec.local_address.clone(),
        port: spec.local_port,
        connect_timeout: millis(&spec.config, LOCAL_CONNECT_TIMEOUT).unwrap_or(limits::LOCAL_DIAL),
    })
}

/// What this process can hold, and no more streams than the application wants.
fn capacity(registrations: &[Registration]) -> Capacity {
    let mut capacity = Capacity::of_this_process();
    let spec = registrations.iter().find_map(|registration| registration.instance.proxy.as_ref());
    let wanted = spec.and_then(|spec| spec.config.get(MAX_INBOUND)?.as_u64()).filter(|most| *most > 0);
    if let Some(wanted) = wanted.and_then(|most| usize::try_from(most).ok()) {
        capacity.streams = capacity.streams.min(wanted);
    }
    capacity
}

/// The checks to run; one whose result is `known` goes on from there.
fn checks(registrations: &[Registration], known: &[CheckReport]) -> Workload {
    let mut workload = Workload::default();
    for Registration { instance, checks } in registrations {
        workload.instances.insert(instance.id.clone());
        for mut definition in checks.iter().filter_map(|check| check.definition.clone()) {
            if let Some(report) = known.iter().find(|report| report.id == definition.id) {
                definition.initial = report.status;
            }
            workload.checks.push((Some(instance.id.clone()), definition));
        }
    }
    workload
}

fn millis(
    config: &std::collections::BTreeMap<String, serde_json::Value>,
    key: &str,
) -> Option<Duration> {
    config.get(key)?.as_u64().filter(|ms| *ms > 0).map(Duration::from_millis)
}
