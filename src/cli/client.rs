//! A small HTTP/1.1 client for the API: one connection per request, with deadlines and a cap.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::access::Access;
use super::address::Endpoint;
use super::call::{Call, DEADLINE};
use super::error::{CliError, Fault};
use super::output::printable;
use super::tls::Tls;

/// A server on this machine or in this room answers the handshake much sooner.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Largest answer: 100,000 instances with their checks take less.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// How much of a refusal is shown.
const MAX_SHOWN_CHARS: usize = 500;

/// Talks to one address. The token never appears in an error.
pub(super) struct Client {
    access: Access,
}

/// An answer of any status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Of the result, for blocking queries; 0 when there is none.
    pub(super) index: u64,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }

    pub(super) fn url(&self) -> String {
        self.access.address.url()
    }

    /// Sends a request and reads its answer as JSON.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CliError> {
        let answer = self.done(call).await?;
        self.read(&answer.body)
    }

    /// Sends a request whose answer matters only if it is a refusal.
    pub(super) async fn done(&self, call: &Call) -> Result<Answer, CliError> {
        let answer = self.exchange(call).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(self.refusal(call, &answer)) }
    }

    /// Like [`Client::call`]; `None` when the answer is 404.
    pub(super) async fn find<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<T>, CliError> {
        self.find_at(call).await.map(|(found, _)| found)
    }

    /// Like [`Client::find`], with the index of the result.
    pub(super) async fn find_at<T: DeserializeOwned>(
        &self,
        call: &Call,
    ) -> Result<(Option<T>, u64), CliError> {
        let answer = self.exchange(call).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok((None, answer.index)),
            status if status.is_success() => Ok((Some(self.read(&answer.body)?), answer.index)),
            _ => Err(self.refusal(call, &answer)),
        }
    }

    /// Hands on the body of an answer as it comes, until its end or until `sink` wants no more.
    pub(super) async fn stream(
        &self,
        call: &Call,
        mut sink: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), CliError> {
        let begun = timeout_at(Instant::now() + DEADLINE, self.begin(call)).await;
        let (_connection, response) = begun.unwrap_or_else(|_| Err(self.too_late(DEADLINE)))?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|fault| self.broken(&Broken::Body(fault)))?.to_bytes();
            return Err(self.refusal(call, &Answer { status: head.status, index: 0, body }));
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|fault| self.broken(&Broken::Http(fault)))?;
            if frame.data_ref().is_some_and(|bytes| !sink(bytes)) {
                break;
            }
        }
        Ok(())
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, CliError> {
        let exchange = async {
            let (_connection, response) = self.begin(call).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|fault| self.broken(&Broken::Body(fault)))?.to_bytes();
            let index = head.headers.get("X-Consul-Index").and_then(|value| value.to_str().ok());
            let index = index.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok(Answer { status: head.status, index, body })
        };
        let answered = timeout_at(Instant::now() + call.patience, exchange).await;
        answered.unwrap_or_else(|_| Err(self.too_late(call.patience)))
    }

    /// Connects and sends; the answer's head is here, its body may still come.
    async fn begin(&self, call: &Call) -> Result<(Connection, Response<Incoming>), CliError> {
        let request = self.request(call)?;
        let stream = match timeout(CONNECT_DEADLINE, self.connect()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) if fault.kind() == io::ErrorKind::InvalidData => {
                return Err(self.untrusted(&fault));
            }
            Ok(Err(fault)) => return Err(self.unreachable(&reason(&fault))),
            Err(_) => return Err(self.unreachable("no answer to the connection")),
        };
        let http = |fault| self.broken(&Broken::Http(fault));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let connection = Connection(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(http)?;
        Ok((connection, response))
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.access.address.endpoint {
            Endpoint::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                match &self.access.tls {
                    None => Box::new(stream),
                    Some(Tls { config, name }) => {
                        let connector = TlsConnector::from(Arc::clone(config));
                        Box::new(connector.connect(name.clone(), stream).await?)
                    }
                }
            }
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, CliError> {
        let unusable = |what: String| {
            let next = "check the arguments, and the token if there is one";
            CliError::new(Fault::Usage, what, self.access.address.source.clone(), next)
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.target(&self.common(call)))
            .header(HOST, self.access.address.authority())
            .header(USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")));
        let secrets = [
            ("X-Consul-Token", &self.access.token, "the HTTP token"),
            (AUTHORIZATION.as_str(), &self.access.authorization, "the credentials"),
        ];
        for (name, value, what) in secrets {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| unusable(format!("{what} has characters that a header cannot have")))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        if call.is_json {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(call.body.clone()))
            .map_err(|fault| unusable(format!("the request is not valid: {fault}")))
    }

    /// Parameters that every request has.
    fn common(&self, call: &Call) -> Vec<(String, String)> {
        let mut common = Vec::new();
        if let Some(datacenter) = &self.access.datacenter {
            common.push(("dc".to_owned(), datacenter.clone()));
        }
        if self.access.stale && call.method == Method::GET {
            common.push(("stale".to_owned(), String::new()));
        }
        common
    }

    pub(super) fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(body).map_err(|fault| {
            CliError::new(
                Fault::Answer,
                format!("the answer of {} is not what a weft server says", self.url()),
                fault.to_string(),
                "check that the address is the HTTP API of a weft server of this version",
            )
        })
    }

    pub(super) fn refusal(&self, call: &Call, answer: &Answer) -> CliError {
        let (status, body) = (answer.status, &answer.body);
        let all = String::from_utf8_lossy(body);
        let said: String = all.trim().chars().take(MAX_SHOWN_CHARS).collect();
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
        let text: String = all.chars().take(MAX_SHOWN_CHARS).collect();
        CliError::new(fault, what, format!("{}: {said}", self.url()), next)
            .in_consul(format!("Unexpected response code: {} ({text})", status.as_u16()))
    }

    fn unreachable(&self, why: &str) -> CliError {
        CliError::new(
            Fault::Unreachable,
            format!("cannot reach the control plane at {} ({why})", self.url()),
            self.access.address.source.clone(),
            "start one with `weft dev`, or point at yours: export WEFT_HTTP_ADDR=host:8500",
        )
    }

    /// The handshake failed, and nothing was sent.
    fn untrusted(&self, fault: &io::Error) -> CliError {
        CliError::new(
            Fault::Permission,
            format!("the TLS handshake with {} failed", self.url()),
            fault.to_string(),
            "name the authority of the server's certificate with WEFT_CACERT, and look at its names",
        )
    }

    fn too_late(&self, patience: Duration) -> CliError {
        CliError::new(
            Fault::Timeout,
            format!("no answer from {} within {} s", self.url(), patience.as_secs()),
            self.access.address.source.clone(),
            "try again; if it stays so, look at the server's log",
        )
    }

    fn broken(&self, broken: &Broken) -> CliError {
        match broken {
            Broken::Body(fault) if fault.is::<LengthLimitError>() => CliError::new(
                Fault::Answer,
                format!("the answer of {} is larger than {MAX_ANSWER_BYTES} bytes", self.url()),
                self.access.address.source.clone(),
                "ask for less",
            ),
            Broken::Body(fault) => self.unreachable(&format!("the answer broke off: {fault}")),
            Broken::Http(fault) if fault.is_parse() => CliError::new(
                Fault::Answer,
                format!("{} does not speak HTTP", self.url()),
                fault.to_string(),
                "check the port: the HTTP API is on 8500, gRPC on 8503",
            ),
            Broken::Http(fault) => {
                self.unreachable(&format!("the connection broke: {}", innermost(fault)))
            }
        }
    }
}

