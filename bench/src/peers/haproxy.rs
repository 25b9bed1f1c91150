//! HAProxy in TCP mode. Told to use AES-128-GCM, which suits it better than its default.

use std::path::Path;
use std::process::Command;

use super::{Peer, Place, command};
use crate::certificates::{CLIENT, SERVER};
use crate::fault::Outcome;

pub struct Haproxy;

/// Connections a side may have, above any number that a measure opens.
const MOST_CONNECTIONS: u32 = 8000;
const TLS: &str = "ssl verify required ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256";

fn start(program: &Path, place: &Place<'_>, side: &str, bind: &str, server: &str) -> Outcome<Command> {
    let text = format!(
        "global\n  maxconn {MOST_CONNECTIONS}\n  nbthread {}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen bench\n  bind 127.0.0.1:{bind}\n  server next 127.0.0.1:{server}\n",
        place.workers
    );
    let file = place.write(&format!("haproxy-{side}.cfg"), &text)?;
    // In the foreground.
    Ok(command(program, [&"-db", &"-f", &file]))
}

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn program_name(&self) -> (&'static str, &'static str) {
        ("haproxy", "HAPROXY_BIN")
    }

    fn version_argument(&self) -> &'static str {
        "-v"
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let (leaf, root) = (place.certificates.both(&SERVER), place.certificates.root());
        let bind =
            format!("{} {TLS} crt {} ca-file {}", place.ports.inner, leaf.display(), root.display());
        start(program, place, "server", &bind, &place.ports.backend.to_string())
    }

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let (leaf, root) = (place.certificates.both(&CLIENT), place.certificates.root());
        let name = SERVER.name;
        let server = format!(
            "{} {TLS} crt {} ca-file {} verifyhost {name} sni str({name})",
            place.ports.inner,
            leaf.display(),
            root.display()
        );
        start(program, place, "client", &place.ports.outer.to_string(), &server)
    }
}
