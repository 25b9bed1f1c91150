//! `weft cert write`: the certificate of an application as PEM files, kept fresh from the Workload API of
//! its sidecar.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::args::LogArgs;
use super::child::{Ended, Input, Program, Signals, end, wait};
use super::error::{CliError, Fault};
use super::output::{Style, Tone, line};
use super::processes;
use super::report::Report;
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;
use crate::workload::ENDPOINT_VARIABLE;
use crate::workload::client::{FetchError, Fetched, Svids, socket_of};
use crate::workload::files::{BUNDLE, CERTIFICATE, Files, FilesError, KEY};

/// How long `--once` waits for a sidecar that is not there yet.
const ONCE_LIMIT: Duration = Duration::from_secs(30);
/// First and longest pause before the sidecar is asked again.
const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// How long the command of `--exec` may take.
const EXEC_LIMIT: Duration = Duration::from_secs(60);
/// Tells the program of `--exec` where the files are.
const DIRECTORY_VARIABLE: &str = "WEFT_CERT_DIR";

#[derive(Debug, Clone, Subcommand)]
pub(super) enum CertCommand {
    /// Keep certificate, key and trust bundle of the application in files
    Write(WriteArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct WriteArgs {
    /// Where the files go: svid.pem, svid_key.pem and bundle.pem; made when missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The sidecar's --workload-socket: /PATH or unix:///PATH [default: SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Write them once and end
    #[arg(long)]
    once: bool,
    /// Run this command with a shell whenever the files have changed
    #[arg(long, value_name = "CMD")]
    exec: Option<OsString>,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) fn run(command: &CertCommand, style: Style) -> Result<Report, CliError> {
    let CertCommand::Write(args) = command;
    processes::log(&args.log, "info")?;
    let socket = socket(args)?;
    let files = Files::open(args.dir.clone()).map_err(|error| unwritten(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        let next = "check that limits (ulimit -a) allow it";
        CliError::new(Fault::Local, "cannot start", error.to_string(), next)
    })?;
    runtime.block_on(async {
        let signals = Signals::new()?;
        let mut writer = Writer { args, socket, files, signals, written: None, is_told_to_end: false };
        match args.once {
            true => writer.once().await?,
            false => writer.keep().await?,
        }
        let id = writer.written.map(|svid| svid.id).unwrap_or_default();
        let text = line(style, Tone::Good, "wrote", &format!("{} of {id}", args.dir.display()));
        Report::new(text, &json!({ "spiffe_id": id, "files": [CERTIFICATE, KEY, BUNDLE] }))
    })
}

fn socket(args: &WriteArgs) -> Result<PathBuf, CliError> {
    let next = "name the sidecar's --workload-socket with --socket or SPIFFE_ENDPOINT_SOCKET";
    let Some(address) = args.socket.clone().or_else(|| std::env::var(ENDPOINT_VARIABLE).ok()) else {
        return Err(CliError::new(Fault::Usage, "no Workload API is named", ENDPOINT_VARIABLE, next));
    };
    socket_of(&address).map_err(|error| {
        CliError::new(Fault::Usage, "the Workload API cannot be found", error.to_string(), next)
    })
}

struct Writer<'a> {
    args: &'a WriteArgs,
    socket: PathBuf,
    files: Files,
    signals: Signals,
    /// What the files hold.
    written: Option<Fetched>,
    /// A signal came while the command of `--exec` ran.
    is_told_to_end: bool,
}

/// Why following ended.
enum End {
    Signal,
    Trouble(FetchError),
}

impl Writer<'_> {
    /// Writes the files once; waits a while for a sidecar that is not there yet.
    async fn once(&mut self) -> Result<(), CliError> {
        let (mut backoff, mut rng) = (Backoff::new(RETRY_LEAST, RETRY_MOST), Rng::new());
        let started = Instant::now();
        loop {
            let socket = self.socket.clone();
            match async { Svids::follow(socket).await?.next().await }.await {
                Ok(svid) => return self.write(svid).await,
                Err(error) if error.may_pass() && started.elapsed() < ONCE_LIMIT => {
                    tracing::debug!(%error, "no SVID yet");
                }
                Err(error) => return Err(refused(&error)),
            }
            sleep(backoff.next(&mut rng)).await;
        }
    }

