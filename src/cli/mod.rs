//! The command line: one file per command, each a thin layer over the library and the HTTP API.
//!
//! Data goes to stdout, everything else to stderr. Client commands gather a `Report` and print it
//! once, as a table or as one JSON value; errors are three lines. No command but the processes starts
//! more than a single-threaded runtime, and those that need no server start none.

mod address;
pub mod args;
mod ca;
mod client;
pub mod error;
mod failure;
mod instances;
mod intention;
mod output;
mod processes;
mod proxies;
mod serve;
mod services;
mod status;
mod suggest;
mod token;
mod validate;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use self::address::{Address, Env};
use self::client::Client;
use self::error::{CliError, Exit, Fault};
use self::output::{ColorChoice, Report, Style};
use crate::model::ServiceName;

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
  WEFT_HTTP_ADDR     address of the HTTP API
  CONSUL_HTTP_ADDR   the same, for scripts written for Consul
  CONSUL_HTTP_TOKEN  sent along with requests to the HTTP API
  WEFT_TOKEN         enrolment token of `proxy` and `run`, when there is no --token-file
  NO_COLOR           no colour, whatever the terminal";

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
    #[arg(long, global = true, value_name = "HOST:PORT")]
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
    /// Make certificates for testing by hand
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Show the version
    Version,
}

/// What is asked of a server.
#[derive(Debug, Subcommand)]
enum Question {
    /// List all services
    Services,
    /// Show the instances of a service
    Instances { name: ServiceName },
    /// Allow, deny and check connections
    #[command(subcommand)]
    Intention(intention::IntentionCommand),
    /// List all sidecars: exits 1 when one does not follow
    Proxies,
    /// Show the state of the mesh: exits 1 when something is wrong
    Status,
    /// Make enrolment tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let terminal = out.is_terminal();
    let code = run(std::env::args_os(), &env, terminal, &mut out, &mut err);
    crate::telemetry::access::flush();
    ExitCode::from(code)
}

/// Runs one command; gives its exit code.
fn run(
    args: impl IntoIterator<Item = OsString>,
    env: Env<'_>,
    is_terminal: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => return explain(&usage, out, err),
    };
    let style = Style::detect(cli.global.color, env, is_terminal);
    let done = match &cli.command {
        Command::Server(args) => serve::run(args, &cli.global).map(Exit::code),
        Command::Proxy(args) => processes::proxy(args, &cli.global).map(Exit::code),
        Command::Run(args) => processes::run(args),
        Command::Dev(args) => processes::dev(args, &cli.global).map(Exit::code),
        Command::Validate { paths } => Ok(processes::validate(paths, cli.global.output, out, err)),
        Command::Ca(command) => ca::run(command, style).map(|report| print(&report, &cli, out, err)),
        Command::Version => version().map(|report| print(&report, &cli, out, err)),
        Command::Ask(question) => {
            ask(question, &cli.global, env, style).map(|report| print(&report, &cli, out, err))
        }
    };
    done.unwrap_or_else(|error| {
        say(err, &error);
        error.fault.exit().code()
    })
}

/// Help and version go to stdout, faults of usage to stderr.
fn explain(usage: &clap::Error, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let text = usage.render();
    if usage.use_stderr() {
        say(err, &text.to_string().trim_end());
        return Exit::Usage.code();
    }
    say(out, &text.to_string().trim_end());
    Exit::Ok.code()
}

/// Asks the server, on a runtime of this thread alone.
fn ask(question: &Question, global: &Global, env: Env<'_>, style: Style) -> Result<Report, CliError> {
    let address = Address::resolve(global.http_addr.as_deref(), env)?;
    let token = env("CONSUL_HTTP_TOKEN").filter(|token| !token.is_empty());
    let client = Client::new(address, token);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| {
        let next = "raise the limit of open files (ulimit -n)";
        CliError::new(Fault::Local, "the command cannot start", fault.to_string(), next)
    })?;
    runtime.block_on(async {
        match question {
            Question::Services => services::run(&client, style).await,
            Question::Instances { name } => instances::run(&client, name, style).await,
            Question::Intention(command) => intention::run(&client, command, style).await,
            Question::Proxies => proxies::run(&client, style).await,
            Question::Status => status::run(&client, style).await,
            Question::Token(command) => token::run(&client, command).await,
        }
    })
}

fn version() -> Result<Report, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    Report::new(format!("weft {version}\n"), &json!({ "name": "weft", "version": version }))
}

/// Prints a report. A reader that has gone away (`| head`) is no fault of the command.
fn print(report: &Report, cli: &Cli, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let text = match cli.global.output {
        Output::Table => report.text.clone(),
        Output::Json => format!("{:#}\n", report.json),
    };
    if let Some(note) = &report.note {
        say(err, note);
    }
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => {
            say(err, &format_args!("the result cannot be written: {fault}"));
            Exit::Negative.code()
        }
        _ => report.exit.code(),
    }
}

/// Writes a line that does not matter to the outcome: nothing can be done when nobody listens.
fn say(to: &mut impl Write, what: &dyn Display) {
    let _nobody_listens = writeln!(to, "{what}");
}
