//! What hostile, broken and slow callers get.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::http::{Answer, Api};

#[tokio::test]
async fn foreign_hosts_are_misdirected() {
    let api = Api::start().await;
    let port = api.address.port();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        ("[::1]".to_owned(), 200),
        ("mesh.test".to_owned(), 200),
        ("evil.example".to_owned(), 421),
        (format!("evil.example:{port}"), 421),
        ("192.0.2.7".to_owned(), 421),
    ] {
        for target in ["/v1/agent/self", "/metrics"] {
            assert_eq!(
                api.send("GET", target, &[("Host", &host)], "").await.status,
                status,
                "{host} {target}"
            );
        }
    }
    let both = [("Host", "localhost"), ("Host", "evil.example")];
    assert_eq!(api.send("GET", "/v1/agent/self", &both, "").await.status, 400);
    let absolute =
        api.send("GET", "http://evil.example/v1/agent/self", &[("Host", "localhost")], "").await;
    assert_eq!(absolute.status, 400);
    api.stop().await;
}

#[tokio::test]
async fn writes_from_other_sites_change_nothing() {
    let api = Api::start().await;
    let body = r#"{"Name":"evil","Port":1}"#;
    for header in [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let refused = api.send("PUT", "/v1/agent/service/register", &[header], body).await;
        assert_eq!(refused.status, 403, "{header:?}");
    }
    assert_eq!(api.get("/v1/agent/services").await.body, "{}");
    let own = format!("http://{}", api.address);
    let taken = api.send("PUT", "/v1/agent/service/register", &[("Origin", &own)], body).await;
    assert_eq!(taken.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded_while_they_are_read() {
    let api = Api::start().await;
    let head = format!(
        "PUT /v1/agent/service/register HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        api.address
    );
    let declared = api.raw(format!("{head}Content-Length: 1073741824\r\n\r\n").as_bytes()).await;
    assert_eq!(declared.status, 413);
    let mut chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..17 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[b' '; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    let counted = api.raw(&chunked).await;
    assert_eq!(counted.status, 413);
    assert_eq!(counted.body, "Request body too large, max size: 1048576 bytes");
    let fits = format!(r#"{{"Name":"web","Port":1,"Tags":["{}"]}}"#, "x".repeat(1_000_000));
    let taken = api.put("/v1/agent/service/register", &fits).await;
    assert_eq!(taken.status, 400, "the API read it; the catalog found it too long to keep: {taken:?}");
    assert!(taken.body.contains("are kept for one record"), "{taken:?}");
    api.stop().await;
}

#[tokio::test]
async fn deep_and_broken_json_is_refused() {
    let api = Api::start().await;
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let refused = api.put("/v1/agent/service/register", &deep).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("deeper than 64"), "{}", refused.body);
    let broken = api.put("/v1/agent/service/register", "zz").await;
    assert_eq!(broken.status, 400);
    assert!(broken.body.starts_with("Request decode failed: "), "{}", broken.body);
    let long = format!("/v1/health/service/{}", "x".repeat(200_000));
    assert!([400, 414, 431].contains(&api.get(&long).await.status));
    api.stop().await;
}

/// The clock stands still while anything can happen and then leaps to the next deadline.
#[tokio::test(start_paused = true)]
async fn slow_heads_and_bodies_are_cut_off() {
    let api = Api::start().await;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"GET /v1/agent/self HTTP/1.1\r\nHost: localh").await.unwrap();
    let mut rest = Vec::new();
    let _cut = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "a request that never ended was answered");
    assert_eq!(begun.elapsed().as_secs(), 10);

    let begun = Instant::now();
    let head = format!("PUT /v1/agent/service/register HTTP/1.1\r\nHost: {}\r\n", api.address);
    let slow: Answer = api.raw(format!("{head}Content-Length: 10\r\n\r\n{{").as_bytes()).await;
    assert_eq!((slow.status, slow.body.as_str()), (408, "Request body did not arrive within 30 s"));
    assert!(begun.elapsed().as_secs() >= 30);
    api.stop().await;
}

/// Plain HTTP and nothing else: no certificate, good or bad, makes a difference here.
#[tokio::test]
async fn nobody_completes_a_tls_handshake() {
    let api = Api::start().await;
    let tcp = TcpStream::connect(api.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(weft::tls::bootstrap_config(None));
    let connected = connector.connect(weft::tls::no_server_name(), tcp);
    let refused = tokio::time::timeout(crate::http::PATIENCE, connected).await.expect("an end");
    assert!(refused.is_err());
    api.stop().await;
}
