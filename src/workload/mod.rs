//! The SPIFFE Workload API: what gives an application behind a sidecar its own identity.
//!
//! `app` binds and serves it beside a sidecar, on a UNIX socket; `agent` gets what it hands out.
//! Invariants: who calls is what the kernel says of the connection, never what a request says; nothing is
//! given to a user who is not on the list; what is handed out is never logged; everything a caller can make
//! grow has a bound in [`limits`].

mod accept;
mod authority;
mod caller;
mod claims;
pub mod client;
pub mod files;
mod follow;
pub mod limits;
mod mint;
mod service;
mod token;

use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tokio::sync::watch;
use tonic::service::Routes;

use self::accept::Port;
use self::service::Api;
use crate::agent;
use crate::net::local::{LocalError, LocalListener};
use crate::pb::spiffe::spiffe_workload_api_server::SpiffeWorkloadApiServer;

/// Where clients look for the address of the Workload API.
pub const ENDPOINT_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// For the own user only: the file system keeps the others out.
const OWN: u32 = 0o600;
/// Others are on the list: who connects is for the list to judge.
const ALL: u32 = 0o666;

/// Where it is, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub path: PathBuf,
    /// Users that are served; when empty, the one this process runs as.
    pub uids: Vec<u32>,
}

impl Settings {
    /// The users that are served.
    #[must_use]
    pub fn served(&self) -> Vec<u32> {
        if self.uids.is_empty() { vec![geteuid().as_raw()] } else { self.uids.clone() }
    }
    /// The address in the form of [`ENDPOINT_VARIABLE`].
    #[must_use]
    pub fn endpoint(&self) -> String {
        // A path that is not there any more has no absolute form; nobody could connect to it either.
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        format!("unix://{}", path.display())
    }
}

/// Why it cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    #[error(
        "cannot listen at {path} for workloads: {source}; --workload-socket names another path",
        path = path.display()
    )]
    Bind { path: PathBuf, source: LocalError },
}

/// A socket that listens but does not accept yet. Dropping it removes the socket.
pub struct Server {
    socket: LocalListener,
    uids: Vec<u32>,
}

impl Server {
    /// Listens at the path, in the place of a process that is gone or that `succeeds` this one. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// When there is something else, or the socket cannot be made.
    pub fn bind(settings: &Settings, succeeds: bool) -> Result<Self, WorkloadError> {
        let (uids, own) = (settings.served(), geteuid().as_raw());
        let mode = if uids.iter().all(|uid| *uid == own) { OWN } else { ALL };
        let failed = |source| WorkloadError::Bind { path: settings.path.clone(), source };
        let socket = LocalListener::bind(&settings.path, mode, succeeds).map_err(failed)?;
        Ok(Self { socket, uids })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Serves what `agent` gets until `shutdown`; then the socket is removed and open streams end, within
    /// [`limits::STOP_GRACE`].
    pub async fn serve(self, agent: agent::Handle, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let api = Api::new(agent.application, stopped.clone());
        let api = SpiffeWorkloadApiServer::new(api).max_decoding_message_size(limits::MAX_MESSAGE_BYTES);
        let routes = Routes::new(api);
        let port = Port { routes, uids: self.uids, stop: stopped };
        let ended = async {
            shutdown.await;
            stop.send_replace(true);
        };
        tokio::join!(port.run(self.socket), ended);
    }
}

/// Waits for the end of the server.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which says stop as well.
    let _gone = stop.wait_for(|stop| *stop).await;
}
