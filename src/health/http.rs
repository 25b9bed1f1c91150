//! The HTTP probe: builds the request as Consul's, sends it on a fresh connection and judges the
//! answer. Redirects are never followed: a target must not be able to point the probe elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::ReasonPhrase;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::dial::{DialError, Dialer, TlsOptions};
use crate::model::CheckStatus;
use crate::model::check::MAX_OUTPUT_BYTES;

/// Reading stops here; a check that needs more of a body has another purpose than health.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Bound for the head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What to ask.
pub(super) struct HttpProbe<'a> {
    pub(super) url: &'a str,
    pub(super) method: &'a str,
    pub(super) headers: &'a BTreeMap<String, Vec<String>>,
    pub(super) body: &'a str,
    pub(super) tls_skip_verify: bool,
}

struct Prepared {
    /// `host:port`.
    target: String,
    tls: Option<TlsOptions>,
    request: Request<Full<Bytes>>,
}

struct Answer {
    code: StatusCode,
    /// The code with the words of the server.
    line: String,
    /// The beginning of the body.
    body: String,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the URL cannot be parsed")]
    Url,
    #[error("unsupported protocol scheme {0:?}")]
    Scheme(String),
    #[error("credentials in the URL are not sent; set the header Authorization instead")]
    Credentials,
    #[error("the method cannot be sent")]
    Method,
    #[error("the header {0:?} cannot be sent")]
    Header(String),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
}

impl HttpProbe<'_> {
    /// Asks once. `budget` bounds connecting; the caller bounds the whole.
    pub(super) async fn run(&self, dialer: &Dialer, budget: Duration) -> (CheckStatus, String) {
        match self.exchange(dialer, budget).await {
            Ok(Answer { code, line, body }) => {
                (judge(code), format!("HTTP {} {}: {line} Output: {body}", self.method(), self.url))
            }
            Err(HttpError::Credentials) => (CheckStatus::Critical, HttpError::Credentials.to_string()),
            Err(error) => (CheckStatus::Critical, self.failure(&error.to_string())),
        }
    }

    /// Go's form for a request that got no answer.
    pub(super) fn failure(&self, cause: &str) -> String {
        let mut verb = self.method().to_ascii_lowercase();
        if let Some(first) = verb.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        format!("{verb} {:?}: {cause}", self.url)
    }

    fn method(&self) -> &str {
        if self.method.is_empty() { "GET" } else { self.method }
    }

    async fn exchange(&self, dialer: &Dialer, budget: Duration) -> Result<Answer, HttpError> {
        let Prepared { target, tls, request } = self.prepare()?;
        let stream = dialer.stream(&target, tls, budget).await?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(TokioIo::new(stream)).await?;
        // Dropped, and with it the connection, when this probe ends or is cancelled.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await?;
        let code = response.status();
        Ok(Answer { code, line: status_line(&response), body: read_body(response).await })
    }

    fn prepare(&self) -> Result<Prepared, HttpError> {
        let uri: Uri = self.url.parse().map_err(|_| HttpError::Url)?;
        let (default_port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => {
                (443, Some(TlsOptions { skip_verify: self.tls_skip_verify, alpn: b"http/1.1" }))
            }
            other => return Err(HttpError::Scheme(other.unwrap_or_default().to_owned())),
        };
        let authority = uri.authority().ok_or(HttpError::Url)?;
        if authority.as_str().contains('@') {
            return Err(HttpError::Credentials);
        }
        let target = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default_port));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let method = Method::from_bytes(self.method().as_bytes()).map_err(|_| HttpError::Method)?;
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(self.body.as_bytes())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| HttpError::Url)?;
        self.set_headers(&mut request, authority.as_str())?;
        Ok(Prepared { target, tls, request })
    }

    fn set_headers(&self, request: &mut Request<Full<Bytes>>, authority: &str) -> Result<(), HttpError> {
        let headers = request.headers_mut();
        for (name, values) in self.headers {
            let bad = || HttpError::Header(name.clone());
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            for value in values {
                headers.append(&key, HeaderValue::from_str(value).map_err(|_| bad())?);
            }
        }
        let host = HeaderValue::from_str(authority).map_err(|_| HttpError::Url)?;
        headers.entry(HOST).or_insert(host);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static("Consul Health Check"));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("text/plain, text/*, */*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(())
    }
}

/// Consul's rule: 2xx passes, 429 warns, everything else fails.
fn judge(code: StatusCode) -> CheckStatus {
    if code.is_success() {
        CheckStatus::Passing
    } else if code == StatusCode::TOO_MANY_REQUESTS {
        CheckStatus::Warning
    } else {
        CheckStatus::Critical
    }
}

/// The code with the words of the server, such as `200 OK`.
fn status_line(response: &Response<Incoming>) -> String {
    let code = response.status();
    let phrase = match response.extensions().get::<ReasonPhrase>() {
        Some(phrase) => String::from_utf8_lossy(phrase.as_bytes()).into_owned(),
        None => code.canonical_reason().unwrap_or_default().to_owned(),
    };
    format!("{} {phrase}", code.as_u16()).trim_end().to_owned()
}

/// The beginning of the body. A body that breaks off does not change the verdict of the status code.
async fn read_body(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut kept = Vec::new();
    let mut total_bytes = 0usize;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        let room = MAX_OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend(data.iter().take(room));
        total_bytes = total_bytes.saturating_add(data.len());
        if total_bytes > MAX_BODY_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&kept);
    if total_bytes > kept.len() {
        format!("{text} ... (captured {} of {total_bytes} bytes)", kept.len())
    } else {
        text.into_owned()
    }
}
