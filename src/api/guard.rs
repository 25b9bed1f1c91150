//! Refuses what a web page could make a browser send: requests under a foreign host name (DNS
//! rebinding, 421) and writes that began on another site (403). Programs that are not browsers send
//! neither `Origin` nor `Sec-Fetch-Site` and are not affected. What passes goes through `gate` to its handler,
//! and is counted.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::error::ApiError;
use super::gate::{self, Peer};
use crate::access::Actor;
use crate::access::audit::{Entry, Pending};
use crate::telemetry::ServerMetrics;

/// Names by which every server may be called. Nobody can own a name without a dot on the Internet, so no
/// page can be served under one; `consul` is how containers call the server in place of Consul.
const LOCAL_NAMES: [&str; 3] = ["localhost", "consul", "weft"];

/// What requests are counted under that match no route.
const NO_ROUTE: &str = "none";

/// The two ends of the connection a request came over.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) peer: Peer,
    /// The address that was called; a UNIX socket has none.
    pub(super) local: Option<IpAddr>,
    /// Fingerprint and names of the client's certificate, which the operator's authority has signed.
    pub(super) certificate: Option<Arc<str>>,
}

/// Runs before every handler; counts the request and adds the headers every answer has.
///
/// What is only needed before the handler runs is on the heap and gone by then, since thousands of queries may
/// wait for a change. No `async fn`, which would keep its arguments to its end.
pub(super) fn guard(
    State(app): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> impl Future<Output = Response> + Send {
    let counted = Counted::new(&request);
    let entering = Box::pin(enter(Arc::clone(&app), request));
    async move {
        let mut response = match entering.await {
            Ok(entered) => {
                let (answering, pending) = entered.begin(next);
                let response = answering.await;
                if let Some(pending) = pending {
                    Box::pin(pending.finish(response.status().as_u16().to_string())).await;
                }
                response
            }
            Err(refusal) => refusal.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        counted.answered(&app.state.metrics, response.status());
        response
    }
}

/// A request that its handler may see.
struct Entered {
    request: Request,
    /// What the audit log waits to be told.
    pending: Option<Box<Pending>>,
}

impl Entered {
    /// The handler's answer to come, and what it is to be written down in. Frees the box, which an `async fn`
    /// would hold on to.
    fn begin(self: Box<Self>, next: Next) -> (impl Future<Output = Response>, Option<Box<Pending>>) {
        (next.run(self.request), self.pending)
    }
}

async fn enter(app: Arc<Shared>, mut request: Request) -> Result<Box<Entered>, ApiError> {
    let local = request.extensions().get::<Ends>().and_then(|ends| ends.local);
    if let Err(refusal) = check(&app.state.allowed_hosts, local, &request) {
        if let Some((log, entry)) = gate::audited(&app, &request, &Actor::Anonymous) {
            let outcome = refusal.status.as_u16().to_string();
            log.refused(Entry { outcome, ..entry }).await;
        }
        return Err(refusal);
    }
    let pending = gate::admit(&app, &mut request).await?.map(Box::new);
    Ok(Box::new(Entered { request, pending }))
}

/// What is counted of a request, kept while it is answered.
struct Counted {
    /// `None` when no route matches: a path is anybody's text.
    route: Option<MatchedPath>,
    method: Method,
    /// `None` for a blocking query, whose length says nothing.
    began: Option<Instant>,
}

impl Counted {
    fn new(request: &Request) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let blocks = query.split('&').any(|field| field.starts_with("index="));
        Self {
            route: request.extensions().get().cloned(),
            method: request.method().clone(),
            began: (!blocks).then(Instant::now),
        }
    }

    fn answered(self, metrics: &ServerMetrics, status: StatusCode) {
        let route = self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        let took = self.began.map(|began| began.elapsed());
        metrics.http_request(route, self.method.as_str(), status.as_u16(), took);
    }
}

fn check(names: &[String], local: Option<IpAddr>, request: &Request) -> Result<(), ApiError> {
    let host = requested_host(request)?;
    if let Some(host) = host
        && !is_ours(names, local, host)
    {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            "The host name of this request is not one of this server's; call it by its address or \
             add the name to the allowed hosts",
        ));
    }
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
    if !reads.contains(request.method()) && is_cross_site(request.headers(), host) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Writes from other web sites are refused"));
    }
    Ok(())
}

