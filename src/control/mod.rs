//! The gRPC port of the control plane: enrolment, Sync streams, registration, health, reflection.
//!
//! `app` binds and serves it; `catalog` and `ca` do the work. Invariants: every connection is TLS 1.3;
//! who a caller is comes from its certificate and never from a request; everything a client can make
//! grow has a bound in [`limits`].

mod accept;
mod admission;
mod answers;
mod bundle;
mod callers;
mod convert;
pub mod edges;
mod failure;
mod flow;
mod hello;
mod identity;
mod ledger;
pub mod limits;
mod material;
mod mesh;
mod peer;
mod rates;
mod registry;
pub mod sessions;
mod sync;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use self::accept::Port;
use self::bundle::BundlePort;
use self::edges::Edges;
use self::ledger::Ledger;
pub use self::ledger::{Asked, Written};
use self::material::Material;
use self::rates::Rates;
use self::sessions::Sessions;
use self::sync::Context;
use crate::access::Access;
use crate::ca::{Ca, CaError};
use crate::catalog::Catalog;
use crate::model::Reason;
use crate::net::socket;
use crate::pb;
use crate::pb::identity_server::IdentityServer;
use crate::pb::mesh_server::MeshServer;
use crate::pb::registry_server::RegistryServer;
use crate::tls::{self, BanList, TlsError};

/// How a server treats its sidecars.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Callers on loopback may enrol without a token.
    pub dev: bool,
    /// Judges the tokens of local callers, if the HTTP API requires any.
    pub access: Option<Access>,
    /// Silence after which a sidecar's instances are removed.
    pub lease_ttl: Duration,
    /// Silence after which a sidecar is told that nothing has changed.
    pub heartbeat: Duration,
    /// Where other trust domains read the trust bundle; nowhere without.
    pub bundle: Option<SocketAddr>,
    /// Connections at once; see [`limits::MAX_CONNECTIONS`].
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dev: false,
            access: None,
            bundle: None,
            lease_ttl: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            max_connections: limits::MAX_CONNECTIONS,
        }
    }
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "cannot listen on {address} for gRPC: {source}; stop what uses it or choose another --grpc-addr"
    )]
    Bind { address: SocketAddr, source: io::Error },
    #[error(
        "cannot listen on {address} for the trust bundle: {source}; stop what uses it or choose another --bundle-addr"
    )]
    BindBundle { address: SocketAddr, source: io::Error },
    #[error("the server has no certificate for its gRPC port: {0}")]
    Ca(#[from] CaError),
    #[error("the server's own certificate cannot be used on the gRPC port: {0}")]
    Tls(#[from] TlsError),
    #[error("the service descriptions cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The gRPC port.
pub struct Server {
    _private: (),
}

impl Server {
    /// Takes the address, makes the server's certificate and prepares the services.
    ///
    /// # Errors
    /// When the address is taken or the CA cannot sign.
    pub fn bind(
        address: SocketAddr,
        catalog: Catalog,
        ca: Ca,
        settings: Settings,
    ) -> Result<Bound, ControlError> {
        let listener = listen(address).map_err(|source| ControlError::Bind { address, source })?;
        let address = listener.local_addr().map_err(|source| ControlError::Bind { address, source })?;
        let bans = BanList::default();
        bans.replace(Arc::clone(&catalog.bans().borrow()));
        let material = Material::make(&ca, &bans, tls::grpc_server_config)?;
        let bundle = settings.bundle.map(|address| BoundBundle::new(address, &ca, &bans)).transpose()?;
        let (stop, stopped) = watch::channel(false);
        let (edges, sessions) = (Edges::default(), Sessions::new(catalog.clone()));
        let counted = sessions.clone();
        ca.count_sidecars(move |bundle, root| counted.census(bundle, root, SystemTime::now()));
        let health = HealthReporter::new();
        let context = Context { catalog, ca, sessions, settings, stop: stopped };
        let context = Arc::new(context);
        let rates = Arc::new(Rates::new(Instant::now()));
        let ledger = Ledger::default();
        let routes = routes(&context, &edges, &health, (&rates, &ledger))?;
        Ok(Bound {
            listener,
            address,
            material,
            bundle,
            bans,
            stop,
            context,
            edges,
            health,
            routes,
            rates,
            ledger,
            tell: None,
            refused: None,
        })
    }
}

/// A port that listens but does not accept yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    material: Material,
    bundle: Option<BoundBundle>,
    bans: BanList,
    stop: watch::Sender<bool>,
    context: Arc<Context>,
    edges: Edges,
    health: HealthReporter,
    routes: Routes,
    rates: Arc<Rates>,
    ledger: Ledger,
    tell: Option<answers::Tell>,
    refused: Option<accept::Refused>,
}

/// The bundle endpoint, before it serves.
struct BoundBundle {
    listener: TcpListener,
    address: SocketAddr,
    material: Material,
}

impl BoundBundle {
    fn new(address: SocketAddr, ca: &Ca, bans: &BanList) -> Result<Self, ControlError> {
        let failed = |source| ControlError::BindBundle { address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let material = Material::make(ca, bans, tls::open_server_config)?;
        Ok(Self { listener, address, material })
    }

    /// Serves until `stop`, with settings that are kept fresh.
    async fn serve(self, ca: Ca, bans: BanList, stop: watch::Receiver<bool>) {
        let (sink, tls) = watch::channel(Arc::clone(&self.material.config));
        tracing::info!(address = %self.address, "the bundle endpoint is open");
        let port = BundlePort { tls, ca: ca.clone(), stop };
        tokio::select! {
            () = port.run(self.listener) => {}
            () = material::keep_fresh(ca, bans, self.material, sink) => {}
        }
    }
}

impl Bound {
    /// With the real port, when 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the trust bundle is read, if anywhere.
    #[must_use]
    pub fn bundle_addr(&self) -> Option<SocketAddr> {
        self.bundle.as_ref().map(|bundle| bundle.address)
    }

    /// What the sidecars report of their connections.
    #[must_use]
    pub fn edges(&self) -> Edges {
        self.edges.clone()
    }

    /// The sidecars that are connected.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.context.sessions.clone()
    }

    /// Calls `tell` with the method and status code of each call once it has ended. It must not block.
    pub fn on_answer(&mut self, tell: impl Fn(&'static str, &'static str) + Send + Sync + 'static) {
        self.tell = Some(Arc::new(tell));
    }

    /// Calls `tell` with the reason of each handshake that failed. It must not block.
    pub fn on_refused(&mut self, tell: impl Fn(Reason) + Send + Sync + 'static) {
        self.refused = Some(Arc::new(tell));
    }

    /// Calls `tell` with each limit of rate that a request for a certificate or token meets. It must not block.
    pub fn on_limited(&self, tell: impl Fn(&'static str) + Send + Sync + 'static) {
        self.rates.listen(tell);
    }

    /// Calls `write` with each certificate and token that was asked for. What it cannot write down is not
    /// handed out.
    pub fn on_signed(&self, write: impl Fn(Asked) -> Written + Send + Sync + 'static) {
        self.ledger.listen(write);
    }

    /// Serves until `shutdown`, then ends all streams and waits for the connections to close, at most
    /// [`limits::SHUTDOWN_GRACE`]. Leases are left alone: the sidecars will be back.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            address,
            material,
            bundle,
            bans: list,
            stop,
            context,
            health,
            routes,
            tell,
            refused,
            ..
        } = self;
        let (sink, tls) = watch::channel(Arc::clone(&material.config));
        let max_connections = context.settings.max_connections;
        let bans = context.catalog.bans();
        let following = material::follow_bans(bans.clone(), list.clone());
        let port = Port { tls, routes, stop: stop.subscribe(), max_connections, bans, tell, refused };
        tracing::info!(%address, dev = context.settings.dev, "gRPC port is open");
        set_health(&health, ServingStatus::Serving).await;
        let served = async {
            let ended = async {
                shutdown.await;
                set_health(&health, ServingStatus::NotServing).await;
                stop.send_replace(true);
            };
            let bundle = async {
                if let Some(bundle) = bundle {
                    bundle.serve(context.ca.clone(), list.clone(), stop.subscribe()).await;
                }
            };
            tokio::join!(port.run(listener), bundle, ended);
        };
        tokio::select! {
            () = served => {}
            () = material::keep_fresh(context.ca.clone(), list.clone(), material, sink) => {}
            () = following => {}
            () = sweep_board(&context.sessions) => {}
        }
    }
}

