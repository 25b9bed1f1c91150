//! Connect mode with a program that shares no code with ours at the other end: OpenSSL as client and as
//! server, any server name, no ALPN; refused by the same rules.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use weft::model::ban::Subject;
use weft::model::{Action, Reason};
use weft::tls::KeyRequest;

use crate::pace::look_again;
use crate::plane::{Authority, Plane, application, echo, local, name, pair, soon};
use crate::programs;

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes certificate, chain, key and roots as OpenSSL reads them; gives the SPIFFE ID.
fn files(ca: &Authority, service: &str, dir: &Path) -> Subject {
    let request = KeyRequest::generate().unwrap();
    let leaf = ca.0.issue(&ca.0.service_id(&name(service)).unwrap(), &request.csr).unwrap();
    let write = |file: &str, text: String| std::fs::write(dir.join(file), text).unwrap();
    write("leaf.pem", pem("CERTIFICATE", &leaf.chain[0]));
    write("chain.pem", leaf.chain[1..].iter().map(|der| pem("CERTIFICATE", der)).collect());
    write("key.pem", pem("PRIVATE KEY", &request.key));
    write("root.pem", ca.0.bundle().borrow().roots.iter().map(|der| pem("CERTIFICATE", der)).collect());
    Subject::identity(leaf.id.as_str()).unwrap()
}

fn openssl(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// What a client got back for one line, as much as came before the end.
async fn ask(dir: &Path, db: &Plane, more: &[&str]) -> String {
    let address = db.inbound.to_string();
    let mut arguments = vec!["s_client", "-connect", &address, "-quiet", "-CAfile", "root.pem"];
    arguments.extend(["-verify_return_error", "-tls1_3", "-servername", "anything.example"]);
    arguments.extend(more);
    let mut client = openssl(dir, &arguments);
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    let _refused = stdin.write_all(b"question\n").await;
    let mut got = vec![0; 9];
    let read = soon("an answer or the end", stdout.read_exact(&mut got)).await;
    let _ended = client.start_kill();
    if read.is_ok() { String::from_utf8(got).unwrap() } else { String::new() }
}

const OWN: [&str; 6] = ["-cert", "leaf.pem", "-key", "key.pem", "-cert_chain", "chain.pem"];

#[tokio::test]
async fn openssl_dials_a_sidecar_under_the_same_rules() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let (_web, db, app, ca) = pair().await;
    echo(app);
    let dir = tempfile::tempdir().unwrap();
    let web = files(&ca, "web", dir.path());
    assert_eq!(ask(dir.path(), &db, &OWN).await, "question\n");

    assert_eq!(ask(dir.path(), &db, &[]).await, "", "without a certificate");
    db.intend("web", "db", Action::Deny);
    assert_eq!(ask(dir.path(), &db, &OWN).await, "", "denied by an intention");
    db.intend("web", "db", Action::Allow);
    db.ban(&web, true);
    assert_eq!(ask(dir.path(), &db, &OWN).await, "", "banned");
    db.ban(&web, false);
    assert_eq!(ask(dir.path(), &db, &OWN).await, "question\n");

    // The certificate of another mesh; it trusts ours, so that only our side can refuse.
    let other = tempfile::tempdir().unwrap();
    files(&Authority::new().await, "web", other.path());
    std::fs::copy(dir.path().join("root.pem"), other.path().join("root.pem")).unwrap();
    assert_eq!(ask(other.path(), &db, &OWN).await, "", "of another mesh");
    db.shows(r#"weft_tls_handshakes_total{direction="inbound",result="tls_handshake"}"#, |n| n >= 2.0)
        .await;
    let old = ["-cert", "leaf.pem", "-key", "key.pem", "-no_tls1_3", "-tls1_2"];
    assert_eq!(ask(dir.path(), &db, &old).await, "", "TLS 1.2");
}

/// A server that answers each line reversed, once it listens.
async fn server(dir: &Path, port: u16) -> Child {
    let (address, all) = (format!("127.0.0.1:{port}"), ["s_server", "-rev", "-tls1_3", "-Verify", "3"]);
    let mut arguments = all.to_vec();
    arguments.extend(["-verify_return_error", "-CAfile", "root.pem", "-accept", &address]);
    arguments.extend(OWN);
    let server = openssl(dir, &arguments);
    let listens = async {
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            look_again().await;
        }
    };
    soon("a listening OpenSSL", listens).await;
    server
}

#[tokio::test]
async fn a_sidecar_dials_openssl_and_pins_the_service() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let ca = Authority::new().await;
    let (_listener, address) = application().await;
    for (service, mesh, want) in [
        ("db", &ca, Ok("noitseuq\n")),
        ("cache", &ca, Err(Reason::IdentityMismatch)),
        ("db", &Authority::new().await, Err(Reason::TlsHandshake)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        files(mesh, service, dir.path());
        let port = local().local_addr().unwrap().port();
        let _server = server(dir.path(), port).await;
        let mut web = Plane::start(&ca, "web", address, &["db"]);
        web.knows("db", "db-1", ([127, 0, 0, 1], port).into());
        let mut client = web.dial("db").await;
        client.write_all(b"question\n").await.unwrap();
        let mut got = vec![0; 9];
        let read = soon("an answer or the end", client.read_exact(&mut got)).await;
        match want {
            Ok(answer) => {
                read.unwrap();
                assert_eq!(got, answer.as_bytes());
            }
            Err(reason) => {
                assert!(read.is_err(), "{service}");
                assert_eq!(web.ended().await, reason, "{service}");
            }
        }
    }
}
