//! The admin endpoint over real sockets on loopback.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::telemetry::ProxyMetrics;

const DEADLINE: Duration = Duration::from_secs(20);

struct Admin {
    address: SocketAddr,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start() -> Admin {
    let readiness = Readiness::new();
    let router = router(readiness.clone(), ProxyMetrics::new().registry());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(vec![listener], router, async {
        let _stopped = stopped.await;
    }));
    Admin { address, readiness, stop, task }
}

/// One request on its own connection; everything the server said until it closed.
async fn request(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn health_follows_readiness() {
    let admin = start().await;
    let token = admin.readiness.pending("certificate");
    let answer = request(admin.address, "GET", "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(body(&answer), r#"{"status":"not_ready","missing":["certificate"]}"#);
    assert!(request(admin.address, "GET", "/health/startup").await.starts_with("HTTP/1.1 503 "));
    assert!(request(admin.address, "GET", "/health/live").await.starts_with("HTTP/1.1 200 "));
    token.done();
    let answer = request(admin.address, "GET", "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body(&answer), r#"{"status":"ready"}"#);
    admin.readiness.drain();
    let answer = request(admin.address, "GET", "/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(body(&answer), r#"{"status":"draining"}"#);
    assert!(request(admin.address, "GET", "/health/startup").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn metrics_are_openmetrics_and_only_reading_is_allowed() {
    let admin = start().await;
    let answer = request(admin.address, "GET", "/metrics").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(body(&answer).ends_with("# EOF\n"));
    let answer = request(admin.address, "HEAD", "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && body(&answer).is_empty(), "{answer}");
    for path in ["/", "/metrics", "/health/ready"] {
        let answer = request(admin.address, "POST", path).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }
    assert!(body(&request(admin.address, "GET", "/").await).contains("/health/ready"));
    assert!(request(admin.address, "GET", "/nothing").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn silent_clients_do_not_keep_others_out() {
    let admin = start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        silent.push(stream);
    }
    let answer = timeout(DEADLINE, request(admin.address, "GET", "/health/live")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_the_task() {
    let admin = start().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /health/live HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
    let mut first = [0u8; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    admin.stop.send(()).unwrap();
    timeout(DEADLINE, admin.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err());
}
