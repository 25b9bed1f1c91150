//! A gRPC channel over one TLS connection that this module makes itself, so that failures keep their
//! types. The channel never reconnects: whoever uses it starts over with another server.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::fault::Fault;
use crate::net::socket;
use crate::tls;

/// Time for TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent server is pinged after the first and given up after the second, so that a server behind a
/// broken network is left within 15 s (reliability row 3).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// One gRPC message; the server sends pieces of 256 KiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// What a server may have in flight toward us.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Connects to `host:port`. With `local_only` a server elsewhere is refused before anything is said.
pub(super) async fn dial(
    server: &str,
    config: Arc<ClientConfig>,
    local_only: bool,
) -> Result<Channel, Fault> {
    let connected = timeout(CONNECT_TIMEOUT, connect(server, config, local_only)).await;
    let stream = connected
        .map_err(|_| Fault::Timeout { server: server.to_owned(), limit: CONNECT_TIMEOUT })??;
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let once = service_fn(move |_| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    endpoint()
        .connect_with_connector(once)
        .await
        .map_err(|error| Fault::Broken { server: server.to_owned(), cause: error.to_string() })
}

async fn connect(
    server: &str,
    config: Arc<ClientConfig>,
    local_only: bool,
) -> Result<TlsStream<TcpStream>, Fault> {
    let unreachable = |source| Fault::Unreachable { server: server.to_owned(), source };
    let tcp = TcpStream::connect(server).await.map_err(unreachable)?;
    socket::tune(&tcp).map_err(unreachable)?;
    let address = tcp.peer_addr().map_err(unreachable)?;
    if local_only && !address.ip().to_canonical().is_loopback() {
        return Err(Fault::TokenNeeded { server: server.to_owned() });
    }
    let connected = TlsConnector::from(config).connect(tls::no_server_name(), tcp).await;
    connected.map_err(|error| Fault::of_handshake(server, error))
}

fn endpoint() -> Endpoint {
    // The connector decides where to; the name only fills the `:authority` header.
    Endpoint::from_static("http://control-plane")
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
}
