//! The command line: one file per command, each a thin layer over the library and the HTTP API.
//!
//! Data goes to stdout, everything else to stderr. Client commands gather a `Report` and print it
//! once, as a table or as one JSON value; errors are three lines. No command but the processes starts
//! more than a single-threaded runtime, and those that need no server start none.

mod access;
mod address;
mod agent;
mod api_token;
pub mod args;
mod ask;
mod audit;
mod ban;
mod ca;
mod call;
mod catalog;
mod cert;
mod child;
mod client;
mod config_entries;
mod connect;
mod consul;
pub mod error;
mod failure;
mod info;
mod instances;
mod intention;
mod kv;
mod lock;
mod maint;
mod members;
mod output;
mod processes;
mod proxies;
mod register;
mod report;
mod serve;
mod services;
mod sources;
mod status;
mod suggest;
mod tls;
mod token;
mod validate;
mod wait;
mod watch;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use self::access::Flags;
use self::address::Env;
use self::ask::{Question, ask};
use self::ca::CaCommand;
use self::error::{CliError, Exit};
use self::output::{ColorChoice, Style};
use self::report::{Report, Spoken};
use crate::net::privacy;

const AFTER_HELP: &str = "\
Exit codes:
  0  ok
  1  negative answer: denied, unhealthy, invalid
  2  usage, or a configuration that is not valid
  3  control plane unreachable
  4  permission
  5  not found
  6  timeout

Environment:
  WEFT_HTTP_ADDR        address of the HTTP API: host:port, http://…, https://… or unix:///path
  WEFT_HTTP_TOKEN_FILE  file with a token that is sent along with requests to the HTTP API
  WEFT_HTTP_TOKEN       the token itself
  WEFT_HTTP_SSL         `true` speaks TLS, as an https:// address does
  WEFT_CACERT           file with the authorities to believe; WEFT_CAPATH: directory of such files
  WEFT_CLIENT_CERT, WEFT_CLIENT_KEY   certificate to show, and its key
  WEFT_TLS_SERVER_NAME  name in the server's certificate, when it is not that of the address
  WEFT_HTTP_AUTH        user:password for a proxy before the HTTP API
  WEFT_GRPC_ADDR        where `proxy` and `run` find the control plane, when there is no --server
  CONSUL_HTTP_ADDR ...  the same for scripts written for Consul, when there is no WEFT_...
  SPIFFE_ENDPOINT_SOCKET  where `cert write` finds its sidecar: unix:///path
  WEFT_TOKEN            enrolment token of `proxy` and `run`, when there is no --token-file
  WEFT_DEBUGGABLE       `true` lets a debugger in and core files out, with the keys that are in them
  NO_COLOR              no colour, whatever the terminal

Called as `consul`, by a symbolic link, the program takes Consul's commands and flags.";

/// Set to `true`, it leaves the process open to debuggers, profilers and core files.
const DEBUGGABLE: &str = "WEFT_DEBUGGABLE";

/// A service mesh in one binary.
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// The HTTP API: where commands find it, and where `server` and `dev` listen
    /// [default: 127.0.0.1:8500]
    #[arg(long, global = true, value_name = "HOST:PORT|unix:///PATH")]
    http_addr: Option<String>,
    /// How to print what was found
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane
    Server(args::ServerArgs),
    /// Run the sidecar of one service instance
    Proxy(args::ProxyCommand),
    /// Run an application behind a sidecar
    Run(args::RunArgs),
    /// Run a control plane in memory, on loopback
    Dev(args::DevArgs),
    #[command(flatten)]
    Ask(Question),
    /// Check configuration files and directories
    Validate {
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Check audit logs
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Keep an application's certificate in files
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Show the version
    Version,
}

/// The commands that are sidecars, by themselves: to know every other command and its flags would cost
/// each of them half a megabyte for as long as it runs.
#[derive(Debug, Parser)]
struct Alone {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: SidecarCommand,
}

#[derive(Debug, Subcommand)]
enum SidecarCommand {
    Proxy(args::ProxyCommand),
    Run(args::RunArgs),
}

impl Alone {
    /// `None` when it is another command, or not quite this one: whoever knows all of them explains that.
    fn parse(args: &[OsString]) -> Option<Cli> {
        args.get(1).filter(|word| *word == "proxy" || *word == "run")?;
        let Self { global, command } = Self::try_parse_from(args).ok()?;
        let command = match command {
            SidecarCommand::Proxy(proxy) => Command::Proxy(proxy),
            SidecarCommand::Run(run) => Command::Run(run),
        };
        Some(Cli { global, command })
    }
}

/// Whose words are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Weft,
    /// Called as `consul`; the code of a command that failed.
    Consul {
        failure: u8,
    },
}

/// What surrounds a command.
struct Stage<'a> {
    env: Env<'a>,
    is_terminal: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let is_terminal = out.is_terminal();
    let mut stage = Stage { env: &env, is_terminal, out: &mut out, err: &mut err };
    if env(DEBUGGABLE).as_deref() != Some("true")
        && let Err(error) = privacy::close()
    {
        let _unheard =
            writeln!(stage.err, "weft: other processes of this user may read our memory: {error}");
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    let code = match args.split_first() {
        Some((name, args)) if consul::is_name(name) => consul::run(args, &mut stage),
        _ => run(args, &mut stage),
    };
    crate::telemetry::access::flush();
    ExitCode::from(code)
}

