//! `weft run`: a sidecar that starts the application once it is ready and outlives it.
//!
//! Order at the end: peers stop choosing us, inbound streams finish, the application is told to end
//! while its upstreams still work, and the sidecar leaves last. The exit code is the application's.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::AppError;
use super::process::{Kind, Signals, announce, runtime, unless_signalled_again};
use super::sidecar::{self, Sidecar};
use crate::net::socket;
use crate::workload;

/// How long the application may take to end after SIGTERM before it is killed.
const APPLICATION_GRACE: Duration = Duration::from_secs(30);
/// Variable that may hold the enrolment token, which is none of the application's business.
pub const TOKEN_VARIABLE: &str = "WEFT_TOKEN";
/// Shells report death by signal N as 128 + N.
const SIGNAL_BASE: i32 = 128;

/// Runs `command` behind a sidecar that must be ready within `start_timeout`; returns the
/// application's exit code.
///
/// # Errors
/// When the sidecar cannot start or the application cannot be started; then neither runs.
pub fn run(
    settings: sidecar::Settings,
    start_timeout: Duration,
    command: &[OsString],
) -> Result<u8, AppError> {
    let files = socket::raise_file_limit();
    tracing::debug!(files, "limit of open files");
    runtime(Kind::Sidecar)?.block_on(async {
        let mut signals = Signals::new()?;
        let mut sidecar = Sidecar::start(settings)?;
        announce(&sidecar);
        tokio::select! {
            ready = sidecar.ready(start_timeout) => ready?,
            () = signals.received() => return Ok(0),
        }
        let mut application = match start(command, sidecar.workload()) {
            Ok(application) => application,
            Err(fault) => {
                sidecar.finish().await;
                return Err(fault);
            }
        };
        // After the start: the application keeps the limit it would have without us.
        let files = socket::raise_file_limit();
        tracing::debug!(files, "limit of open files");
        let ended = tokio::select! {
            status = application.wait() => Some(status),
            () = signals.received() => None,
            fault = sidecar.failed() => {
                tracing::error!(error = %fault, "the sidecar failed; ending the application");
                None
            }
        };
        let leave = leave(sidecar, &mut application, ended.is_none());
        if unless_signalled_again(&mut signals, leave).await.is_none() {
            // Dropping the child kills it.
            return Ok(code(ExitStatus::from_raw(Signal::KILL.as_raw())));
        }
        let status = application.wait().await;
        status.map(code).map_err(|source| AppError::Start { what: "the application".to_owned(), source })
    })
}

fn start(command: &[OsString], workload: Option<&workload::Settings>) -> Result<Child, AppError> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(AppError::Usage("no command to run was given after `--`".to_owned()));
    };
    Command::new(program)
        .args(arguments)
        .env_remove(TOKEN_VARIABLE)
        .envs(workload.map(|settings| (workload::ENDPOINT_VARIABLE, settings.endpoint())))
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| AppError::Start { what: program.to_string_lossy().into_owned(), source })
}

async fn leave(sidecar: Sidecar, application: &mut Child, runs: bool) {
    sidecar.withdraw().await;
    let end_application = async {
        if runs {
            end(application).await;
        }
    };
    sidecar.finish_around(end_application).await;
}

/// Asks the application to end, and makes it when it does not.
async fn end(application: &mut Child) {
    let pid = application.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself in this moment.
        let _gone = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(APPLICATION_GRACE, application.wait()).await.is_err() {
        tracing::warn!(grace_s = APPLICATION_GRACE.as_secs(), "the application did not end; killing it");
        // As above.
        let _gone = application.kill().await;
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_BASE + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
