//! The etcd part of a server: the keys, the instances made of them, and the port if there is to be one.
//! Keys live and leases end whether or not clients can connect.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Settings;
use super::material::Material;
use crate::app::{AppError, ports};
use crate::catalog::Catalog;
use crate::etcd::{Bridge, Keys, Server};
use crate::net::accept::TlsSource;
use crate::store::Store;
use crate::tls::ALPN_H2;
use crate::tls::files::{ClientAuthority, KeyFiles};

/// What the port is for.
const PURPOSE: &str = "etcd clients";

/// What a server is told of its port for etcd clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdPort {
    pub address: SocketAddr,
    /// `None` is plain text, which stays on loopback.
    pub tls: Option<EtcdTls>,
}

/// The API has no users of its own here, so whoever calls over TLS needs a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    pub keys: KeyFiles,
    pub client_ca: PathBuf,
}

impl From<SocketAddr> for EtcdPort {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

impl EtcdPort {
    /// # Errors
    /// When a file cannot be used, or everybody could do here what the HTTP API asks a token for.
    pub(super) fn material(&self, tokens_required: bool) -> Result<Option<Material>, AppError> {
        let Some(EtcdTls { keys, client_ca }) = &self.tls else {
            if tokens_required {
                return Err(AppError::Usage(OPEN.to_owned()));
            }
            return Ok(None);
        };
        Material::load(keys, ClientAuthority::Required(client_ca.clone()), ALPN_H2).map(Some)
    }
}

const OPEN: &str = "etcd clients in plain text have nothing to show who they are, and --require-token would \
     not count for them; ask them for certificates with --etcd-client-ca-file, or leave one of the two out";

pub(super) struct Etcd {
    keys: Keys,
    server: Option<Server>,
    bridge: Bridge,
}

impl Etcd {
    /// Loads the keys and takes the port.
    pub(super) async fn open(
        settings: &Settings,
        store: &Arc<dyn Store>,
        catalog: &Catalog,
        tls: Option<TlsSource>,
    ) -> Result<Self, AppError> {
        let keys = Keys::open(Arc::clone(store)).await.map_err(AppError::Store)?;
        let server = match &settings.etcd {
            None => None,
            Some(port) => {
                let listener = listen(port.address, settings.next_free_ports)?;
                Some(Server::new(listener, tls, keys.clone(), catalog)?)
            }
        };
        let bridge = Bridge::new(keys.clone(), catalog.clone());
        Ok(Self { keys, server, bridge })
    }

    pub(super) fn keys(&self) -> Keys {
        self.keys.clone()
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(Server::local_addr)
    }

    /// Starts both; says how many of the tasks end when `stop` does.
    pub(super) fn spawn(
        self,
        tasks: &mut JoinSet<&'static str>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> usize {
        let Self { server, bridge, .. } = self;
        let ports = usize::from(server.is_some());
        if let Some(server) = server {
            tasks.spawn(async move {
                server.serve(stop).await;
                "the etcd port"
            });
        }
        tasks.spawn(async move {
            bridge.run().await;
            "the bridge of etcd keys"
        });
        ports
    }
}

fn listen(wanted: SocketAddr, next_free: bool) -> Result<TcpListener, AppError> {
    if !next_free {
        return ports::bind(wanted, PURPOSE);
    }
    let (listener, moved) = ports::bind_next_free(wanted, PURPOSE)?;
    if moved {
        let found = ports::local(&listener)?;
        tracing::warn!(%wanted, %found, "port of {PURPOSE} is taken; using the next free one");
    }
    Ok(listener)
}
