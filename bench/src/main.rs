//! Weft's tunnel beside the other tunnels on this machine: one command, the same loads, one report.
//!
//! `bench/run` builds and starts this; `docs/performance.md` says how to read what it prints. Threads and
//! epoll, no runtime: the load must cost little, and the same for everyone.

mod backend;
mod certificates;
mod fault;
mod load;
mod measures;
mod options;
mod peers;
mod poller;
mod process;
mod report;
mod session;
mod stats;
mod suite;
mod talk;
mod usage;

use std::process::ExitCode;

use fault::{Doing, Fault, Outcome};
use options::Options;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let ended = match arguments.peek().map(String::as_str) {
        Some("backend") => serve_backend(arguments.nth(1)),
        Some("--help" | "-h") => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        _ => Options::parse(arguments).and_then(|options| suite::run(&options)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn serve_backend(port: Option<String>) -> Outcome<()> {
    let port =
        port.and_then(|port| port.parse().ok()).ok_or_else(|| Fault::new("backend needs a port"))?;
    backend::serve(port)
}

/// Lets this process, and all that it starts, have as many sockets as the system allows.
fn raise_file_limit() -> Outcome<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .doing("raise the limit of open files")
}
