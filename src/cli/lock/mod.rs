//! `weft lock`: runs a program while a lock, or one slot of a semaphore, is held.
//!
//! The protocol is that of Consul's clients (keys, flags, contents), so that both can compete for the
//! same lock. A session with a TTL carries the claim: when this process dies, the server lets go of it.
//! Held and watched for as long as the program runs; when it is lost, the program is ended.

mod mutex;
mod semaphore;
mod session;

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use self::mutex::Mutex;
use self::semaphore::Semaphore;
use self::session::Session;
use super::call::BREATH;
use super::child::{self, Ended, Input, Program, Signals};
use super::client::Client;
use super::error::{CliError, Exit, Fault, Lead};
use super::report::Report;
use super::watch::boolean;
use crate::model::duration;

/// Between attempts to find out whether the lock is still held.
const MONITOR_RETRY: Duration = Duration::from_secs(1);
/// Last part of the key of a lock, and of the key where the holders of a semaphore are listed.
const KEY: &str = ".lock";

#[derive(Debug, Clone, Args)]
pub(super) struct LockArgs {
    /// How many may hold it at once; all of them have to say the same
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    limit: u32,
    /// Name of the session, for people
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Give up when it cannot be had within this time [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// How many failures to reach the server mean that it is lost
    #[arg(long, value_name = "N", default_value_t = 3)]
    monitor_retry: u32,
    /// Hand stdin on to the program
    #[arg(long)]
    pass_stdin: bool,
    /// Run the program by a shell: $SHELL, or /bin/sh
    #[arg(
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        value_parser = boolean
    )]
    shell: bool,
    /// Exit 1 (as `consul`, 2) when the program fails
    #[arg(long)]
    child_exit_code: bool,
    /// Say what happens
    #[arg(long)]
    verbose: bool,
    /// Key under which it is kept
    prefix: String,
    /// Program to run while it is held; CONSUL_LOCK_HELD=true is in its environment
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// What is held.
enum Claim<'a> {
    Mutex(Mutex<'a>),
    Semaphore(Semaphore<'a>),
}

impl Claim<'_> {
    async fn acquire(&self) -> Result<(), CliError> {
        match self {
            Self::Mutex(mutex) => mutex.acquire().await,
            Self::Semaphore(semaphore) => semaphore.acquire().await,
        }
    }

    async fn is_held(&self, index: u64) -> Result<(bool, u64), CliError> {
        match self {
            Self::Mutex(mutex) => mutex.is_held(index).await,
            Self::Semaphore(semaphore) => semaphore.is_held(index).await,
        }
    }

    async fn release(&self) -> Result<(), CliError> {
        match self {
            Self::Mutex(mutex) => mutex.release().await,
            Self::Semaphore(semaphore) => semaphore.release().await,
        }
    }

    /// Returns when it is lost, or cannot be seen any more.
    async fn lost(&self, retries: u32) {
        let (mut index, mut failures) = (0, 0);
        loop {
            match self.is_held(index).await {
                Ok((true, next)) => {
                    (index, failures) = (next, 0);
                    tokio::time::sleep(BREATH).await;
                }
                Ok((false, _)) => return,
                Err(_) if failures >= retries => return,
                Err(_) => {
                    (index, failures) = (0, failures + 1);
                    tokio::time::sleep(MONITOR_RETRY).await;
                }
            }
        }
    }
}

pub(super) async fn run(
    client: &Client,
    args: &LockArgs,
    err: &mut dyn Write,
) -> Result<Report, CliError> {
    let prefix = args.prefix.trim_matches('/');
    let name = args.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let program = args.program.join(std::ffi::OsStr::new(" "));
        format!("Consul lock for '{}' at '{prefix}'", program.to_string_lossy())
    });
    let session = Session::create(client, &name, args.limit > 1).await.lead("Lock setup failed")?;
    let claim = if args.limit == 1 {
        Claim::Mutex(Mutex::new(client, session.id(), prefix))
    } else {
        Claim::Semaphore(Semaphore::new(client, session.id(), prefix, args.limit))
    };
    let outcome = tokio::select! {
        outcome = hold(&claim, args, err) => outcome,
        never = session.keep() => match never {},
    };
    session.destroy().await;
    outcome
}

async fn hold(claim: &Claim<'_>, args: &LockArgs, err: &mut dyn Write) -> Result<Report, CliError> {
    let mut say = |text: &str| {
        if args.verbose {
            let _nobody_listens = writeln!(err, "{text}");
        }
    };
    let mut signals = Signals::new()?;
    say("Attempting lock acquisition");
    tokio::select! {
        acquired = acquire(claim, args.timeout) => acquired?,
        _ = signals.next() => return Err(not_acquired("a signal came while waiting", Fault::Refused)),
    }
    say("Starting handler");
    let ended = run_program(claim, args, &mut signals).await;
    say("Releasing lock");
    let released = claim.release().await.lead("Lock release failed");
    let ended = ended?;
    released?;
    let Ended::ByItself(status) = ended else { return Ok(Report::silent(Exit::Ok)) };
    if status.success() {
        return Ok(Report::silent(Exit::Ok));
    }
    let report = if args.child_exit_code {
        Report::silent(Exit::Negative).in_consul_with("", 2)
    } else {
        Report::silent(Exit::Ok)
    };
    Ok(report.with_note(format!("Error running handler: {status}")))
}

async fn acquire(claim: &Claim<'_>, limit: Option<Duration>) -> Result<(), CliError> {
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return claim.acquire().await.lead("Lock acquisition failed");
    };
    match tokio::time::timeout(limit, claim.acquire()).await {
        Ok(acquired) => acquired.lead("Lock acquisition failed"),
        Err(_) => {
            let evidence = format!("others held it for {}", duration::format(limit));
            Err(not_acquired(&evidence, Fault::Timeout))
        }
    }
}

fn not_acquired(evidence: &str, fault: Fault) -> CliError {
    let next = "see who holds it: weft kv get --recurse --detailed PREFIX";
    CliError::new(fault, "the lock was not acquired", evidence, next)
        .in_consul("Shutdown triggered or timeout during lock acquisition")
}

async fn run_program(
    claim: &Claim<'_>,
    args: &LockArgs,
    signals: &mut Signals,
) -> Result<Ended, CliError> {
    let program = Program {
        arguments: &args.program,
        shell: args.shell,
        variable: ("CONSUL_LOCK_HELD", "true".to_owned()),
        stdin: if args.pass_stdin { Input::Inherited } else { Input::Nothing },
    };
    let mut running = program.start()?;
    let ended = tokio::select! {
        ended = child::wait(&mut running, signals) => Some(ended),
        () = claim.lost(args.monitor_retry) => None,
    };
    if let Some(ended) = ended {
        return ended;
    }
    child::end(&mut running, Signal::TERM).await;
    let next = "look at the server's log; the program has to run again";
    let what = "the lock was lost, and the program was ended";
    Err(CliError::new(Fault::Refused, what, "its session ended or the server was away", next)
        .in_consul("Lock lost, killing child"))
}
