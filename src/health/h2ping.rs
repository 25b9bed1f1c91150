//! The HTTP/2 probe: a connection, and one PING that has to come back (RFC 9113, section 6.7).

use std::time::Duration;

use h2::{Ping, client};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::{Dialer, TlsOptions};
use crate::model::CheckStatus;

/// Pings `host:port` once, within `budget`.
pub(super) async fn probe(
    dialer: &Dialer,
    target: &str,
    tls: Option<TlsOptions>,
    budget: Duration,
) -> (CheckStatus, String) {
    let late = || "HTTP2 ping failed: context deadline exceeded".to_owned();
    match timeout(budget, ping(dialer, target, tls, budget)).await.unwrap_or_else(|_| Err(late())) {
        Ok(()) => (CheckStatus::Passing, "HTTP2 ping was successful".to_owned()),
        Err(output) => (CheckStatus::Critical, output),
    }
}

async fn ping(
    dialer: &Dialer,
    target: &str,
    tls: Option<TlsOptions>,
    budget: Duration,
) -> Result<(), String> {
    let stream = dialer.stream(target, tls, budget).await;
    let stream = stream.map_err(|error| format!("Failed to dial to {target}: {error}"))?;
    let failed = |error: h2::Error| format!("HTTP2 ping failed: {error}");
    let (_requests, mut connection) = client::handshake(stream).await.map_err(failed)?;
    let mut pings = connection.ping_pong().ok_or("HTTP2 ping failed: the connection takes no ping")?;
    // Dropped, and with it the connection, when this probe ends or is cancelled.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    pings.ping(Ping::opaque()).await.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const BUDGET: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_server_of_http2_answers_and_another_does_not() {
        let dialer = Dialer::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let (_, health) = tonic_health::server::health_reporter();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(incoming));
        let answer = probe(&dialer, &target, None, BUDGET).await;
        assert_eq!(answer, (CheckStatus::Passing, "HTTP2 ping was successful".to_owned()));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let (status, output) = probe(&dialer, &target, None, BUDGET).await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.starts_with("HTTP2 ping failed: "), "{output}");
        let (_, output) = probe(&dialer, "127.0.0.1:1", None, BUDGET).await;
        let expected =
            "Failed to dial to 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(output, expected);
    }
}
