//! stunnel: a thread for each connection. Told to use AES-128-GCM, which suits it better than its default.

use std::path::Path;
use std::process::Command;

use super::{Peer, Place, command};
use crate::certificates::{CLIENT, Leaf, SERVER};
use crate::fault::Outcome;

pub struct Stunnel;

fn start(
    program: &Path,
    place: &Place<'_>,
    side: &str,
    leaf: &Leaf,
    [accept, connect]: [u16; 2],
    more: &str,
) -> Outcome<Command> {
    let (both, root) = (place.certificates.both(leaf), place.certificates.root());
    let text = format!(
        "foreground = yes\npid =\nsyslog = no\ndebug = 3\nsslVersionMin = TLSv1.3\n\
         ciphersuites = TLS_AES_128_GCM_SHA256\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
         TIMEOUTidle = 3600\n[bench]\naccept = 127.0.0.1:{accept}\nconnect = 127.0.0.1:{connect}\n\
         cert = {}\nCAfile = {}\nverifyChain = yes\n{more}",
        both.display(),
        root.display()
    );
    let file = place.write(&format!("stunnel-{side}.conf"), &text)?;
    Ok(command(program, [&file]))
}

impl Peer for Stunnel {
    fn name(&self) -> &'static str {
        "stunnel"
    }

    fn program_name(&self) -> (&'static str, &'static str) {
        ("stunnel4", "STUNNEL_BIN")
    }

    fn version_argument(&self) -> &'static str {
        "-version"
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let ports = [place.ports.inner, place.ports.backend];
        start(program, place, "server", &SERVER, ports, "requireCert = yes\n")
    }

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command> {
        let ports = [place.ports.outer, place.ports.inner];
        let more = format!("client = yes\nsni = {0}\ncheckHost = {0}\n", SERVER.name);
        start(program, place, "client", &CLIENT, ports, &more)
    }
}
