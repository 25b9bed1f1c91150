//! Faults of the long-running commands in the three lines that every command uses.

use super::error::{CliError, Fault};
use crate::agent::AgentError;
use crate::app::AppError;
use crate::etcd::EtcdError;

fn of_access(what: String) -> CliError {
    let next = "check the file that the message names; docs/access.md says what it has to be";
    CliError::new(Fault::Local, what, "access to the HTTP API", next)
}

/// What failed, the evidence, and the next step.
pub(super) fn explain(error: AppError) -> CliError {
    let what = error.to_string();
    match error {
        AppError::Config(diagnostics) => {
            let rendered: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
            let next = "mend the file; `weft validate PATH` checks it without starting anything";
            let count = match rendered.len() {
                1 => "one fault".to_owned(),
                count => format!("{count} faults"),
            };
            let evidence = format!("{count}\n\n{}\n", rendered.join("\n").trim_end());
            CliError::new(Fault::Usage, what, evidence, next)
        }
        AppError::Usage(_) | AppError::Name(_) | AppError::Etcd(EtcdError::NotLoopback(_)) => {
            CliError::new(Fault::Usage, what, "the command line", "see `weft --help`")
        }
        AppError::Bind { address, purpose, source } => CliError::new(
            Fault::Local,
            format!("cannot listen on {address} for {purpose}"),
            source.to_string(),
            "stop what uses the port (`ss -ltnp` shows it), or choose another port",
        ),
        AppError::NoPort { .. } => {
            let next = "stop sidecars that are not needed, or set --inbound-port";
            CliError::new(Fault::Local, what, "every port of the range is in use", next)
        }
        AppError::File { action, path, source } => CliError::new(
            Fault::Local,
            format!("cannot {action} {}", path.display()),
            source.to_string(),
            "check that the path exists and that this user may use it",
        ),
        AppError::Unreachable { servers, seconds, cause } => CliError::new(
            Fault::Unreachable,
            format!("no control plane could be reached within {seconds} s at {servers}"),
            cause,
            "start one with `weft server` or `weft dev`, or say where it is with --server HOST:PORT",
        ),
        AppError::Agent(fault) => refused(what, &fault),
        AppError::Story(_) => CliError::new(
            Fault::Refused,
            what,
            "the demo's story",
            "run `weft dev --demo --log-level debug` and play it by hand",
        ),
        AppError::Upgrade(_) => {
            let next = "mend this and start it again; a sidecar that runs goes on serving";
            CliError::new(Fault::Local, "no upgrade in place", what, next)
        }
        AppError::Workload(_) => {
            let next = "mend this, or start the sidecar without --workload-socket";
            CliError::new(Fault::Local, "no Workload API", what, next)
        }
        AppError::Tls(_) | AppError::Audit(_) | AppError::Access(_) => of_access(what),
        AppError::Store(_) | AppError::Catalog(_) | AppError::Kv(_) | AppError::Ca(_) => {
            let next = "if the message names a file, check it and the disk; the log has more";
            CliError::new(Fault::Local, what, "the server's state", next)
        }
        AppError::Control(_) | AppError::Api(_) | AppError::Dns(_) | AppError::Etcd(_) => {
            let next = "stop what uses the port (`ss -ltnp` shows it), or choose another port";
            CliError::new(Fault::Local, what, "the server's ports", next)
        }
        AppError::Start { what, source } => {
            let next = "check that the program exists and that limits (ulimit -a) allow it";
            CliError::new(Fault::Local, format!("cannot start {what}"), source.to_string(), next)
        }
        AppError::Died(_) => {
            let next = "start it again, and report the log of the last run";
            CliError::new(Fault::Local, what, "a task ended that never should", next)
        }
    }
}

fn refused(evidence: String, fault: &AgentError) -> CliError {
    let next = match fault {
        AgentError::NoServer => "say where the control plane is with --server HOST:PORT",
        AgentError::NoInstance => "declare the service in the file given with --config",
        AgentError::Enrolment(_) => {
            "make a token for this service with `weft token create --service NAME`; each is good once"
        }
        AgentError::Inherited(_) => {
            "stop the running sidecar and start this one with a fresh token (`weft token create`)"
        }
        AgentError::Registration(_) => "give each instance its own id, and a token for its own service",
    };
    CliError::new(Fault::Permission, "the control plane refused this sidecar", evidence, next)
}
