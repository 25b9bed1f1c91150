//! `weft wait NAME`: returns when a service has passing instances; for entrypoints.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::{BREATH, Call, encode, next_index};
use super::client::Client;
use super::error::{CliError, Exit, Fault};
use super::output::{Style, Tone, count, line};
use super::report::Report;
use crate::model::{ServiceName, duration};
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;

/// One blocking query; the server holds none longer than 10 min.
const LONGEST_QUERY: Duration = Duration::from_secs(60);
/// Waits between attempts while there is no server.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

#[derive(Debug, Clone, Args)]
pub(super) struct WaitArgs {
    /// Service that is needed
    name: ServiceName,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    /// How many passing instances are enough
    #[arg(long, value_name = "N", default_value_t = 1)]
    passing: usize,
}

/// Exits 6 when the time is over. A server that is not there yet is waited for, too.
pub(super) async fn run(client: &Client, args: &WaitArgs, style: Style) -> Result<Report, CliError> {
    let deadline = Instant::now() + args.timeout;
    let path = format!("/v1/health/service/{}", encode(args.name.as_str()));
    let (mut backoff, mut rng) = (Backoff::new(RETRY.0, RETRY.1), Rng::new());
    let (mut index, mut last) = (0, Seen::Nothing);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let call = Call::get(&path).flag("passing", true).after(index, left.min(LONGEST_QUERY));
        let asked = tokio::time::timeout_at(deadline, client.find_at::<Vec<Value>>(&call)).await;
        let pause = match asked {
            Err(_) => return Err(too_late(args, &last)),
            Ok(Ok((found, seen))) => {
                let passing = found.unwrap_or_default().len();
                if passing >= args.passing {
                    return report(args, passing, style);
                }
                backoff.reset();
                index = next_index(index, seen);
                last = Seen::Passing(passing);
                BREATH
            }
            Ok(Err(error)) if is_transient(error.fault) => {
                index = 0;
                last = Seen::Fault(error.what);
                backoff.next(&mut rng)
            }
            Ok(Err(error)) => return Err(error),
        };
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        if Instant::now() >= deadline {
            return Err(too_late(args, &last));
        }
    }
}

/// What the last answer was.
enum Seen {
    Nothing,
    Passing(usize),
    Fault(String),
}

/// What may pass by itself while a mesh starts.
const fn is_transient(fault: Fault) -> bool {
    matches!(fault, Fault::Unreachable | Fault::Timeout | Fault::Answer)
}

fn report(args: &WaitArgs, passing: usize, style: Style) -> Result<Report, CliError> {
    let said = count(passing, "passing instance");
    let text = line(style, Tone::Good, args.name.as_str(), &said);
    Ok(Report::new(text, &json!({ "service": args.name, "passing": passing }))?.with_exit(Exit::Ok))
}

fn too_late(args: &WaitArgs, last: &Seen) -> CliError {
    let WaitArgs { name, timeout, passing } = args;
    let evidence = match last {
        Seen::Nothing => "no answer came".to_owned(),
        Seen::Passing(count) => format!("{count} of {passing} pass"),
        Seen::Fault(what) => what.clone(),
    };
    let what = format!("`{name}` is not there after {}", duration::format(*timeout));
    CliError::new(Fault::Timeout, what, evidence, format!("see why: weft instances {name}"))
}
