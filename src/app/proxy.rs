//! `weft proxy`: a sidecar until a signal, or until a successor takes over.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use super::AppError;
use super::process::{Kind, Signals, announce, hangups, runtime, unless_signalled_again};
use super::sidecar::{self, Door, Doors, Sidecar, Standby};
use super::upgrade::{Predecessor, Testator};
use crate::net::{socket, systemd};

/// How `weft proxy` begins and ends.
pub struct Settings {
    pub sidecar: sidecar::Settings,
    /// It gives up when it is not ready by then, be it new or a successor.
    pub start_timeout: Duration,
    /// Where successors come; `None` without upgrades in place.
    pub upgrade_socket: Option<PathBuf>,
    /// The sidecar to take over from.
    pub predecessor: Option<Predecessor>,
}

/// Why a sidecar that serves stops.
enum End {
    Signal,
    HandedOver,
}

/// Runs a sidecar until a signal, then drains it; or until a successor has taken over, then finishes
/// what runs.
///
/// # Errors
/// When it cannot start, is refused for good, or dies.
pub fn run(settings: Settings) -> Result<(), AppError> {
    // Before there are threads: it changes the environment.
    let given = given()?;
    let files = socket::raise_file_limit();
    tracing::debug!(files, "limit of open files");
    runtime(Kind::Sidecar)?.block_on(async {
        let mut signals = Signals::new()?;
        let limit = settings.start_timeout;
        let started = tokio::select! {
            started = start(settings, given) => started?,
            () = signals.received() => return Ok(()), // nobody knows of us yet
        };
        let (mut sidecar, testator) = started;
        tracing::info!(service = %sidecar.service(), "sidecar is ready");
        systemd::notify("READY=1");
        match serve(&mut sidecar, testator.as_ref(), limit, &mut signals).await? {
            End::Signal => leave(sidecar, testator, &mut signals).await,
            End::HandedOver => {
                drop(testator); // the successor listens there
                retire(sidecar, &mut signals).await;
            }
        }
        Ok(())
    })
}

/// The sockets that a service manager has opened for us.
fn given() -> Result<Doors, AppError> {
    let failed = |source| AppError::Start { what: "with the sockets of LISTEN_FDS".to_owned(), source };
    let mut doors = Doors::default();
    for (name, listener) in systemd::listeners().map_err(failed)? {
        let Ok(purpose) = name.parse() else {
            return Err(AppError::Usage(format!(
                "the socket `{name}` that was given to this process has no name of ours: use `inbound`, \
                 `admin` or `upstream-NAME` (FileDescriptorName=)"
            )));
        };
        let address = super::ports::local(&listener)?;
        doors.push(Door { purpose, address, listener, kept: true });
    }
    Ok(doors)
}

/// A sidecar that serves, and where its successor will come.
async fn start(settings: Settings, given: Doors) -> Result<(Sidecar, Option<Testator>), AppError> {
    let Settings { sidecar: own, start_timeout, upgrade_socket, predecessor } = settings;
    if let Some(predecessor) = predecessor {
        let (sidecar, testator) = succeed(own, start_timeout, predecessor).await?;
        return Ok((sidecar, Some(testator)));
    }
    let mut sidecar = Standby::start(own, given, None)?.open()?;
    let testator = upgrade_socket.as_deref().map(Testator::open).transpose()?;
    announce(&sidecar);
    sidecar.ready(start_timeout).await?;
    Ok((sidecar, testator))
}

/// Becomes what the predecessor is. Whatever fails before the end, the predecessor goes on.
async fn succeed(
    own: sidecar::Settings,
    limit: Duration,
    predecessor: Predecessor,
) -> Result<(Sidecar, Testator), AppError> {
    let (estate, doors, handing) = predecessor.receive(&sidecar::who(&own)).await?.split();
    let mut standby = Standby::start(own, doors, Some(estate))?;
    tokio::select! {
        ready = standby.ready(limit) => ready?,
        fault = handing.given_up() => return Err(fault.into()),
    }
    let sidecar = standby.open()?;
    announce(&sidecar);
    match handing.complete().await {
        Ok(testator) => {
            sidecar.claim();
            Ok((sidecar, testator))
        }
        Err(fault) => {
            // It may have taken connections already, which are its own to finish.
            sidecar.retire().await;
            Err(fault.into())
        }
    }
}

async fn serve(
    sidecar: &mut Sidecar,
    testator: Option<&Testator>,
    limit: Duration,
    signals: &mut Signals,
) -> Result<End, AppError> {
    let offer = sidecar.offer();
    let handed_over = async {
        let Some(testator) = testator else { return std::future::pending().await };
        let mut hangups = hangups()?;
        let mut handed_over = std::pin::pin!(testator.handed_over(offer, limit));
        loop {
            tokio::select! {
                () = &mut handed_over => return Ok(End::HandedOver),
                _ = hangups.recv() => start_successor(),
            }
        }
    };
    tokio::select! {
        () = signals.received() => Ok(End::Signal),
        fault = sidecar.failed() => Err(fault),
        end = handed_over => end,
    }
}

/// Starts the program as it was started, which may be another version by now. It comes to the upgrade
/// socket like any other.
fn start_successor() {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    match Command::new(&program).args(arguments).spawn() {
        Ok(mut child) => {
            tracing::info!(process = child.id(), "SIGHUP: started a successor");
            tokio::spawn(async move {
                if let Ok(status) = child.wait().await {
                    tracing::warn!(%status, "the successor has ended");
                }
            });
        }
        Err(error) => tracing::warn!(%error, program = %program.display(), "cannot start a successor"),
    }
}

async fn leave(sidecar: Sidecar, testator: Option<Testator>, signals: &mut Signals) {
    systemd::notify("STOPPING=1");
    if let Some(testator) = testator {
        testator.close();
    }
    let leave = async {
        sidecar.withdraw().await;
        sidecar.finish().await
    };
    report(unless_signalled_again(signals, leave).await);
}

/// Whoever ends the service signals all of its processes: the first signal asks for what is under way.
async fn retire(sidecar: Sidecar, signals: &mut Signals) {
    let mut retire = std::pin::pin!(sidecar.retire());
    tokio::select! {
        whole = &mut retire => report(Some(whole)),
        () = signals.received() => {
            tracing::info!("draining already, for a successor");
            report(unless_signalled_again(signals, retire).await);
        }
    }
}

fn report(whole: Option<bool>) {
    match whole {
        Some(true) => tracing::info!("drained"),
        Some(false) => tracing::warn!("some streams did not end within the grace and were closed"),
        None => {}
    }
}
