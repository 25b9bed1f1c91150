//! Variables of the environment: whose win, what they do, and that none is ignored in silence.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::{ran, weft};
use crate::http::Api;

/// One request of the program, as a server sees it.
async fn heard(env: &[(&str, &str)], args: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve(&mut stream).await
    });
    let mut all = vec![("CONSUL_HTTP_ADDR", address.as_str())];
    all.extend(env);
    let ran = weft(&all, args).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    serving.await.unwrap()
}

async fn serve(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[\"dc1\"]";
    stream.write_all(answer).await.unwrap();
    String::from_utf8(request).unwrap().to_lowercase()
}

const ASK: [&str; 2] = ["catalog", "datacenters"];

#[tokio::test]
async fn tokens_and_credentials_go_into_headers() {
    let dir = tempfile::tempdir().unwrap();
    let file: PathBuf = dir.path().join("token");
    std::fs::write(&file, "from-file\n").unwrap();
    let file = file.to_str().unwrap();
    for (env, header) in [
        (vec![("CONSUL_HTTP_TOKEN", "c")], "x-consul-token: c\r\n"),
        (vec![("CONSUL_HTTP_TOKEN", "c"), ("WEFT_HTTP_TOKEN", "w")], "x-consul-token: w\r\n"),
        (vec![("CONSUL_HTTP_TOKEN_FILE", file)], "x-consul-token: from-file\r\n"),
        (vec![("CONSUL_HTTP_AUTH", "user:pass")], "authorization: basic dxnlcjpwyxnz\r\n"),
    ] {
        let request = heard(&env, &ASK).await;
        assert!(request.contains(header), "{env:?}: {request}");
    }
    assert!(!heard(&[], &ASK).await.contains("token"));
}

#[tokio::test]
async fn a_socket_of_the_machine_is_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve(&mut stream).await
    });
    let address = format!("unix://{}", path.display());
    let ran = weft(&[("CONSUL_HTTP_ADDR", &address)], &ASK).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "dc1\n"), "{}", ran.err);
    assert!(serving.await.unwrap().contains("host: localhost\r\n"));
    let lost = weft(&[("CONSUL_HTTP_ADDR", "unix:///nonexistent/api.sock")], &ASK).await;
    assert_eq!(lost.code, 3, "{}", lost.err);
}

#[tokio::test]
async fn what_cannot_have_an_effect_says_so_once() {
    let api = Api::start().await;
    let address = api.address.to_string();
    let env = [
        ("WEFT_HTTP_ADDR", address.as_str()),
        ("CONSUL_HTTP_ADDR", "127.0.0.1:1"),
        ("CONSUL_HTTP_SSL", "false"),
        ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ("CONSUL_CACERT", "/ca.pem"),
        ("CONSUL_CAPATH", "/ca"),
        ("CONSUL_CLIENT_CERT", "/c.pem"),
        ("CONSUL_CLIENT_KEY", "/k.pem"),
        ("CONSUL_TLS_SERVER_NAME", "x"),
        ("CONSUL_NAMESPACE", "team"),
    ];
    let ran = weft(&env, &ASK).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "dc1\n"), "{}", ran.err);
    assert_eq!(
        ran.err,
        "note: CONSUL_HTTP_SSL_VERIFY, CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, \
         CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME have no effect: the address is not `https://`\n\
         note: CONSUL_NAMESPACE=team has no effect: there is one namespace and one partition, `default`\n"
    );
    let blind = [("CONSUL_HTTP_SSL", "true"), ("CONSUL_HTTP_SSL_VERIFY", "false")];
    let ran = weft(&blind, &ASK).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.err.contains("always verified"), "{}", ran.err);
    api.stop().await;
}

#[tokio::test]
async fn consuls_flags_win_over_the_environment() {
    let api = Api::start().await;
    let consul = super::Consul::of(&api);
    let lost = [("CONSUL_HTTP_ADDR", "127.0.0.1:1")];
    let address = format!("-http-addr=http://{}", consul.address);
    let args =
        ["catalog", "datacenters", &address, "-token=t", "-stale", "-datacenter=dc1", "-ca-file", "x"];
    let ran = ran(consul.command(), &lost, &args).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "dc1\n"), "{}", ran.err);
    assert_eq!(ran.err, "note: -ca-file has no effect: the address is not `https://`\n");
    api.stop().await;
}
