//! Weft: a real control plane on disk and two real sidecars with tokens, everything at its default.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Peer, Place, command};
use crate::fault::{Doing, Outcome};
use crate::process::{self, Process};

pub struct Weft;

/// How long the control plane may take to come up.
const START: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(5);

/// Spare ports.
const HTTP: u16 = 0;
const GRPC: u16 = 1;
const SERVER_ADMIN: u16 = 2;
const CLIENT_ADMIN: u16 = 3;
const CLIENT_INBOUND: u16 = 4;
const CLIENT_APPLICATION: u16 = 5;

fn local(place: &Place<'_>, spare: u16) -> String {
    format!("127.0.0.1:{}", place.ports.spare(spare))
}

impl Weft {
    fn sidecar(
        program: &Path,
        place: &Place<'_>,
        service: &str,
        file: &str,
        inbound: u16,
        admin: u16,
    ) -> Outcome<Command> {
        let file = place.write(&format!("{service}.hcl"), file)?;
        let token = place.directory.join(format!("{service}.token"));
        let (server, admin, inbound) = (local(place, GRPC), local(place, admin), inbound.to_string());
        let mut command = command(
            program,
            [
                &"proxy",
                &"--config",
                &file,
                &"--server",
                &server,
                &"--token-file",
                &token,
                &"--node",
                &"bench",
            ],
        );
        command.args(["--inbound-port", &inbound, "--admin-addr", &admin]);
        // Else only root may read how much memory it takes.
        command.env("WEFT_DEBUGGABLE", "true");
        Ok(command)
    }
}

impl Peer for Weft {
    fn name(&self) -> &'static str {
        "weft"
    }

    fn program_name(&self) -> (&'static str, &'static str) {
        ("weft", "WEFT_BIN")
    }

    fn needs_certificates(&self) -> bool {
        false
    }

    fn prepare(&self, program: &Path, place: &Place<'_>) -> Outcome<Vec<Process>> {
        let (http, grpc, data) = (local(place, HTTP), local(place, GRPC), place.directory.join("data"));
        let mut server = command(
            program,
            [&"server", &"--data-dir", &data, &"--http-addr", &http, &"--grpc-addr", &grpc],
        );
        server.args(["--node", "bench", "--default-policy", "allow", "--dns-addr", "off"]);
        let mut server = Process::start("weft-server", server, place.directory)?;
        let deadline = Instant::now() + START;
        for service in ["backend", "load"] {
            let arguments = ["token", "create", "--service", service, "--http-addr", &http];
            let token = loop {
                server.check()?;
                match process::output(program, arguments) {
                    Err(_) if Instant::now() < deadline => std::thread::sleep(TICK),
                    ended => break ended.doing("make a token")?.0,
                }
            };
            place.write(&format!("{service}.token"), &token)?;
        }
        Ok(vec![server])
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let file = format!(
            "service {{\n  name = \"backend\"\n  port = {}\n  connect {{ sidecar_service {{}} }}\n}}\n",
            place.ports.backend
        );
        Self::sidecar(program, place, "backend", &file, place.ports.inner, SERVER_ADMIN)
    }

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let file = format!(
            "service {{\n  name = \"load\"\n  port = {}\n  connect {{ sidecar_service {{ proxy {{\n    \
             upstreams {{\n      destination_name = \"backend\"\n      local_bind_port = {}\n    }}\n  }} }} }}\n}}\n",
            place.ports.spare(CLIENT_APPLICATION),
            place.ports.outer
        );
        Self::sidecar(program, place, "load", &file, place.ports.spare(CLIENT_INBOUND), CLIENT_ADMIN)
    }
}
