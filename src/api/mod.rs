//! The HTTP API: Consul's surface for discovery and Connect, and Weft's own under `/v1/weft`.
//!
//! `app` binds a [`Server`] with an [`ApiState`] and lets it run until its shutdown. Handlers are thin
//! over `catalog`, `ca` and `kv`: they read the query, wait if asked to, and hand records to the pure shapes
//! in `json`. Every request passes the guard against DNS rebinding and cross-site writes first, then the
//! gate that asks `access` for the caller's permission, the routes merged in by other modules included. All bounds stand in `limits`.

mod agent;
mod answers;
mod bans;
mod blocking;
mod body;
mod ca;
mod catalog;
mod catalog_write;
mod config_entries;
mod configuration;
mod connect;
mod decode;
mod error;
pub mod filter;
mod gate;
mod guard;
mod health;
mod intentions;
pub mod json;
mod kv;
mod leaf;
mod limits;
mod listen;
mod query;
mod reply;
mod routes;
mod server;
mod session;
mod stall;
mod tokens;
mod txn;
mod weft;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, watch};

pub use listen::{Listen, Tls};
pub use routes::listing;
pub use server::{BindError, Server};

use crate::access::Access;
use crate::access::audit::AuditLog;
use crate::ca::Ca;
use crate::catalog::Catalog;
use crate::kv::Kv;
use crate::model::{CheckDefinition, Definition};
use crate::telemetry::ServerMetrics;

/// Readers of the bodies that have the form of configuration files; an error is shown to the caller as
/// it is.
#[derive(Clone)]
pub struct Decoders {
    pub definition: Decoder<Definition>,
    /// A check, and the id of the service it is about, if any.
    pub check: Decoder<(CheckDefinition, Option<String>)>,
}

type Decoder<T> = Arc<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// What callers may ask of the process around the API; without an answer the route says so.
#[derive(Clone, Default)]
pub struct Operations {
    /// Reads the configuration files again; the error says what is wrong with them.
    pub reload: Option<Reload>,
    /// Begins the end of the process, as SIGTERM does.
    pub leave: Option<Arc<dyn Fn() + Send + Sync>>,
}

type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the API serves from.
#[derive(Clone)]
pub struct ApiState {
    pub catalog: Catalog,
    pub ca: Ca,
    pub decoders: Decoders,
    pub operations: Operations,
    pub kv: Kv,
    /// Who may do what.
    pub access: Access,
    /// Where changes are written down; without one they are not.
    pub audit: Option<AuditLog>,
    /// Where requests are counted.
    pub metrics: ServerMetrics,
    /// Where sidecars reach the control plane; shown in `agent/self` and `status/leader`.
    pub grpc: Option<SocketAddr>,
    /// Host names besides `localhost`, loopback and the bound addresses that requests may name.
    pub allowed_hosts: Vec<String>,
    /// Hand out keys of services to whoever asks: for dev mode alone.
    pub hands_out_leaves: bool,
    /// Indent every answer, as Consul's dev mode does.
    pub pretty: bool,
    /// Routes of other modules, such as `/metrics`; served behind the same guard.
    pub routes: Router,
}

impl ApiState {
    /// A state with nothing optional: metrics of its own, no gRPC address, no extra hosts or routes.
    #[must_use]
    pub fn new(catalog: Catalog, ca: Ca, kv: Kv, access: Access, decoders: Decoders) -> Self {
        Self {
            catalog,
            ca,
            kv,
            decoders,
            operations: Operations::default(),
            access,
            audit: None,
            metrics: ServerMetrics::new(),
            grpc: None,
            allowed_hosts: Vec::new(),
            hands_out_leaves: false,
            pretty: false,
            routes: Router::new(),
        }
    }
}

/// What handlers share.
struct Shared {
    state: ApiState,
    bound: Vec<SocketAddr>,
    /// True once the server shuts down: waiting queries answer at once.
    draining: watch::Receiver<bool>,
    leaves: leaf::Leaves,
    answers: answers::Answers,
    /// Makes look-then-write of intentions and of sidecar ports atomic within this server.
    writes: Mutex<()>,
}

/// Number of the state that a record or an answer belongs to; never 0 toward clients.
type Index = u64;

type App = axum::extract::State<Arc<Shared>>;
