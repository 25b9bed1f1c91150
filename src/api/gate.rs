//! Who calls, and may they: between the guard and every handler.
//!
//! Reads the credential as Consul does, asks `access` for whom it names, and decides by the table of
//! routes. Where no token is required, everybody passes, and the credential only names the caller.

use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Query, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use zeroize::Zeroizing;

use super::Shared;
use super::error::ApiError;
use super::guard::Ends;
use crate::access::{self, Actor, Refusal, routes};

const TOKEN_HEADER: &str = "x-consul-token";

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Tcp(SocketAddr),
}

impl Peer {
    /// Whether it is on this machine.
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Who calls, for handlers that care.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) actor: Actor,
    pub(super) is_local: bool,
}

/// Lets a request through to its handler, or refuses it.
pub(super) async fn pass(app: &Shared, mut request: Request, next: Next) -> Response {
    let actor = match identify(app, credential(request.uri(), request.headers())).await {
        Ok(actor) => actor,
        Err(refusal) => return refuse(refusal),
    };
    // What matches no route does nothing but answer 404.
    let path = request.extensions().get::<MatchedPath>();
    let asks_for_methods = request.method() == Method::OPTIONS;
    if app.state.access.is_required()
        && let Some(path) = path
        && !asks_for_methods
    {
        let rule = routes::rule(path.as_str(), request.method().as_str());
        if let Err(refusal) = access::decide(rule, &actor) {
            return refuse(refusal);
        }
    }
    let is_local = request.extensions().get::<Ends>().is_some_and(|ends| ends.peer.is_local());
    request.extensions_mut().insert(Caller { actor, is_local });
    next.run(request).await
}

async fn identify(app: &Shared, credential: Option<Zeroizing<String>>) -> Result<Actor, Refusal> {
    let access = &app.state.access;
    let Some(text) = credential else { return Ok(Actor::Anonymous) };
    match access.identify(&text, SystemTime::now()).await {
        Err(refusal) if access.is_required() => Err(refusal),
        found => Ok(found.unwrap_or(Actor::Anonymous)),
    }
}

fn refuse(refusal: Refusal) -> Response {
    ApiError::new(StatusCode::FORBIDDEN, refusal.to_string()).into_response()
}

/// The token of a request, from where Consul looks for it and in its order; an empty one is none.
fn credential(uri: &Uri, headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = text(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    let in_header = || text(TOKEN_HEADER).filter(|token| !token.is_empty());
    let in_headers = || in_header().or_else(|| bearer().filter(|token| !token.is_empty()));
    in_query(uri).or_else(|| in_headers().map(str::to_owned)).map(Zeroizing::new)
}

fn in_query(uri: &Uri) -> Option<String> {
    uri.query().filter(|query| query.contains("token="))?;
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    pairs.into_iter().find(|(name, value)| name == "token" && !value.is_empty()).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_by_table() {
        let consul = ("x-consul-token", "c");
        let bearer = ("authorization", "Bearer b");
        for (target, headers, token) in [
            ("/v1/x", vec![], None),
            ("/v1/x", vec![consul], Some("c")),
            ("/v1/x", vec![bearer], Some("b")),
            ("/v1/x", vec![("authorization", "bearer  b ")], Some("b")),
            ("/v1/x", vec![("authorization", "Basic b")], None),
            ("/v1/x", vec![("authorization", "Bearer ")], None),
            ("/v1/x", vec![consul, bearer], Some("c")),
            ("/v1/x", vec![("x-consul-token", ""), bearer], Some("b")),
            ("/v1/x?token=q", vec![consul], Some("q")),
            ("/v1/x?a=1&token=q%20r", vec![], Some("q r")),
            ("/v1/x?token=", vec![consul], Some("c")),
            ("/v1/x?mytoken=q", vec![], None),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.insert(*name, value.parse().unwrap());
            }
            let found = credential(&target.parse().unwrap(), &map);
            assert_eq!(found.as_ref().map(|text| text.as_str()), token, "{target} {headers:?}");
        }
    }
}
