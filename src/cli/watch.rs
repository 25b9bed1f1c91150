//! `weft watch`: prints a view once, or runs a program each time it changes.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::call::{BREATH, Call, encode, next_index};
use super::child::{Ended, Input, Program, Signals, wait};
use super::client::Client;
use super::error::{CliError, Exit, Fault, Lead};
use super::kv;
use super::report::{Report, indented};
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;

/// One blocking query.
const WAIT: Duration = Duration::from_secs(300);
/// Waits between attempts while the server cannot be asked.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[derive(Debug, Clone, Args)]
pub(super) struct WatchArgs {
    /// What to watch
    #[arg(long = "type", value_name = "TYPE")]
    kind: Kind,
    /// For `key`
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// For `keyprefix`
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// For `service`; and for `checks`, if not all of a state
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// For `service`: only instances with this tag; repeatable
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// For `service`: only instances whose checks pass
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = boolean
    )]
    passingonly: Option<bool>,
    /// For `checks`: any, passing, warning or critical
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Name of an event
    #[arg(long, value_name = "NAME", hide = true)]
    name: Option<String>,
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
    /// Program that gets the view as JSON on stdin, and its index in CONSUL_INDEX
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    super::access::parse_bool(text).ok_or_else(|| "use true or false".to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Key,
    Keyprefix,
    Services,
    Nodes,
    Service,
    Checks,
    #[value(name = "connect_roots")]
    ConnectRoots,
    Event,
}

pub(super) async fn run(
    client: &Client,
    args: &WatchArgs,
    err: &mut dyn Write,
) -> Result<Report, CliError> {
    // What cannot be asked is no fault of the server.
    view(args)?;
    let (mut value, mut index) = ask(client, args, 0).await.lead("Error querying Consul agent")?;
    if args.program.is_empty() {
        return Report::new(indented(&value, "    "), &value);
    }
    let mut signals = Signals::new()?;
    let (mut backoff, mut rng) = (Backoff::new(RETRY.0, RETRY.1), Rng::new());
    loop {
        if let Some(exit) = handle(args, &value, index, &mut signals).await? {
            return Ok(Report::silent(exit));
        }
        // Woken without a change, it only asks again.
        let (changed, at) = loop {
            let asked = tokio::select! {
                asked = ask(client, args, index) => asked,
                _ = signals.next() => return Ok(Report::silent(Exit::Ok)),
            };
            match asked {
                Ok((new, seen)) => {
                    backoff.reset();
                    index = next_index(index, seen);
                    if new != value {
                        break (new, index);
                    }
                    tokio::time::sleep(BREATH).await;
                }
                Err(error) => {
                    let pause = backoff.next(&mut rng);
                    let _nobody_listens = writeln!(err, "{}; trying again", error.what);
                    index = 0;
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = signals.next() => return Ok(Report::silent(Exit::Ok)),
                    }
                }
            }
        };
        (value, index) = (changed, at);
    }
}

/// Runs the program on a view; gives the exit code if that is the end.
async fn handle(
    args: &WatchArgs,
    value: &Value,
    index: u64,
    signals: &mut Signals,
) -> Result<Option<Exit>, CliError> {
    let input = format!("{value}\n");
    let program = Program {
        arguments: &args.program,
        shell: args.shell,
        variable: ("CONSUL_INDEX", index.to_string()),
        stdin: Input::Bytes(input.as_bytes()),
    };
    let mut child = program.start()?;
    match wait(&mut child, signals).await? {
        Ended::Signalled => Ok(Some(Exit::Ok)),
        Ended::ByItself(status) if status.success() => Ok(None),
        Ended::ByItself(status) => {
            let name = args.program.join(std::ffi::OsStr::new(" "));
            let what = format!("`{}` failed", name.to_string_lossy());
            let next = "mend the program; it has to end with 0 to be run again";
            Err(CliError::new(Fault::Local, what, status.to_string(), next)
                .in_consul(format!("Error executing handler: {status}")))
        }
    }
}

