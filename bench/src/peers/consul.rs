//! Consul's built-in Connect proxy: two of them under an agent in development mode.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Peer, Place, command};
use crate::fault::{Doing, Outcome};
use crate::process::{self, Process};

pub struct Consul;

/// How long an agent may take to elect itself and make its root certificate.
const START: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(50);

/// Spare ports.
const HTTP: u16 = 0;
const RPC: u16 = 1;
const SERF_LAN: u16 = 2;
const SERF_WAN: u16 = 3;

fn http(place: &Place<'_>) -> String {
    format!("-http-addr=http://127.0.0.1:{}", place.ports.spare(HTTP))
}

fn proxy(program: &Path, place: &Place<'_>, arguments: &[String]) -> Command {
    let mut command = command(program, [&"connect", &"proxy", &http(place), &"-log-level=err"]);
    command.args(arguments);
    command
}

impl Peer for Consul {
    fn name(&self) -> &'static str {
        "consul"
    }

    fn program_name(&self) -> (&'static str, &'static str) {
        ("consul", "CONSUL_BIN")
    }

    fn needs_certificates(&self) -> bool {
        false
    }

    fn version_argument(&self) -> &'static str {
        "version"
    }

    fn prepare(&self, program: &Path, place: &Place<'_>) -> Outcome<Vec<Process>> {
        let ports = |index| place.ports.spare(index);
        let settings = serde_json::json!({
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "connect": { "enabled": true },
            "disable_update_check": true,
            "log_level": "ERR",
            "ports": {
                "http": ports(HTTP), "server": ports(RPC), "serf_lan": ports(SERF_LAN),
                "serf_wan": ports(SERF_WAN), "dns": -1, "grpc": -1, "https": -1,
            },
        });
        let file = place.write("consul-agent.json", &settings.to_string())?;
        let file = format!("-config-file={}", file.display());
        let agent = command(program, [&"agent", &"-dev", &"-node=bench", &file]);
        let mut agent = Process::start("consul-agent", agent, place.directory)?;
        let deadline = Instant::now() + START;
        let port = format!("-port={}", place.ports.backend);
        // A leader first: the first registration may be answered by an agent that has none.
        let calls: [&[&str]; 3] = [
            &["operator", "raft", "list-peers"],
            &["connect", "ca", "get-config"],
            &["services", "register", "-name=backend", "-address=127.0.0.1", &port],
        ];
        for call in calls {
            let verb = call.iter().take_while(|word| !word.starts_with('-')).count();
            let http = http(place);
            let arguments =
                call[..verb].iter().copied().chain([http.as_str()]).chain(call[verb..].iter().copied());
            let arguments: Vec<&str> = arguments.collect();
            loop {
                agent.check()?;
                match process::output(program, &arguments) {
                    Err(_) if Instant::now() < deadline => std::thread::sleep(TICK),
                    ended => {
                        ended.doing(format!("consul {}", call.join(" ")))?;
                        break;
                    }
                }
            }
        }
        Ok(vec![agent])
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let arguments = [
            "-service=backend".to_owned(),
            format!("-service-addr=127.0.0.1:{}", place.ports.backend),
            format!("-listen=127.0.0.1:{}", place.ports.inner),
            "-register".to_owned(),
        ];
        Ok(proxy(program, place, &arguments))
    }

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let arguments = ["-service=load".to_owned(), format!("-upstream=backend:{}", place.ports.outer)];
        Ok(proxy(program, place, &arguments))
    }
}