/// Runs one command; gives its exit code.
fn run(args: Vec<OsString>, stage: &mut Stage<'_>) -> u8 {
    match Alone::parse(&args).map_or_else(|| Cli::try_parse_from(args), Ok) {
        Ok(cli) => {
            let flags = Flags { http_addr: cli.global.http_addr.clone(), ..Flags::default() };
            execute(&cli, &flags, Dialect::Weft, stage)
        }
        Err(usage) => explain(&usage, stage),
    }
}

fn execute(cli: &Cli, flags: &Flags, dialect: Dialect, stage: &mut Stage<'_>) -> u8 {
    let style = Style::detect(cli.global.color, stage.env, stage.is_terminal);
    let done = match &cli.command {
        Command::Server(args) => serve::run(args, &cli.global).map(Exit::code),
        Command::Proxy(args) => processes::proxy(args, &cli.global).map(Exit::code),
        Command::Run(args) => processes::run(args),
        Command::Dev(args) => processes::dev(args, &cli.global).map(Exit::code),
        Command::Validate { paths } => {
            Ok(processes::validate(paths, cli.global.output, &mut stage.out, &mut stage.err))
        }
        Command::Ask(Question::Ca(CaCommand::Dev(args))) => {
            ca::dev::run(args, style).map(|report| print(&report, cli, dialect, stage))
        }
        Command::Cert(command) => {
            cert::run(command, style).map(|report| print(&report, cli, dialect, stage))
        }
        Command::Audit(command) => audit::run(command).map(|report| print(&report, cli, dialect, stage)),
        Command::Version => version().map(|report| print(&report, cli, dialect, stage)),
        Command::Ask(question) => ask(question, flags, stage.env, style, stage.out, stage.err)
            .map(|report| print(&report, cli, dialect, stage)),
    };
    done.unwrap_or_else(|error| {
        match (dialect, &error.consul) {
            (Dialect::Consul { .. }, Some(text)) => say(stage.err, text),
            _ => say(stage.err, &error),
        }
        match dialect {
            Dialect::Weft => error.fault.exit().code(),
            Dialect::Consul { failure } => failure,
        }
    })
}

/// Help and version go to stdout, faults of usage to stderr.
fn explain(usage: &clap::Error, stage: &mut Stage<'_>) -> u8 {
    let text = usage.render();
    if usage.use_stderr() {
        say(stage.err, &text.to_string().trim_end());
        return Exit::Usage.code();
    }
    say(stage.out, &text.to_string().trim_end());
    Exit::Ok.code()
}

fn version() -> Result<Report, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    Report::new(format!("weft {version}\n"), &json!({ "name": "weft", "version": version }))
}

/// Prints a report. A reader that has gone away (`| head`) is no fault of the command.
fn print(report: &Report, cli: &Cli, dialect: Dialect, stage: &mut Stage<'_>) -> u8 {
    let (text, code) = match (dialect, &report.consul) {
        (Dialect::Weft, _) => (&report.text, report.exit.code()),
        (Dialect::Consul { .. }, Some(Spoken { text, exit })) => (text, *exit),
        (Dialect::Consul { failure }, None) => {
            (&report.text, if report.exit == Exit::Ok { 0 } else { failure })
        }
    };
    let bytes = match (cli.global.output, &report.bytes) {
        (Output::Json, _) if report.json.is_null() => Vec::new(),
        (Output::Json, _) => format!("{:#}\n", report.json).into_bytes(),
        (Output::Table, Some(bytes)) => bytes.clone(),
        (Output::Table, None) => text.clone().into_bytes(),
    };
    if let Some(note) = &report.note {
        say(stage.err, note);
    }
    match stage.out.write_all(&bytes).and_then(|()| stage.out.flush()) {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => {
            say(stage.err, &format_args!("the result cannot be written: {fault}"));
            Exit::Negative.code()
        }
        _ => code,
    }
}

/// Writes a line that does not matter to the outcome: nothing can be done when nobody listens.
fn say(to: &mut dyn Write, what: &dyn Display) {
    let _nobody_listens = writeln!(to, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_sidecar_means_the_same_alone() {
        for line in [
            "weft proxy --config web.hcl",
            "weft proxy --config web.hcl --server a:1 --admin-addr 127.0.0.1:2 --output json",
            "weft run --name web --port 80 -- sleep 1",
        ] {
            let whole = Cli::try_parse_from(words(line)).unwrap();
            let alone = Alone::parse(&words(line)).expect(line);
            assert_eq!(format!("{alone:?}"), format!("{whole:?}"));
        }
    }

    #[test]
    fn what_is_to_be_explained_is_left_to_who_knows_all() {
        for line in ["weft proxy --help", "weft proxy --confg x", "weft run", "weft", "weft services"] {
            assert!(Alone::parse(&words(line)).is_none(), "{line}");
        }
    }
}