/// Either kind of socket.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The task that moves a connection's bytes; it ends with this.
struct Connection(JoinHandle<Result<(), hyper::Error>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An exchange that failed after the connection was made.
enum Broken {
    Http(hyper::Error),
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// What is at the bottom of a fault: the alert of a server that wants a certificate, for instance.
fn innermost(fault: &dyn std::error::Error) -> String {
    let mut cause = fault;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn reason(fault: &io::Error) -> String {
    match fault.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "no route".to_owned(),
        _ => fault.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cli::access::Flags;

    fn client(address: &str, token: Option<&str>) -> Client {
        let flags = Flags {
            http_addr: Some(address.to_owned()),
            token: token.map(str::to_owned),
            ..Flags::default()
        };
        Client::new(Access::resolve(&flags, &|_| None).unwrap())
    }

    #[test]
    fn refusals_by_table() {
        let client = client("h:1", Some("secret-token"));
        let call = Call::get("/v1/x");
        for (status, exit) in [(400, 1), (401, 4), (403, 4), (404, 1), (421, 4), (500, 1), (503, 1)] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, index: 0, body: Bytes::from_static(b"why\x1b[0m\n") };
            let error = client.refusal(&call, &answer);
            assert_eq!(error.fault.exit().code(), exit, "{status}");
            assert_eq!(error.evidence, "http://h:1: why\\u{1b}[0m");
            assert!(!error.to_string().contains("secret"));
        }
    }

    /// The clock leaps to the deadline while nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&listener.local_addr().unwrap().to_string(), None);
        let begun = Instant::now();
        let error = client.call::<Value>(&Call::get("/v1/x")).await.unwrap_err();
        assert_eq!((error.fault, error.fault.exit().code()), (Fault::Timeout, 6));
        assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());
    }
}
