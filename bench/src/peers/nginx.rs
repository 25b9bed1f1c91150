//! nginx with its stream module, built in or loaded. Told to use AES-128-GCM, which suits it better than
//! its default.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Peer, Place, command};
use crate::certificates::{CLIENT, SERVER};
use crate::fault::Outcome;
use crate::process;

pub struct Nginx;

/// Sockets of a worker: two for each of the connections that a measure opens, should one worker get all.
const MOST_SOCKETS: u32 = 12_000;

/// The line that loads the stream module, unless it is built in.
fn load_stream(program: &Path) -> Outcome<String> {
    let (text, errors) = process::output(program, ["-V"])?;
    let built = format!("{text} {errors}");
    if !built.contains("--with-stream=dynamic") {
        return Ok(String::new());
    }
    let directory = built.split_whitespace().find_map(|word| word.strip_prefix("--modules-path="));
    let module = PathBuf::from(directory.unwrap_or("modules")).join("ngx_stream_module.so");
    Ok(format!("load_module {};\n", module.display()))
}

fn start(
    program: &Path,
    place: &Place<'_>,
    side: &str,
    listen: &str,
    to: u16,
    tls: &str,
) -> Outcome<Command> {
    let directory = place.directory.display();
    let text = format!(
        "{}worker_processes {};\nworker_rlimit_nofile {};\npid {directory}/nginx-{side}.pid;\n\
         error_log {directory}/nginx-{side}.errors warn;\nevents {{ worker_connections {MOST_SOCKETS}; }}\n\
         stream {{\n  proxy_connect_timeout 5s;\n  proxy_timeout 1h;\n  server {{\n    \
         listen 127.0.0.1:{listen} backlog=4096;\n    tcp_nodelay on;\n    proxy_pass 127.0.0.1:{to};\n{tls}  }}\n}}\n",
        load_stream(program)?,
        place.workers,
        2 * MOST_SOCKETS
    );
    let file = place.write(&format!("nginx-{side}.conf"), &text)?;
    Ok(command(program, [&"-p", &place.directory, &"-c", &file, &"-g", &"daemon off;"]))
}

/// Directives of one direction, each with its value; `proxy_ssl` is the side that dials.
fn directives(
    prefix: &str,
    place: &Place<'_>,
    leaf: &crate::certificates::Leaf,
    more: &[(&str, &str)],
) -> String {
    let (chain, key) = (place.certificates.chain(leaf), place.certificates.key(leaf));
    let (chain, key) = (chain.display().to_string(), key.display().to_string());
    let common = [
        ("_protocols", "TLSv1.3"),
        ("_conf_command", "Ciphersuites TLS_AES_128_GCM_SHA256"),
        ("_certificate", &chain),
        ("_certificate_key", &key),
    ];
    common.iter().chain(more).map(|(name, value)| format!("    {prefix}{name} {value};\n")).collect()
}

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn program_name(&self) -> (&'static str, &'static str) {
        ("nginx", "NGINX_BIN")
    }

    fn version_argument(&self) -> &'static str {
        "-v"
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let root = place.certificates.root().display().to_string();
        let tls = directives(
            "ssl",
            place,
            &SERVER,
            &[("_client_certificate", &root), ("_verify_client", "on")],
        );
        let listen = format!("{} ssl", place.ports.inner);
        start(program, place, "server", &listen, place.ports.backend, &tls)
    }

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let root = place.certificates.root().display().to_string();
        let more = [
            ("", "on"),
            ("_verify", "on"),
            ("_trusted_certificate", &root),
            ("_name", SERVER.name),
            ("_server_name", "on"),
        ];
        let tls = directives("proxy_ssl", place, &CLIENT, &more);
        start(program, place, "client", &place.ports.outer.to_string(), place.ports.inner, &tls)
    }
}