/// Waits for the server to shut down, or to be gone altogether.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(socket::listen(address)?)
}

fn routes(
    context: &Arc<Context>,
    edges: &Edges,
    health: &HealthReporter,
    (rates, ledger): (&Arc<Rates>, &Ledger),
) -> Result<Routes, ControlError> {
    let (bans, told) = (context.catalog.bans(), (Arc::clone(rates), ledger.clone()));
    let (ca, stop) = (context.ca.clone(), context.stop.clone());
    let identity = identity::Identity::new(ca, context.settings.dev, bans, told, stop);
    let mesh = mesh::Mesh::new(Arc::clone(context), edges.clone());
    let callers = callers::Callers::new(context.settings.access.clone());
    let registry = registry::Registry::new(context.catalog.clone(), callers, context.stop.clone());
    let limit = limits::MAX_MESSAGE_BYTES;
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(IdentityServer::new(identity).max_decoding_message_size(limit))
        .add_service(MeshServer::new(mesh).max_decoding_message_size(limit))
        .add_service(RegistryServer::new(registry).max_decoding_message_size(limit))
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(describe().build_v1()?)
        // Many tools still ask the older one.
        .add_service(describe().build_v1alpha()?);
    Ok(routes.routes())
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in ["", "weft.v1.Identity", "weft.v1.Mesh", "weft.v1.Registry"] {
        health.set_service_status(service, status).await;
    }
}

async fn sweep_board(sessions: &Sessions) {
    let mut ticks = tokio::time::interval(limits::BOARD_SWEEP);
    loop {
        ticks.tick().await;
        sessions.sweep(SystemTime::now());
    }
}

#[cfg(test)]
#[path = "tests/impostors.rs"]
mod impostors;
