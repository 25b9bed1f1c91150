//! What every long-running command does around its server or sidecar: a runtime, signals, the end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::AppError;
use super::server::{self, Server};
use super::sidecar::Sidecar;
use crate::net::{socket, systemd};

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let us listen to them.
    pub fn new() -> Result<Self, AppError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|source| AppError::Start { what: "the signal handler".to_owned(), source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for one of them. Cancel-safe.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUP, which asks for a reload.
pub(super) fn hangups() -> Result<Signal, AppError> {
    signal(SignalKind::hangup())
        .map_err(|source| AppError::Start { what: "the signal handler".to_owned(), source })
}

/// Runs `work`; a further signal gives it up at once.
pub async fn unless_signalled_again<T>(
    signals: &mut Signals,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = signals.received() => {
            tracing::warn!("second signal: leaving at once");
            None
        }
    }
}

/// Runs a control plane until a signal.
///
/// # Errors
/// When it cannot start, or dies.
pub fn serve(settings: server::Settings) -> Result<(), AppError> {
    let files = socket::raise_file_limit();
    tracing::debug!(files, "limit of open files");
    runtime(Kind::Server)?.block_on(async {
        // Before the start: a SIGHUP that comes early must not end the process.
        let (mut signals, mut hangups) = (Signals::new()?, hangups()?);
        let mut server = Server::start(settings).await?;
        systemd::notify("READY=1");
        until_told(&mut server, &mut signals, &mut hangups).await?;
        tracing::info!("stopping; sidecars keep what they know");
        systemd::notify("STOPPING=1");
        unless_signalled_again(&mut signals, server.stop()).await;
        Ok(())
    })
}

/// Waits until the server is told to end, and reloads its files on SIGHUP.
///
/// # Errors
/// When the server dies.
pub(super) async fn until_told(
    server: &mut Server,
    signals: &mut Signals,
    hangups: &mut Signal,
) -> Result<(), AppError> {
    loop {
        let left = server.asked_to_leave();
        tokio::select! {
            () = signals.received() => return Ok(()),
            () = left => return Ok(()),
            _ = hangups.recv() => {}
            fault = server.failed() => return Err(fault),
        }
        if let Err(error) = server.reload().await {
            tracing::error!("{error}");
        }
    }
}

/// One line for each address, so that nobody has to guess a port.
pub(super) fn announce(sidecar: &Sidecar) {
    let bound = sidecar.bound();
    tracing::info!(service = %sidecar.service(), inbound = %bound.inbound, admin = bound.admin.map(tracing::field::display), "sidecar listens");
    if let Some(workload) = sidecar.workload() {
        tracing::info!(socket = %workload.path.display(), uids = ?workload.served(), "Workload API listens");
    }
    for upstream in &bound.upstreams {
        let (destination, address) = (&upstream.destination, upstream.address);
        if upstream.moved {
            tracing::warn!(%destination, %address, "the declared port is taken; using the next free one");
        } else {
            tracing::info!(%destination, %address, "upstream listens");
        }
    }
}

/// What runs on a runtime: a sidecar's data has threads of its own, its control work needs one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    Sidecar,
}

pub(super) fn runtime(kind: Kind) -> Result<tokio::runtime::Runtime, AppError> {
    let mut builder = match kind {
        Kind::Server => tokio::runtime::Builder::new_multi_thread(),
        Kind::Sidecar => tokio::runtime::Builder::new_current_thread(),
    };
    builder
        .enable_all()
        .build()
        .map_err(|source| AppError::Start { what: "the runtime".to_owned(), source })
}
