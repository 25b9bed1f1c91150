//! A plain HTTP/1.1 request, one connection each, for the demo's applications and its story.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A whole request takes no longer.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest body that is read.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Status and body of a GET.
pub(super) async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    request(Method::GET, address, path, String::new()).await
}

/// Status and body of any request.
pub(super) async fn request(
    method: Method,
    address: SocketAddr,
    path: &str,
    body: String,
) -> io::Result<(u16, String)> {
    tokio::time::timeout(LIMIT, send(method, address, path, body))
        .await
        .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn send(
    method: Method,
    address: SocketAddr,
    path: &str,
    body: String,
) -> io::Result<(u16, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, address.to_string())
        .header(hyper::header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    connection.abort();
    let body = body.map_err(io::Error::other)?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
