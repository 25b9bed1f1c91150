//! The control plane of one process: store, catalog, CA, checks, gRPC port, HTTP API and DNS.

mod access;
mod checks;
mod declared;
mod etcd;
mod https;
#[cfg(test)]
mod impostors;
mod listen;
mod material;
mod metrics;
mod names;
mod own;
mod reaper;
mod reload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;

pub use self::access::AccessSettings;
use self::access::Keeper;
use self::checks::Checks;
use self::etcd::Etcd;
pub use self::etcd::{EtcdPort, EtcdTls};
pub use self::https::Https;
pub use self::listen::HttpPlace;
use self::metrics::{CountedStore, Sources, count_events};
pub use self::names::{DnsSettings, names};
pub use self::reload::ReloadError;
use self::reload::Reloader;
use super::{AppError, ports};
use crate::access::Access;
use crate::api::{self, ApiState, Decoders, Operations};
use crate::ca::seal::Keyring;
use crate::ca::{self, Ca, Custody};
use crate::catalog::{self, Catalog};
use crate::config::{self, AgentKeys};
use crate::control::{self, edges::Edges};
use crate::dns;
use crate::kv::Kv;
use crate::model::{Action, CheckDefinition, Definition, NodeName};
use crate::store::{MemoryStore, RedbStore, Store};
use crate::telemetry::reading::Read;
use crate::telemetry::{Readiness, ServerMetrics, admin};

/// Name of the store's file in the data directory.
const STORE_FILE: &str = "weft.redb";

/// What a server is told at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Services declared in files.
    pub definitions: Vec<Definition>,
    /// Checks of the server's node that files declare.
    pub node_checks: Vec<CheckDefinition>,
    /// The files, to be read again by a reload.
    pub paths: Vec<PathBuf>,
    /// What the files said of the server itself.
    pub agent: AgentKeys,
    /// `None` keeps everything in memory.
    pub data_dir: Option<PathBuf>,
    /// What the private keys of the authority are encrypted with at rest.
    pub ca_key_file: Option<PathBuf>,
    pub http: HttpPlace,
    /// The HTTP API over TLS.
    pub https: Option<Https>,
    pub grpc: SocketAddr,
    /// Where other trust domains read the trust bundle. `None` opens no such port.
    pub bundle: Option<SocketAddr>,
    /// `None` answers no names.
    pub dns: Option<DnsSettings>,
    /// Where etcd clients connect. `None` opens no such port.
    pub etcd: Option<EtcdPort>,
    pub node: NodeName,
    pub node_address: String,
    pub datacenter: String,
    pub leaf_ttl: Duration,
    /// What applies when no intention matches.
    pub default_action: Action,
    /// Further host names by which the HTTP API may be called.
    pub allowed_hosts: Vec<String>,
    pub access: AccessSettings,
    /// No token is needed to enrol from loopback.
    pub dev: bool,
    /// Ports that are taken move to the next free one.
    pub next_free_ports: bool,
}

/// Addresses a server listens on.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Port 0 when the API in plain text has a UNIX socket instead.
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub grpc: SocketAddr,
    pub bundle: Option<SocketAddr>,
    pub dns: Option<SocketAddr>,
    pub etcd: Option<SocketAddr>,
}

/// A running control plane.
pub struct Server {
    bound: Bound,
    catalog: Catalog,
    ca: Ca,
    edges: Edges,
    /// What the metrics read at a scrape, for as long as this server lives.
    _reader: Arc<Read>,
    readiness: Readiness,
    reloader: Arc<Reloader>,
    /// Somebody asked over the API that this server ends.
    leaving: Arc<Notify>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<&'static str>,
    /// Tasks that end when they are told to.
    ports: usize,
}

impl Server {
    /// Opens the store, binds every port and starts to serve.
    ///
    /// # Errors
    /// When the store cannot be opened, a port is taken or a declared service is refused; then nothing
    /// runs.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
        let (metrics, readiness) = (ServerMetrics::new(), Readiness::new());
        let starting = readiness.pending("start");
        // Before the store is touched: a key that cannot be used is to change nothing.
        let custody = custody(&settings)?;
        let store = CountedStore::over(open_store(&settings).await?, &metrics);
        let catalog = Catalog::open(Arc::clone(&store), catalog_settings(&settings)).await?;
        let ca = Ca::open_in(Arc::clone(&store), ca_settings(&settings), custody).await?;
        count_events(&ca, &metrics);
        let keeper = Keeper::open(&store, &settings).await?;
        let audit = keeper.audit();
        let places = listen::places(&settings, keeper.https())?;
        let mut grpc = bind_grpc(&settings, &catalog, &ca, keeper.access())?;
        own::register(&catalog, grpc.local_addr().port()).await?;
        let dns = names::bind(&settings, &catalog, &metrics)?;
        declared::apply(&*store, &catalog, &settings.definitions, &settings.node_checks).await?;
        let checks = Checks::new(catalog.clone());
        checks.listen(&metrics);
        count_calls(&mut grpc, &metrics);

