//! The HTTP API: Consul's surface for discovery and Connect, and Weft's own under `/v1/weft`.
//!
//! `app` binds a [`Server`] with an [`ApiState`] and lets it run until its shutdown. Handlers are thin
//! over `catalog`, `ca` and `kv`: they read the query, wait if asked to, and hand records to the pure shapes
//! in `json`. Every request passes the guard against DNS rebinding and cross-site writes first, the
//! routes merged in by other modules included. All bounds stand in `limits`.

mod agent;
mod blocking;
mod body;
mod catalog;
mod connect;
mod decode;
mod error;
mod guard;
mod health;
mod intentions;
pub mod json;
mod kv;
mod limits;
mod query;
mod reply;
mod routes;
mod server;
mod session;
mod stall;
mod txn;
mod weft;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::sync::{Mutex, watch};

pub use server::{BindError, Server};

use crate::ca::Ca;
use crate::catalog::Catalog;
use crate::kv::Kv;
use crate::model::Definition;
use crate::telemetry::ServerMetrics;

/// Reads the body of a registration; the error is shown to the caller as it is.
pub type DefinitionDecoder = Arc<dyn Fn(&[u8]) -> Result<Definition, String> + Send + Sync>;

/// What the API serves from.
#[derive(Clone)]
pub struct ApiState {
    pub catalog: Catalog,
    pub ca: Ca,
    pub kv: Kv,
    pub decode: DefinitionDecoder,
    /// Where requests are counted.
    pub metrics: ServerMetrics,
    /// Where sidecars reach the control plane; shown in `agent/self` and `status/leader`.
    pub grpc: Option<SocketAddr>,
    /// Host names besides `localhost`, loopback and the bound addresses that requests may name.
    pub allowed_hosts: Vec<String>,
    /// Indent every answer, as Consul's dev mode does.
    pub pretty: bool,
    /// Routes of other modules, such as `/metrics`; served behind the same guard.
    pub routes: Router,
}

impl ApiState {
    /// A state with nothing optional: metrics of its own, no gRPC address, no extra hosts or routes.
    #[must_use]
    pub fn new(catalog: Catalog, ca: Ca, kv: Kv, decode: DefinitionDecoder) -> Self {
        Self {
            catalog,
            ca,
            kv,
            decode,
            metrics: ServerMetrics::new(),
            grpc: None,
            allowed_hosts: Vec::new(),
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
    /// Makes look-then-write of intentions and of sidecar ports atomic within this server.
    writes: Mutex<()>,
}

/// Number of the state that a record or an answer belongs to; never 0 toward clients.
type Index = u64;

type App = axum::extract::State<Arc<Shared>>;