async fn ask(client: &Client, args: &WatchArgs, index: u64) -> Result<(Value, u64), CliError> {
    let call = view(args)?.after(index, WAIT);
    let (found, seen) = client.find_at::<Value>(&call).await?;
    let value = match (args.kind, found) {
        (Kind::Key, Some(Value::Array(pairs))) => pairs.into_iter().next().unwrap_or(Value::Null),
        (_, found) => found.unwrap_or(Value::Null),
    };
    Ok((value, seen))
}

/// What a type and its parameters ask for.
fn view(args: &WatchArgs) -> Result<Call, CliError> {
    let refuse = |what: &str, next: &str| {
        CliError::new(Fault::Usage, what, "the command line", next).in_consul(what)
    };
    Ok(match args.kind {
        Kind::Key => {
            let key = args.key.as_deref().filter(|key| !key.is_empty());
            let missing = || refuse("Must specify a single key to watch", "add --key KEY");
            Call::get(kv::path(key.ok_or_else(missing)?))
        }
        Kind::Keyprefix => {
            let missing = || refuse("Must specify a single prefix to watch", "add --prefix PREFIX");
            let prefix = args.prefix.as_deref().ok_or_else(missing)?;
            Call::get(kv::path(prefix)).flag("recurse", true)
        }
        Kind::Services => Call::get("/v1/catalog/services"),
        Kind::Nodes => Call::get("/v1/catalog/nodes"),
        Kind::Service => {
            let missing = || refuse("Must specify a single service to watch", "add --service NAME");
            let name = args.service.as_deref().ok_or_else(missing)?;
            let call = Call::get(format!("/v1/health/service/{}", encode(name)));
            let call = args.tag.iter().fold(call, |call, tag| call.with("tag", tag));
            if args.passingonly == Some(true) { call.with("passing", 1) } else { call }
        }
        Kind::Checks => match (&args.service, &args.state) {
            (Some(_), Some(_)) => {
                return Err(refuse("Cannot specify service and state", "leave one of them out"));
            }
            (Some(name), None) => Call::get(format!("/v1/health/checks/{}", encode(name))),
            (None, state) => {
                let state = state.as_deref().unwrap_or("any");
                Call::get(format!("/v1/health/state/{}", encode(state)))
            }
        },
        Kind::ConnectRoots => Call::get("/v1/agent/connect/ca/roots"),
        Kind::Event => {
            return Err(refuse("there are no events to watch", "watch a key that the sender writes"));
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: WatchArgs,
    }

    fn args(line: &str) -> WatchArgs {
        Alone::try_parse_from(std::iter::once("watch").chain(line.split_whitespace())).unwrap().args
    }

    #[test]
    fn views_by_table() {
        for (line, target) in [
            ("--type key --key /a/b", "/v1/kv/a/b"),
            ("--type keyprefix --prefix a/", "/v1/kv/a/?recurse"),
            ("--type services", "/v1/catalog/services"),
            ("--type nodes", "/v1/catalog/nodes"),
            (
                "--type service --service web --tag v1 --tag v2 --passingonly=true",
                "/v1/health/service/web?tag=v1&tag=v2&passing=1",
            ),
            ("--type service --service web --passingonly=false", "/v1/health/service/web"),
            ("--type checks", "/v1/health/state/any"),
            ("--type checks --state critical", "/v1/health/state/critical"),
            ("--type checks --service web", "/v1/health/checks/web"),
        ] {
            assert_eq!(view(&args(line)).unwrap().target(&[]), target, "{line}");
        }
        for line in
            ["--type key", "--type service", "--type event", "--type checks --service a --state any"]
        {
            assert_eq!(view(&args(line)).err().unwrap().fault, Fault::Usage, "{line}");
        }
    }

    #[test]
    fn what_follows_the_flags_is_the_program() {
        let parsed = args("--type nodes --shell=false cat -n --type x");
        assert_eq!(parsed.program, ["cat", "-n", "--type", "x"].map(OsString::from));
        assert!(!parsed.shell && args("--type nodes").shell);
    }
}
