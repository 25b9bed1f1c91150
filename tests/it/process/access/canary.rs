//! Secrets planted on purpose, and looked for in everything that a server and a sidecar write and say.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustix::process::Signal;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::tls;

use super::super::mesh::{ran, send};
use super::super::support::{Process, free_port, local, until};
use super::pki::Authority;
use super::{Server, at, text};
use crate::control::dial;

/// Nobody's token: what a caller sends by mistake, too, must not be written.
const STRAY: &str = "canary-stray-credential-0123456789";
const OPERATOR: &str = "canary-operator-credential-0123456789";
const NAME: &str = "canary-name-in-a-certificate-request";

/// What must not be found, with a word for it.
struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    fn absent(&self, place: &str, bytes: &[u8]) {
        for (what, secret) in &self.0 {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{what} is in {place}");
        }
    }

    /// Looks through every file below a directory; says how many there were.
    fn absent_below(&self, directory: &Path) -> usize {
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                count += self.absent_below(&path);
            } else {
                self.absent(&path.to_string_lossy(), &std::fs::read(&path).unwrap());
                count += 1;
            }
        }
        count
    }
}

/// The part of a token that proves possession.
fn secret(token: &str) -> Vec<u8> {
    token.trim().split('.').nth(2).unwrap().as_bytes().to_vec()
}

#[tokio::test]
#[allow(
    clippy::too_many_lines,
    reason = "one story: everything that holds a secret is made, used and searched"
)]
async fn no_secret_is_written_or_said() {
    let directory = tempfile::tempdir().unwrap();
    let (file, audit) = (directory.path().join("operator"), directory.path().join("audit"));
    std::fs::write(&file, OPERATOR).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let pair = Authority::new(directory.path(), "own").issue("server");
    let files = [&file, &audit, &pair.certificate, &pair.key].map(|path| text(path));
    let (http, grpc, https) = (local(free_port()), local(free_port()), local(free_port()));
    let doors = [http, grpc, https].map(|address| address.to_string());
    let flags = [
        "--http-addr",
        &doors[0],
        "--grpc-addr",
        &doors[1],
        "--https-addr",
        &doors[2],
        "--https-cert-file",
        &files[2],
        "--https-key-file",
        &files[3],
        "--log-level",
        "trace",
        "--require-token",
        "--api-token-file",
        &files[0],
        "--audit-log",
        &files[1],
    ];
    let mut server = Server::start(directory.path(), &flags).await;
    let address = doors[0].as_str();
    let made = at(address, &file, &["api-token", "create", "--scope", "*"]).await;
    let api = made.out.trim().to_owned();
    let enrolment = at(address, &file, &["token", "create", "--service", "web", "--uses", "2"]).await;
    assert_eq!((made.code, enrolment.code), (0, 0), "{}{}", made.err, enrolment.err);
    let enrolment = enrolment.out.trim().to_owned();

    // Sent in every way there is, rightly and by mistake.
    for token in [&api, STRAY] {
        let env = [("WEFT_HTTP_ADDR", address), ("WEFT_HTTP_TOKEN", token)];
        let _whatever_comes = ran(&["kv", "put", "a", "b"], &env).await;
        for target in [format!("/v1/kv/a?token={token}"), format!("/v1/no/such?token={token}")] {
            let _whatever_comes = send(http, "PUT", &target, "v").await.unwrap();
        }
    }
    // A request for a certificate that carries more than its key, for right and for wrong tokens.
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, NAME);
    let key = KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    let pin = enrolment.rsplit('.').next().unwrap();
    let mut identity = IdentityClient::new(dial(grpc, tls::bootstrap_config(Some(pin))).await);
    for (token, granted) in [(enrolment.as_str(), true), (STRAY, false)] {
        let (token, service) = (token.to_owned(), "web".to_owned());
        let request = pb::EnrolRequest { token, service, csr: csr.clone() };
        assert_eq!(identity.enrol(request).await.is_ok(), granted);
    }
    // And a whole sidecar.
    let token_file = directory.path().join("web.token");
    std::fs::write(&token_file, &enrolment).unwrap();
    let config = directory.path().join("web.hcl");
    std::fs::write(
        &config,
        "service {\n  name = \"web\"\n  port = 1\n  connect { sidecar_service {} }\n}\n",
    )
    .unwrap();
    let admin = local(free_port());
    let (config, token, admin_text) = (text(&config), text(&token_file), admin.to_string());
    let args = [
        "proxy",
        "--config",
        &config,
        "--server",
        &doors[1],
        "--token-file",
        &token,
        "--admin-addr",
        &admin_text,
        "--log-level",
        "trace",
        "--log-format",
        "json",
    ];
    let mut sidecar = Process::start("web", &args, &[]);
    sidecar.said("sidecar listens").await;
    until("the sidecar's metrics", async || send(admin, "GET", "/metrics", "").await.is_ok()).await;

    let key_file = std::fs::read_to_string(&pair.key).unwrap();
    let key_line = key_file.lines().nth(1).unwrap();
    let secrets = Secrets(vec![
        ("the API token", secret(&api)),
        ("the enrolment token", secret(&enrolment)),
        ("the operator's token", OPERATOR.into()),
        ("a stray credential", STRAY.into()),
        ("the private key of HTTPS", key_line.into()),
        ("the name in a certificate request", NAME.into()),
        ("a certificate request", csr[csr.len() - 48..].into()),
    ]);
    let operator = [("WEFT_HTTP_ADDR", address), ("WEFT_HTTP_TOKEN", OPERATOR)];
    for args in [
        ["api-token", "list"].as_slice(),
        &["-o", "json", "api-token", "list"],
        &["-o", "json", "status"],
        &["-o", "json", "proxies"],
        &["-o", "json", "info"],
    ] {
        let shown = ran(args, &operator).await;
        assert_eq!(shown.code, 0, "{args:?}: {}", shown.err);
        secrets.absent(&format!("{args:?}"), format!("{}{}", shown.out, shown.err).as_bytes());
    }
    for (server, target) in [
        (http, "/metrics"),
        (http, "/v1/agent/metrics"),
        (http, "/v1/agent/self"),
        (http, "/v1/agent/host"),
        (http, "/v1/kv/?recurse=1"),
        (admin, "/metrics"),
        (admin, "/config"),
        (admin, "/"),
    ] {
        // The token goes in a header of its own, which an answer does not show.
        let answer = get_as_operator(server, target).await;
        secrets.absent(target, answer.as_bytes());
    }
    sidecar.signal(Signal::TERM);
    sidecar.ended().await;
    assert_eq!(server.process.stop().await, 0);
    for (what, process) in [("the server's log", &server.process), ("the sidecar's log", &sidecar)] {
        let log = format!("{}{}", process.stderr(), process.stdout());
        assert!(log.lines().count() > 20, "{what} has only {} lines", log.lines().count());
        secrets.absent(what, log.as_bytes());
    }
    let lines = std::fs::read_to_string(&audit).unwrap();
    secrets.absent("the audit log", lines.as_bytes());
    assert_eq!(lines.matches(r#""target":"web","outcome":"signed "#).count(), 2, "{lines}");
    assert_eq!(lines.matches(r#""target":"web","outcome":"refused: "#).count(), 1, "{lines}");
    assert!(secrets.absent_below(&directory.path().join("data")) > 0);
    // The search itself finds what is there.
    let found = std::panic::catch_unwind(|| secrets.absent("the file", OPERATOR.as_bytes()));
    assert!(found.is_err());
}

async fn get_as_operator(address: std::net::SocketAddr, target: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nX-Consul-Token: {OPERATOR}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