        let kv = Kv::open(Arc::clone(&store), catalog.clone()).await?;
        let etcd = Etcd::open(&settings, &store, &catalog, keeper.etcd()).await?;
        let sources = Sources {
            catalog: catalog.clone(),
            kv: kv.clone(),
            keys: etcd.keys(),
            sessions: grpc.sessions(),
            edges: grpc.edges(),
        };
        let reader = metrics::reader(sources);
        metrics.read_with(&reader);
        let mut state =
            ApiState::new(catalog.clone(), ca.clone(), kv, keeper.access().clone(), decoders());
        let reloader = Arc::new(reloader(&settings, (&store, &catalog), keeper, dns.as_ref()));
        let leaving = Arc::new(Notify::new());
        state.operations = operations(&reloader, &leaving);
        state.metrics = metrics.clone();
        state.grpc = Some(grpc.local_addr());
        adapt(&mut state, &settings);
        state.audit = access::audited(&grpc, audit);
        state.routes = admin::router(readiness.clone(), metrics.registry());
        let edges = grpc.edges();
        let api = api::Server::bind(&places, state).await?;
        let bound = Bound {
            http: api.local_addrs().first().copied().flatten().unwrap_or(listen::NOWHERE),
            https: api.local_addrs().get(1).copied().flatten(),
            grpc: grpc.local_addr(),
            bundle: grpc.bundle_addr(),
            dns: dns.as_ref().map(dns::Server::local_addr),
            etcd: etcd.local_addr(),
        };

        let (stop, stopped) = watch::channel(false);
        let (tasks, ports) = Ports { grpc, api, dns, etcd }.serve(checks, &stopped);
        starting.done();
        tracing::info!(http = %settings.http.bound(bound.http), https = bound.https.map(tracing::field::display), grpc = %bound.grpc, dns = bound.dns.map(tracing::field::display), trust_domain = %ca.trust_domain(), "server is ready");
        Ok(Self {
            bound,
            catalog,
            ca,
            edges,
            _reader: reader,
            readiness,
            reloader,
            leaving,
            stop,
            tasks,
            ports,
        })
    }

    #[must_use]
    pub const fn bound(&self) -> Bound {
        self.bound
    }

    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    #[must_use]
    pub const fn ca(&self) -> &Ca {
        &self.ca
    }

    /// What the sidecars reported of their connections.
    #[must_use]
    pub const fn edges(&self) -> &Edges {
        &self.edges
    }

    /// Reads the configuration files again; see [`ReloadError`] for what keeps the old one.
    ///
    /// # Errors
    /// When a file has a fault or what it declares is refused.
    pub async fn reload(&self) -> Result<(), ReloadError> {
        self.reloader.reload().await
    }

    /// Waits until somebody asks over the API that this server ends. Cancel-safe.
    pub fn asked_to_leave(&self) -> impl Future<Output = ()> + use<> {
        let leaving = Arc::clone(&self.leaving);
        async move { leaving.notified().await }
    }

    /// Waits for a fault that ends the server; returns only then.
    pub async fn failed(&mut self) -> AppError {
        match self.tasks.join_next().await {
            Some(Ok(what)) => AppError::Died(what),
            Some(Err(_)) | None => AppError::Died("a task of the server"),
        }
    }

    /// Answers what is under way and stops. Proxies keep what they know and come back.
    pub async fn stop(mut self) {
        self.readiness.drain();
        self.stop.send_replace(true);
        // The check runner and the bridge have no end of their own; all ports bound their drain.
        for _port in 0..self.ports {
            self.tasks.join_next().await;
        }
    }
}

fn count_calls(grpc: &mut control::Bound, metrics: &ServerMetrics) {
    let counting = metrics.clone();
    grpc.on_answer(move |method, code| counting.grpc_request(method, code));
    let counting = metrics.clone();
    grpc.on_limited(move |limit| counting.signing_limited(limit));
    let counting = metrics.clone();
    grpc.on_refused(move |reason| counting.tls_refused("grpc", reason));
}

/// Everything that is bound and does not serve yet.
struct Ports {
    grpc: control::Bound,
    api: api::Server,
    dns: Option<dns::Server>,
    etcd: Etcd,
}

