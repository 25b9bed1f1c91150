//! A small HTTP/1.1 client for the API: one connection per request, with deadlines and a cap.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::error::{CliError, Fault};
use super::output::printable;

/// A server on this machine or in this room answers the handshake much sooner.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// For a whole request: no command of the CLI waits for a change.
const DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer: 100,000 instances with their checks take less.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// How much of a refusal is shown.
const MAX_SHOWN_CHARS: usize = 500;

/// Talks to one address. The token never appears in an error.
pub(super) struct Client {
    address: Address,
    token: Option<String>,
}

/// A request: what, where, and with which parameters.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) body: Option<Value>,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: impl Into<String>, query: &'a [(&'a str, &'a str)]) -> Self {
        Self { method: Method::GET, path: path.into(), query, body: None }
    }

    /// Path and query, all parameters percent-encoded.
    fn target(&self) -> String {
        let mut target = self.path.clone();
        for (index, (key, value)) in self.query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&encode(key));
            target.push('=');
            target.push_str(&encode(value));
        }
        target
    }
}

impl Client {
    pub(super) fn new(address: Address, token: Option<String>) -> Self {
        Self { address, token }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address.authority())
    }

    /// Sends a request and reads its answer as JSON.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, CliError> {
        let (status, body) = self.exchange(call).await?;
        if status.is_success() { self.read(&body) } else { Err(self.refusal(call, status, &body)) }
    }

    /// Like [`Client::call`]; `None` when the answer is 404.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
    ) -> Result<Option<T>, CliError> {
        let (status, body) = self.exchange(call).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => self.read(&body).map(Some),
            status => Err(self.refusal(call, status, &body)),
        }
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<(StatusCode, Bytes), CliError> {
        let deadline = Instant::now() + DEADLINE;
        let host = (self.address.host.as_str(), self.address.port);
        let stream = match timeout(CONNECT_DEADLINE, TcpStream::connect(host)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) => return Err(self.unreachable(&reason(&fault))),
            Err(_) => return Err(self.unreachable("no answer to the connection")),
        };
        let request = self.request(call)?;
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(Broken::Http)?;
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(Broken::Http)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            connection.abort();
            Ok((status, body.map_err(Broken::Body)?.to_bytes()))
        };
        match timeout_at(deadline, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(broken)) => Err(self.broken(&broken)),
            Err(_) => Err(CliError::new(
                Fault::Timeout,
                format!("no answer from {} within {} s", self.url(), DEADLINE.as_secs()),
                self.address.source,
                "try again; if it stays so, look at the server's log",
            )),
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, CliError> {
        let unusable = |what: String| {
            CliError::new(
                Fault::Usage,
                what,
                self.address.source,
                "check the arguments and CONSUL_HTTP_TOKEN",
            )
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.target())
            .header(HOST, self.address.authority())
            .header(USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            let mut token = HeaderValue::from_str(token).map_err(|_| {
                unusable("the HTTP token has characters that a header cannot have".to_owned())
            })?;
            token.set_sensitive(true);
            request = request.header("X-Consul-Token", token);
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(body))
            .map_err(|fault| unusable(format!("the request is not valid: {fault}")))
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(body).map_err(|fault| {
            CliError::new(
                Fault::Answer,
                format!("the answer of {} is not what a weft server says", self.url()),
                fault.to_string(),
                "check that the address is the HTTP API of a weft server of this version",
            )
        })
    }

    fn refusal(&self, call: &Call<'_>, status: StatusCode, body: &[u8]) -> CliError {
        let said: String = String::from_utf8_lossy(body).trim().chars().take(MAX_SHOWN_CHARS).collect();
        let said = if said.is_empty() { "no explanation".to_owned() } else { printable(&said) };
        let (fault, next) = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
                Fault::Permission,
                "run the command on the server's machine, or with a token that may do this",
            ),
            StatusCode::MISDIRECTED_REQUEST => (
                Fault::Permission,
                "name the server by its address, or allow the host name on the server",
            ),
            StatusCode::NOT_FOUND => {
                (Fault::Answer, "check that the address is a weft server of this version")
            }
            status if status.is_client_error() => (Fault::Refused, "correct what the answer names"),
            _ => (Fault::Answer, "look at the server's log"),
        };
        let what = format!("{} {} was refused with {}", call.method, call.path, status.as_u16());
        CliError::new(fault, what, format!("{}: {said}", self.url()), next)
    }

    fn unreachable(&self, why: &str) -> CliError {
        CliError::new(
            Fault::Unreachable,
            format!("cannot reach the control plane at {} ({why})", self.url()),
            self.address.source,
            "start one with `weft dev`, or point at yours: export WEFT_HTTP_ADDR=host:8500",
        )
    }

    fn broken(&self, broken: &Broken) -> CliError {
        match broken {
            Broken::Body(fault) if fault.is::<LengthLimitError>() => CliError::new(
                Fault::Answer,
                format!("the answer of {} is larger than {MAX_ANSWER_BYTES} bytes", self.url()),
                self.address.source,
                "ask for less",
            ),
            Broken::Body(fault) => self.unreachable(&format!("the answer broke off: {fault}")),
            Broken::Http(fault) if fault.is_parse() => CliError::new(
                Fault::Answer,
                format!("{} does not speak HTTP", self.url()),
                fault.to_string(),
                "check the port: the HTTP API is on 8500, gRPC on 8503",
            ),
            Broken::Http(fault) => self.unreachable(&format!("the connection broke: {fault}")),
        }
    }
}

/// An exchange that failed after the connection was made.
enum Broken {
    Http(hyper::Error),
    Body(Box<dyn std::error::Error + Send + Sync>),
}

fn reason(fault: &io::Error) -> String {
    match fault.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "no route".to_owned(),
        _ => fault.to_string(),
    }
}

/// Percent-encodes all but the characters that never need it (RFC 3986, 2.3).
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_encoded() {
        let call = Call::get("/v1/x", &[("source", "a b&c"), ("destination", "*")]);
        assert_eq!(call.target(), "/v1/x?source=a%20b%26c&destination=%2A");
        assert_eq!(encode("ü"), "%C3%BC");
    }

    #[test]
    fn refusals_by_table() {
        let address = Address { host: "h".into(), port: 1, source: "test" };
        let client = Client::new(address, Some("secret-token".into()));
        let call = Call::get("/v1/x", &[]);
        for (status, exit) in [(400, 1), (401, 4), (403, 4), (404, 1), (421, 4), (500, 1), (503, 1)] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = client.refusal(&call, status, b"why\x1b[0m\n");
            assert_eq!(error.fault.exit().code(), exit, "{status}");
            assert_eq!(error.evidence, "http://h:1: why\\u{1b}[0m");
            assert!(!error.to_string().contains("secret"));
        }
    }

    /// The clock leaps to the deadline while nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Client::new(Address { host: "127.0.0.1".into(), port, source: "test" }, None);
        let begun = Instant::now();
        let error = client.call::<Value>(&Call::get("/v1/x", &[])).await.unwrap_err();
        assert_eq!((error.fault, error.fault.exit().code()), (Fault::Timeout, 6));
        assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());
    }
}
