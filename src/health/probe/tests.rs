//! Single probe runs against small real servers on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use CheckStatus::{Critical, Passing, Warning};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::*;

fn definition(kind: CheckKind) -> CheckDefinition {
    CheckDefinition {
        id: "c".into(),
        name: "c".into(),
        notes: String::new(),
        kind,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        initial: Critical,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }
}

fn http(url: &str) -> CheckDefinition {
    definition(CheckKind::Http {
        url: url.into(),
        method: String::new(),
        headers: BTreeMap::new(),
        body: String::new(),
        tls_skip_verify: true,
    })
}

async fn run(check: &CheckDefinition) -> (CheckStatus, String) {
    Prober::new().run(check).await.unwrap()
}

/// Answers one connection with `answer` and hands back the request head.
async fn one_shot(answer: impl Into<Vec<u8>>) -> (SocketAddr, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, head) = oneshot::channel();
    let answer = answer.into();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _unread = sender.send(serve(stream, &answer).await);
    });
    (address, head)
}

async fn serve(mut stream: impl tokio::io::AsyncRead + AsyncWriteExt + Unpin, answer: &[u8]) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn http_status_codes_decide() {
    for (line, expected) in [
        ("200 OK", Passing),
        ("204 No Content", Passing),
        ("299 Odd", Passing),
        ("429 Too Many Requests", Warning),
        ("302 Found", Critical),
        ("404 Not Found", Critical),
        ("500 Internal Server Error", Critical),
    ] {
        let answer =
            format!("HTTP/1.1 {line}\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n");
        let (address, _) = one_shot(answer).await;
        let url = format!("http://{address}/health");
        assert_eq!(run(&http(&url)).await, (expected, format!("HTTP GET {url}: {line} Output: ")));
    }
}

#[tokio::test]
async fn http_sends_consuls_headers_and_what_was_declared() {
    let (address, head) = one_shot("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let url = format!("http://{address}/health?deep=1");
    assert_eq!(run(&http(&url)).await, (Passing, format!("HTTP GET {url}: 200 OK Output: hi")));
    let head = head.await.unwrap().to_lowercase();
    assert!(head.starts_with("get /health?deep=1 http/1.1\r\n"), "{head}");
    for line in [
        format!("host: {address}"),
        "user-agent: consul health check".into(),
        "accept: text/plain, text/*, */*".into(),
        "connection: close".into(),
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
    }

    let (address, head) = one_shot("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut check = http(&format!("http://{address}"));
    if let CheckKind::Http { method, headers, body, .. } = &mut check.kind {
        *method = "POST".into();
        *body = "{}".into();
        headers.insert("Host".into(), vec!["app.test".into()]);
        headers.insert("X-Two".into(), vec!["1".into(), "2".into()]);
    }
    assert_eq!(run(&check).await.0, Passing);
    let head = head.await.unwrap().to_lowercase();
    assert!(head.starts_with("post / http/1.1\r\n"), "{head}");
    for line in ["host: app.test", "x-two: 1", "x-two: 2", "content-length: 2"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
    }
    assert!(!head.contains(&address.to_string()), "{head}");
}

#[tokio::test]
async fn long_and_binary_bodies_are_cut() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6000\r\n\r\n".to_vec();
    answer.extend([0xffu8; 3]);
    answer.extend([b'x'; 5_997]);
    let (address, _) = one_shot(answer).await;
    let (status, output) = run(&http(&format!("http://{address}/"))).await;
    assert_eq!(status, Passing);
    assert!(output.ends_with("xxx ... (captured 4096 of 6000 bytes)"), "{output}");

    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.extend(vec![b'x'; 3_000_000]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The probe hangs up in the middle, and the connection stays open on this side.
        let _hung_up = stream.write_all(&endless).await;
        std::future::pending::<()>().await;
    });
    let (status, output) = run(&http(&format!("http://{address}/"))).await;
    assert_eq!(status, Passing);
    assert!(output.len() < 4_096 + 200, "{}", output.len());
}