impl Ports {
    /// Serves all of them until `stopped`, and runs the checks; says how many tasks end then.
    fn serve(self, checks: Checks, stopped: &watch::Receiver<bool>) -> (JoinSet<&'static str>, usize) {
        let until = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the server is gone, which says stop as well.
            let _stop = stopped.wait_for(|stop| *stop).await;
        };
        let Self { grpc, api, dns, etcd } = self;
        let mut tasks = JoinSet::new();
        let (grpc_stop, api_stop) = (until(stopped.clone()), until(stopped.clone()));
        let ports = 2 + usize::from(dns.is_some()) + etcd.spawn(&mut tasks, until(stopped.clone()));
        tasks.spawn(async move {
            grpc.serve(grpc_stop).await;
            "the gRPC port"
        });
        tasks.spawn(async move {
            api.serve(api_stop).await;
            "the HTTP API"
        });
        if let Some(dns) = dns {
            tasks.spawn(names::serve(dns, until(stopped.clone())));
        }
        tasks.spawn(async move {
            checks.run().await;
            "the check runner"
        });
        (tasks, ports)
    }
}

fn reloader(
    settings: &Settings,
    (store, catalog): (&Arc<dyn Store>, &Catalog),
    keeper: Keeper,
    dns: Option<&dns::Server>,
) -> Reloader {
    Reloader {
        paths: settings.paths.clone(),
        agent: settings.agent.clone(),
        store: Arc::clone(store),
        catalog: catalog.clone(),
        keeper,
        dns: dns.map(dns::Server::tuner),
        alone: Mutex::new(()),
    }
}

/// What the settings of the server mean for its API.
fn adapt(state: &mut ApiState, settings: &Settings) {
    state.pretty = settings.dev;
    state.hands_out_leaves = settings.dev;
    state.allowed_hosts.clone_from(&settings.allowed_hosts);
}

fn operations(reloader: &Arc<Reloader>, leaving: &Arc<Notify>) -> Operations {
    let (reloader, leaving) = (Arc::clone(reloader), Arc::clone(leaving));
    Operations {
        reload: Some(Arc::new(move || {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move { reloader.reload().await.map_err(|error| error.to_string()) })
        })),
        leave: Some(Arc::new(move || leaving.notify_one())),
    }
}

async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, AppError> {
    let Some(directory) = &settings.data_dir else {
        return Ok(Arc::new(MemoryStore::new()));
    };
    create_private(directory).map_err(|source| AppError::File {
        action: "create the data directory",
        path: directory.clone(),
        source,
    })?;
    Ok(Arc::new(RedbStore::open(directory.join(STORE_FILE)).await?))
}

/// Creates a directory that only its owner may enter; one that exists stays as it is.
fn create_private(directory: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn free(address: SocketAddr, purpose: &str, next_free: bool) -> Result<SocketAddr, AppError> {
    if !next_free {
        return Ok(address);
    }
    // Bound and let go: the listener that follows takes the same port, which nobody else is after.
    let (listener, moved) = ports::bind_next_free(address, purpose)?;
    let found = ports::local(&listener)?;
    if moved {
        tracing::warn!(wanted = %address, %found, "port of {purpose} is taken; using the next free one");
    }
    Ok(found)
}

fn catalog_settings(settings: &Settings) -> catalog::Settings {
    catalog::Settings {
        datacenter: settings.datacenter.clone(),
        node: settings.node.clone(),
        node_address: settings.node_address.clone(),
        default_action: settings.default_action,
    }
}

fn ca_settings(settings: &Settings) -> ca::Settings {
    ca::Settings {
        datacenter: settings.datacenter.clone(),
        server_id: settings.node.to_string(),
        leaf_ttl: settings.leaf_ttl,
    }
}

fn custody(settings: &Settings) -> Result<Custody, ca::CaError> {
    let keyring = settings.ca_key_file.as_deref().map(Keyring::read).transpose()?;
    Ok(Custody { keyring: keyring.unwrap_or_default(), ..Custody::default() })
}

fn bind_grpc(
    settings: &Settings,
    catalog: &Catalog,
    ca: &Ca,
    access: &Access,
) -> Result<control::Bound, AppError> {
    let address = free(settings.grpc, "gRPC", settings.next_free_ports)?;
    let control = control::Settings {
        dev: settings.dev,
        access: Some(access.clone()),
        bundle: settings.bundle,
        ..control::Settings::default()
    };
    Ok(control::Server::bind(address, catalog.clone(), ca.clone(), control)?)
}

/// Readers of what is registered over the HTTP API: the same as for files.
#[must_use]
pub fn decoders() -> Decoders {
    let message = |faults: Vec<config::Diagnostic>| config::api_message(&faults);
    Decoders {
        definition: Arc::new(move |body| config::parse_definition_json(body).map_err(message)),
        check: Arc::new(move |body| config::parse_check_json(body).map_err(message)),
    }
}
