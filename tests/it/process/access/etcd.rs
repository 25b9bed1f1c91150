//! The port for etcd clients as others on the network may use it: over TLS, with a certificate.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::super::support::{DEADLINE, free_port, local, until};
use super::pki::{Authority, Pair};
use super::{Server, at, text};
use crate::programs;

/// One of etcd's clients, and whom it believes.
struct Client<'a> {
    endpoint: String,
    believes: &'a Authority,
    shows: Option<&'a Pair>,
}

impl Client<'_> {
    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("etcdctl");
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("ETCDCTL_API", "3").stdin(Stdio::null()).kill_on_drop(true);
        command.args(["--dial-timeout=1s", "--command-timeout=3s"]);
        command.arg(format!("--endpoints={}", self.endpoint));
        if self.endpoint.starts_with("https") {
            command.arg(format!("--cacert={}", text(&self.believes.file)));
        }
        if let Some(Pair { certificate, key }) = self.shows {
            command.arg(format!("--cert={}", text(certificate)));
            command.arg(format!("--key={}", text(key)));
        }
        timeout(DEADLINE, command.args(args).output()).await.expect("etcdctl does not end").unwrap()
    }

    /// What it prints; `None` when it fails.
    async fn said(&self, args: &[&str]) -> Option<String> {
        let output = self.run(args).await;
        let said = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| said.trim().to_owned())
    }
}

fn flags<'a>(etcd: &'a str, http: &'a str, files: &'a [String; 3]) -> Vec<&'a str> {
    let [certificate, key, client_ca] = files;
    let tls =
        ["--etcd-cert-file", certificate, "--etcd-key-file", key, "--etcd-client-ca-file", client_ca];
    [&["--http-addr", http, "--etcd-addr", etcd], &tls[..]].concat()
}

fn files(pair: &Pair, clients: &Authority) -> [String; 3] {
    [&pair.certificate, &pair.key, &clients.file].map(|path| text(path))
}

#[tokio::test]
async fn etcdctl_over_tls_needs_a_certificate_of_the_right_authority() {
    if !programs::present(&["etcdctl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let authority = |name| Authority::new(directory.path(), name);
    let (servers, clients, new) = (authority("servers"), authority("clients"), authority("new"));
    let (pair, client, stranger) =
        (servers.issue("server"), clients.issue("client"), servers.issue("stranger"));
    let port = free_port();
    let (etcd, http) = (format!("0.0.0.0:{port}"), local(free_port()).to_string());
    let files = files(&pair, &clients);
    let mut server = Server::start(directory.path(), &flags(&etcd, &http, &files)).await;
    let endpoint = format!("https://127.0.0.1:{port}");
    let at = |endpoint: &str| Client {
        endpoint: endpoint.to_owned(),
        believes: &servers,
        shows: Some(&client),
    };
    let good = at(&endpoint);
    let value = r#"{"address": "10.0.0.7", "port": 8080}"#;
    assert_eq!(good.said(&["put", "/services/cache/c1", value]).await.as_deref(), Some("OK"));
    let members = good.said(&["member", "list"]).await.unwrap();
    assert!(members.contains(&endpoint), "clients are told to stay with TLS: {members}");
    for (who, refused) in [
        ("one without a certificate", Client { shows: None, ..at(&endpoint) }),
        ("one with another authority's", Client { shows: Some(&stranger), ..at(&endpoint) }),
        ("one in plain text", Client { shows: None, ..at(&format!("127.0.0.1:{port}")) }),
        ("one who does not believe the server", Client { believes: &new, ..at(&endpoint) }),
    ] {
        let output = refused.run(&["get", "/services/cache/c1"]).await;
        assert!(!output.status.success() && output.stdout.is_empty(), "{who}: {output:?}");
    }
    // A certificate that is renewed counts from the next connection on.
    let next = new.issue("server");
    std::fs::copy(&next.certificate, &pair.certificate).unwrap();
    std::fs::copy(&next.key, &pair.key).unwrap();
    let get = ["get", "--print-value-only", "/services/cache/c1"];
    assert_eq!(good.said(&get).await.as_deref(), Some(value), "before the reload");
    server.reload().await;
    assert_eq!(good.said(&get).await, None);
    let renewed = Client { believes: &new, ..at(&endpoint) };
    assert_eq!(renewed.said(&get).await.as_deref(), Some(value));
    assert_eq!(server.process.stop().await, 0);
}

#[tokio::test]
async fn clients_with_certificates_go_together_with_tokens() {
    if !programs::present(&["etcdctl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let own = Authority::new(directory.path(), "own");
    let (pair, client) = (own.issue("server"), own.issue("client"));
    let (etcd, http) = (local(free_port()).to_string(), local(free_port()).to_string());
    let token_file = directory.path().join("operator");
    let (files, token) = (files(&pair, &own), text(&token_file));
    let tokens = ["--require-token", "--api-token-file", &token];
    let mut server =
        Server::start(directory.path(), &[&flags(&etcd, &http, &files), &tokens[..]].concat()).await;
    let good = Client { endpoint: format!("https://{etcd}"), believes: &own, shows: Some(&client) };
    let put = ["put", "/services/cache/c1", r#"{"address": "10.0.0.7", "port": 8080}"#];
    assert_eq!(good.said(&put).await.as_deref(), Some("OK"));
    let listed = async |token: &Path| at(&http, token, &["catalog", "services"]).await;
    until("the instance", async || listed(&token_file).await.out.contains("cache")).await;
    let nobody = directory.path().join("nobody");
    std::fs::write(&nobody, "not-the-token-of-the-operator-at-all").unwrap();
    assert_ne!(listed(&nobody).await.code, 0);
    assert_eq!(server.process.stop().await, 0);
}

/// Neither silence nor nonsense keeps a place, and what is no TLS is told nothing.
#[tokio::test]
async fn one_who_does_not_finish_tls_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let own = Authority::new(directory.path(), "own");
    let files = files(&own.issue("server"), &own);
    let (etcd, http) = (local(free_port()).to_string(), local(free_port()).to_string());
    let mut server = Server::start(directory.path(), &flags(&etcd, &http, &files)).await;
    let answer = async |said: &[u8]| {
        let mut stream = TcpStream::connect(&etcd).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let read = timeout(Duration::from_secs(10), read).await.expect("it is not cut off");
        drop(read); // a reset is an end as well
        answer
    };
    let (silent, plain, nonsense) =
        tokio::join!(answer(b""), answer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), answer(&[0x16; 300]));
    assert!(silent.is_empty());
    for said in [plain, nonsense] {
        assert!(said.len() < 16, "more than an alert of TLS: {said:?}");
    }
    assert_eq!(server.process.stop().await, 0);
}
