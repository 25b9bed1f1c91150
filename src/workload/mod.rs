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
mod socket;
mod token;

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tokio::sync::watch;
use tonic::service::Routes;

use self::accept::Port;
use self::service::Api;
use self::socket::Socket;
use crate::agent;
use crate::pb::spiffe::spiffe_workload_api_server::SpiffeWorkloadApiServer;

/// Where clients look for the address of the Workload API.
pub const ENDPOINT_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

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
    #[error("cannot listen at {path} for workloads: {source}", path = path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a socket, and stays as it is; choose another path with --workload-socket",
        path = .0.display()
    )]
    NotASocket(PathBuf),
    #[error(
        "somebody listens at {path} already; stop it or choose another path with --workload-socket",
        path = .0.display()
    )]
    InUse(PathBuf),
    #[error(
        "anybody could replace {path}: others may write to its directory; choose one that they cannot, or \
         that has the sticky bit",
        path = .0.display()
    )]
    OpenDirectory(PathBuf),
}

/// A socket that listens but does not accept yet. Dropping it removes the socket.
pub struct Server {
    socket: Socket,
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
        let only_own = uids.iter().all(|uid| *uid == own);
        let socket = Socket::bind(&settings.path, only_own, succeeds)?;
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