    /// Writes the files whenever the SVID changes, until a signal.
    async fn keep(&mut self) -> Result<(), CliError> {
        let (mut backoff, mut rng) = (Backoff::new(RETRY_LEAST, RETRY_MOST), Rng::new());
        loop {
            let error = match Svids::follow(self.socket.clone()).await {
                Ok(svids) => match self.follow(svids).await? {
                    End::Signal => return Ok(()),
                    End::Trouble(error) => {
                        backoff.reset();
                        error
                    }
                },
                Err(error) => error,
            };
            if self.written.is_none() && !error.may_pass() {
                return Err(refused(&error));
            }
            tracing::warn!(%error, "trouble with the Workload API; trying again");
            if timeout(backoff.next(&mut rng), self.signals.next()).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn follow(&mut self, mut svids: Svids) -> Result<End, CliError> {
        loop {
            let next = tokio::select! {
                next = svids.next() => next,
                _ = self.signals.next() => return Ok(End::Signal),
            };
            match next {
                Ok(svid) => self.write(svid).await?,
                Err(error) => return Ok(End::Trouble(error)),
            }
            if self.is_told_to_end {
                return Ok(End::Signal);
            }
        }
    }

    /// Writes what is new, and tells the program of it.
    async fn write(&mut self, svid: Fetched) -> Result<(), CliError> {
        if self.written.as_ref().is_some_and(|had| had.chain == svid.chain && had.roots == svid.roots) {
            return Ok(());
        }
        self.files.replace(&svid).map_err(|error| unwritten(&error))?;
        tracing::info!(id = svid.id, dir = %self.args.dir.display(), "files written");
        self.written = Some(svid);
        match &self.args.exec {
            Some(command) => self.tell(command).await,
            None => Ok(()),
        }
    }

    /// Runs the command of `--exec`. That it fails matters only to who asked for one run.
    async fn tell(&mut self, command: &OsString) -> Result<(), CliError> {
        let program = Program {
            arguments: std::slice::from_ref(command),
            shell: true,
            variable: (DIRECTORY_VARIABLE, self.args.dir.to_string_lossy().into_owned()),
            stdin: Input::Nothing,
        };
        let mut child = program.start()?;
        let evidence = match timeout(EXEC_LIMIT, wait(&mut child, &mut self.signals)).await {
            Ok(ended) => match ended? {
                Ended::ByItself(status) if status.success() => return Ok(()),
                Ended::ByItself(status) => status.to_string(),
                Ended::Signalled => {
                    self.is_told_to_end = true;
                    "a signal came first".to_owned()
                }
            },
            Err(_) => {
                end(&mut child, Signal::TERM).await;
                format!("it did not end within {EXEC_LIMIT:?}")
            }
        };
        if self.args.once {
            let next = "run it by hand; the files are written";
            return Err(CliError::new(Fault::Refused, "the command of --exec failed", evidence, next));
        }
        tracing::warn!(evidence, "the command of --exec failed");
        Ok(())
    }
}

fn refused(error: &FetchError) -> CliError {
    let (fault, next) = match error {
        FetchError::Unreachable { .. } => {
            (Fault::Unreachable, "start the sidecar with --workload-socket PATH, and name that here")
        }
        FetchError::Refused(_) => {
            (Fault::Permission, "add this user to the sidecar's list with --workload-uid UID")
        }
        _ => (Fault::Unreachable, "the log of the sidecar says what it is waiting for"),
    };
    CliError::new(fault, "no certificate was written", error.to_string(), next)
}

fn unwritten(error: &FilesError) -> CliError {
    let next = "choose a --dir that this user can write and that holds nothing else";
    CliError::new(Fault::Local, "the files cannot be written", error.to_string(), next)
}
