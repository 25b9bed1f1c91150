//! The etcd part of a server: the keys, the instances made of them, and the port if there is to be one.
//! Keys live and leases end whether or not clients can connect.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Settings;
use crate::app::{AppError, ports};
use crate::catalog::Catalog;
use crate::etcd::{Bridge, Keys, Server};
use crate::store::Store;

/// What the port is for.
const PURPOSE: &str = "etcd clients";

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
    ) -> Result<Self, AppError> {
        let keys = Keys::open(Arc::clone(store)).await.map_err(AppError::Store)?;
        let server = match settings.etcd {
            None => None,
            Some(wanted) => {
                let listener = listen(wanted, settings.next_free_ports)?;
                Some(Server::new(listener, keys.clone(), catalog)?)
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
