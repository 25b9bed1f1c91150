//! The bundle endpoint, as another trust domain reads it.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::process::Command;

use super::*;
use crate::programs;

const PATH: &str = "/.well-known/spiffe/bundle.json";

/// What curl gets, trusting the root only: the status and the body.
async fn get(server: &Server, args: &[&str], path: &str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, &server.ca().roots()[0].pem).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}", "--cacert"]).arg(root);
    curl.args(args).arg(format!("https://localhost:{}{path}", server.bound().bundle.unwrap().port()));
    let output = curl.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn the_document_has_the_roots_and_the_keys_for_tokens() {
    if !programs::present(&["curl"]) {
        return;
    }
    let server = mesh::server().await;
    let (status, body) = get(&server, &[], PATH).await;
    assert_eq!(status, "200", "{body}");
    let document: Value = serde_json::from_str(&body).unwrap();
    let keys = document["keys"].as_array().unwrap();
    let of_use = |name: &str| keys.iter().filter(|key| key["use"] == name).collect::<Vec<_>>();
    let (x509, jwt) = (of_use("x509-svid"), of_use("jwt-svid"));
    assert_eq!((keys.len(), x509.len(), jwt.len()), (2, 1, 1), "{document}");
    let [root] = &x509[0]["x5c"].as_array().unwrap()[..] else { panic!("{document}") };
    let bundle = server.ca().bundle().borrow().clone();
    assert_eq!(STANDARD.decode(root.as_str().unwrap()).unwrap(), *bundle.roots[0]);
    assert!(x509[0].get("kid").is_none(), "{document}");
    let known = server.ca().jwt_bundle().borrow().clone();
    assert_eq!(jwt[0]["kid"], known.keys[0].id());
    assert_eq!(document["spiffe_sequence"], bundle.version + known.version);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    assert_eq!(get(&server, &[], "/").await.1, body);
    server.stop().await;
}

#[tokio::test]
async fn nothing_else_is_there() {
    if !programs::present(&["curl"]) {
        return;
    }
    let server = mesh::server().await;
    for (args, path, wanted) in [
        (&[][..], "/v1/catalog/services", "404"),
        (&["--request", "POST", "--data", "x"], PATH, "405"),
        (&["--request", "DELETE"], "/", "405"),
        (&["--tls-max", "1.2"], PATH, "000"),
        (&["--header", &format!("x: {}", "x".repeat(20_000))], PATH, "431"),
    ] {
        assert_eq!(get(&server, args, path).await.0, wanted, "{args:?} {path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_server_shows_its_spiffe_id() {
    if !programs::present(&["openssl", "sh"]) {
        return;
    }
    let server = mesh::server().await;
    let address = server.bound().bundle.unwrap();
    let script = format!(
        "openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, shell.output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let id = format!("URI:{}/agent/server/dc/dc1/id/machine", server.ca().trust_domain().id());
    assert!(text.contains(&id), "{id}\n{text}");
    server.stop().await;
}