/// The one host a request names, port included. HTTP/1.0 may name none.
fn requested_host(request: &Request) -> Result<Option<&str>, ApiError> {
    let bad = || ApiError::bad_request("A request needs exactly one valid Host header");
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().map_err(|_| bad())?),
        (None, _) if request.version() == Version::HTTP_10 => None,
        _ => return Err(bad()),
    };
    // The authority of an absolute target goes before the header (RFC 9112, 3.2.2); here it must agree.
    match (request.uri().authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => Err(bad()),
        (Some(authority), None) => Ok(Some(authority.as_str())),
        _ => Ok(host),
    }
}

/// Whether a host is an address of this server or a name it is known by. An address literal is only
/// taken when it is loopback or the very address the connection came in on: no name resolves to it.
fn is_ours(names: &[String], local: Option<IpAddr>, host: &str) -> bool {
    let Some(name) = without_port(host) else {
        return false;
    };
    if let Ok(address) = name.parse::<IpAddr>() {
        let address = address.to_canonical();
        return address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    LOCAL_NAMES.iter().any(|ours| ours.eq_ignore_ascii_case(name))
        || names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// The name or address of `host[:port]`, without the brackets of IPv6.
fn without_port(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let port_fits = rest.is_empty() || (rest.len() > 1 && port.parse::<u16>().is_ok());
    (port_fits && !name.is_empty()).then_some(name)
}

/// Whether a browser says that a request began on another site than `host`.
fn is_cross_site(headers: &HeaderMap, host: Option<&str>) -> bool {
    let foreign_fetch = headers
        .get("sec-fetch-site")
        .is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    // `https` is fine: whoever ends TLS in front of this server serves the same site.
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    });
    foreign_fetch || foreign_origin
}

#[cfg(test)]
mod tests {
    use super::super::query::Params;
    use super::super::{App, health};
    use super::*;
    use axum::body::Body;
    use axum::extract::Path;

    /// Thousands of queries may wait, each with the future of this and of its handler.
    #[test]
    fn what_a_waiting_query_keeps_is_small() {
        fn of_guard<F: Future>(_: fn(State<Arc<Shared>>, Request, Next) -> F) -> usize {
            size_of::<F>()
        }
        fn of_handler<F: Future>(_: fn(App, Path<String>, Params) -> F) -> usize {
            size_of::<F>()
        }
        assert!(of_guard(guard) <= 640, "{}", of_guard(guard));
        assert!(of_handler(health::service) <= 1_200, "{}", of_handler(health::service));
    }

    #[test]
    fn hosts_by_table() {
        let names = ["mesh.example".to_owned()];
        let local = Some("10.1.2.3".parse().unwrap());
        for (host, ours) in [
            ("localhost", true),
            ("LOCALHOST:8500", true),
            ("localhost.:8500", true),
            ("127.0.0.1", true),
            ("127.0.0.1:8500", true),
            ("127.1.2.3:80", true),
            ("[::1]:8500", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("10.1.2.3:8500", true),
            ("10.1.2.4:8500", false),
            ("mesh.example:8500", true),
            ("Mesh.Example", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evil.localhost", false),
            ("evil@localhost", false),
            ("localhost:8500@evil", false),
            ("localhost:", false),
            ("localhost:99999", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("2130706433", false),
            ("", false),
        ] {
            assert_eq!(is_ours(&names, local, host), ours, "{host}");
        }
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri("/v1/agent/self");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn requests_by_table() {
        let host = ("host", "localhost:8500");
        for (method, headers, status) in [
            ("GET", vec![host], None),
            ("GET", vec![], Some(400)),
            ("GET", vec![host, host], Some(400)),
            ("GET", vec![("host", "evil.example")], Some(421)),
            ("GET", vec![host, ("origin", "http://evil.example")], None),
            ("PUT", vec![host], None),
            ("PUT", vec![host, ("origin", "http://localhost:8500")], None),
            ("PUT", vec![host, ("origin", "http://localhost:8501")], Some(403)),
            ("PUT", vec![host, ("origin", "https://localhost:8500")], None),
            ("PUT", vec![host, ("origin", "ftp://localhost:8500")], Some(403)),
            ("PUT", vec![host, ("origin", "null")], Some(403)),
            ("DELETE", vec![host, ("origin", "http://evil.example")], Some(403)),
            ("POST", vec![host, ("sec-fetch-site", "cross-site")], Some(403)),
            ("POST", vec![host, ("sec-fetch-site", "same-site")], Some(403)),
            ("POST", vec![host, ("sec-fetch-site", "same-origin")], None),
            ("POST", vec![host, ("sec-fetch-site", "none")], None),
        ] {
            let verdict = check(&[], None, &request(method, &headers));
            assert_eq!(verdict.err().map(|e| e.status.as_u16()), status, "{method} {headers:?}");
        }
    }
}
