//! Programs that `watch` and `lock` start: how they are run, signalled and waited for.

use std::ffi::{OsStr, OsString};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use super::error::{CliError, Fault};

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// The shell when `SHELL` names none.
const SHELL: &str = "/bin/sh";

/// What to run, and with what.
pub(super) struct Program<'a> {
    pub(super) arguments: &'a [OsString],
    /// Joined with spaces and run by a shell, as Consul does by default.
    pub(super) shell: bool,
    pub(super) variable: (&'static str, String),
    pub(super) stdin: Input<'a>,
}

pub(super) enum Input<'a> {
    Nothing,
    Inherited,
    Bytes(&'a [u8]),
}

impl Program<'_> {
    /// Starts it; what it reads is written in the background.
    pub(super) fn start(&self) -> Result<Child, CliError> {
        let mut command = match (self.shell, self.arguments) {
            (false, [program, arguments @ ..]) => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            (_, arguments) => {
                let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
                let mut command = Command::new(shell.unwrap_or_else(|| SHELL.into()));
                command.arg("-c").arg(arguments.join(OsStr::new(" ")));
                command
            }
        };
        command.env(self.variable.0, &self.variable.1).kill_on_drop(true);
        command.stdin(match self.stdin {
            Input::Nothing => Stdio::null(),
            Input::Inherited => Stdio::inherit(),
            Input::Bytes(_) => Stdio::piped(),
        });
        let mut child = command.spawn().map_err(|cause| {
            let name =
                self.arguments.first().map_or_else(String::new, |name| name.to_string_lossy().into());
            CliError::new(
                Fault::Local,
                format!("cannot start `{name}`"),
                cause.to_string(),
                "check that the program exists and may be run",
            )
            .in_consul(format!("Error starting handler: {cause}"))
        })?;
        if let (Input::Bytes(bytes), Some(mut stdin)) = (&self.stdin, child.stdin.take()) {
            let bytes = bytes.to_vec();
            tokio::spawn(async move {
                // A program that does not read what it is given has its reasons.
                let _unread = stdin.write_all(&bytes).await;
            });
        }
        Ok(child)
    }
}

/// SIGINT and SIGTERM, which are handed on to the program that runs.
pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, CliError> {
        let listen = |kind| {
            unix::signal(kind).map_err(|cause| {
                let next = "try again; the system is short of something";
                CliError::new(Fault::Local, "signals cannot be received", cause.to_string(), next)
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// How a program ended.
pub(super) enum Ended {
    ByItself(ExitStatus),
    /// We were told to end, and so was it.
    Signalled,
}

/// Waits for the program; a signal ends it as well.
pub(super) async fn wait(child: &mut Child, signals: &mut Signals) -> Result<Ended, CliError> {
    tokio::select! {
        status = child.wait() => status.map(Ended::ByItself).map_err(|cause| {
            let next = "start it by hand to see what it does";
            CliError::new(Fault::Local, "the program was lost", cause.to_string(), next)
        }),
        signal = signals.next() => {
            end(child, signal).await;
            Ok(Ended::Signalled)
        }
    }
}

/// Asks the program to end, and makes it when it does not.
pub(super) async fn end(child: &mut Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself in this moment.
        let _gone = kill_process(pid, signal);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        // As above.
        let _gone = child.kill().await;
    }
}