#[tokio::test]
async fn http_failures_are_explained_in_gos_words() {
    let refused = "http://127.0.0.1:1/h";
    assert_eq!(
        run(&http(refused)).await,
        (Critical, format!("Get {refused:?}: dial tcp 127.0.0.1:1: connect: connection refused"))
    );
    let (status, output) = run(&http("http://169.254.169.254/latest/meta-data/")).await;
    assert_eq!(status, Critical);
    assert!(output.contains("link-local"), "{output}");
    assert_eq!(
        run(&http("ftp://127.0.0.1/")).await,
        (Critical, "Get \"ftp://127.0.0.1/\": unsupported protocol scheme \"ftp\"".into())
    );
    let (status, output) = run(&http("http://me:secret@127.0.0.1:1/")).await;
    assert_eq!(status, Critical);
    assert!(!output.contains("secret"), "{output}");
    let mut check = http("http://127.0.0.1:1/");
    if let CheckKind::Http { headers, .. } = &mut check.kind {
        headers.insert("bad\nname".into(), vec!["x".into()]);
    }
    assert!(run(&check).await.1.contains("cannot be sent"));
    assert_eq!(run(&http("not a url")).await.0, Critical);
}

#[tokio::test]
async fn a_silent_server_runs_into_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut check = http(&format!("http://{address}/"));
    check.timeout = Duration::from_millis(50);
    let (status, output) = run(&check).await;
    assert_eq!(status, Critical);
    assert!(
        output.ends_with(": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
    );
    let kind = CheckKind::Grpc {
        address: address.to_string(),
        service: String::new(),
        use_tls: false,
        tls_skip_verify: false,
    };
    let mut check = definition(kind);
    check.timeout = Duration::from_millis(50);
    let expected = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
    assert_eq!(run(&check).await, (Critical, expected.into()));
}

#[tokio::test]
async fn https_verifies_unless_told_not_to() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let chain = vec![key.cert.der().clone()];
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
            }
        }
    });
    let url = format!("https://{address}/");
    let mut check = http(&url);
    assert_eq!(run(&check).await, (Passing, format!("HTTP GET {url}: 200 OK Output: hi")));
    if let CheckKind::Http { tls_skip_verify, .. } = &mut check.kind {
        *tls_skip_verify = false;
    }
    let (status, output) = run(&check).await;
    assert_eq!(status, Critical);
    assert!(output.contains("tls: "), "{output}");
}

#[tokio::test]
async fn tcp_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let check =
        definition(CheckKind::Tcp { address: address.clone(), use_tls: false, tls_skip_verify: false });
    assert_eq!(run(&check).await, (Passing, format!("TCP connect {address}: Success")));
    drop(listener);
    let expected = format!("dial tcp {address}: connect: connection refused");
    assert_eq!(run(&check).await, (Critical, expected));
}

#[tokio::test]
async fn grpc_asks_the_standard_service() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("up", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("down", tonic_health::ServingStatus::NotServing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    tokio::spawn(server);
    for (service, expected) in [
        ("", (Passing, format!("gRPC check {address}: success"))),
        ("up", (Passing, format!("gRPC check {address}/up: success"))),
        ("down", (Critical, "gRPC application didn't report service healthy".into())),
        ("nope", (Critical, "rpc error: code = NotFound desc = service not registered".into())),
    ] {
        let service = service.to_owned();
        let check = definition(CheckKind::Grpc {
            address: address.clone(),
            service,
            use_tls: false,
            tls_skip_verify: false,
        });
        assert_eq!(run(&check).await, expected);
    }
}

#[tokio::test]
async fn a_grpc_target_that_is_down_is_unavailable() {
    let kind = CheckKind::Grpc {
        address: "127.0.0.1:1".into(),
        service: String::new(),
        use_tls: false,
        tls_skip_verify: false,
    };
    let (status, output) = run(&definition(kind)).await;
    assert_eq!(status, Critical);
    assert!(output.starts_with("rpc error: code = Unavailable desc = connection error: "), "{output}");
    assert!(output.contains("dial tcp 127.0.0.1:1: connect: connection refused"), "{output}");
}
