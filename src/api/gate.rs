//! Who calls, and may they: between the guard and every handler.
//!
//! Reads the credential as Consul does, asks `access` for whom it names, and decides by the table of
//! routes. Where no token is required, everybody passes, and the credential only names the caller. What
//! changes something is written to the audit log before it happens, and its outcome after.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Query, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri};

use zeroize::Zeroizing;

use super::Shared;
use super::error::ApiError;
use super::guard::Ends;
use crate::access::audit::{AuditLog, Entry, Pending};
use crate::access::{self, Actor, Refusal, routes};

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    /// The user whose process is at the other end of a UNIX socket.
    User(u32),
}

impl Peer {
    /// Whether it is on this machine.
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::User(_) => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::User(user) => write!(f, "uid:{user}"),
        }
    }
}

/// Who calls, for handlers that care.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) actor: Actor,
    pub(super) is_local: bool,
}

/// Finds out who calls, and whether they may; what would change something is written down first.
pub(super) async fn admit(app: &Shared, request: &mut Request) -> Result<Option<Pending>, ApiError> {
    let credential = credential(request.uri(), request.headers());
    let certificate = request.extensions().get::<Ends>().and_then(|ends| ends.certificate.clone());
    let (actor, permission) = match identify(app, credential, certificate).await {
        Ok(actor) => {
            let permission = permit(app, request, &actor);
            (actor, permission)
        }
        Err(refusal) => (Actor::Anonymous, Err(refusal)),
    };
    let entry = audited(app, request, &actor);
    if let Err(refusal) = permission {
        if let Some((log, entry)) = entry {
            let outcome = format!("{} {refusal}", StatusCode::FORBIDDEN.as_u16());
            log.refused(Entry { outcome, ..entry }).await;
        }
        return Err(ApiError::new(StatusCode::FORBIDDEN, refusal.to_string()));
    }
    let is_local = request.extensions().get::<Ends>().is_some_and(|ends| ends.peer.is_local());
    request.extensions_mut().insert(Caller { actor, is_local });
    let Some((log, entry)) = entry else { return Ok(None) };
    let begun = log.begin(entry).await.map_err(|fault| {
        let text = format!("{fault}; nothing can be changed until it is written again");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    Ok(Some(begun))
}

fn permit(app: &Shared, request: &Request, actor: &Actor) -> Result<(), Refusal> {
    if !app.state.access.is_required() || request.method() == Method::OPTIONS {
        return Ok(());
    }
    // What matches no route does nothing but answer 404.
    let Some(path) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
    access::decide(routes::rule(path.as_str(), request.method().as_str()), actor)
}

/// The audit log and what to write to it, if there is one and the request would change something.
pub(super) fn audited(app: &Shared, request: &Request, actor: &Actor) -> Option<(AuditLog, Entry)> {
    let log = app.state.audit.as_ref()?;
    let path = request.extensions().get::<MatchedPath>()?;
    let method = request.method();
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS];
    let rule = routes::rule(path.as_str(), method.as_str());
    if !rule.map_or(!reads.contains(method), |rule| rule.changes) {
        return None;
    }
    let peer = request.extensions().get::<Ends>().map(|ends| ends.peer.to_string());
    let entry = Entry {
        actor: actor.to_string(),
        peer: peer.unwrap_or_default(),
        method: method.to_string(),
        route: path.as_str().to_owned(),
        target: request.uri().path().to_owned(),
        ..Entry::default()
    };
    Some((log.clone(), entry))
}

/// A token says more than the certificate of the connection, which many may share.
async fn identify(
    app: &Shared,
    credential: Option<Zeroizing<String>>,
    certificate: Option<Arc<str>>,
) -> Result<Actor, Refusal> {
    let access = &app.state.access;
    let bearer = certificate.map_or(Actor::Anonymous, |print| Actor::Certificate(print.to_string()));
    let Some(text) = credential else { return Ok(bearer) };
    match access.identify(&text, SystemTime::now()).await {
        Err(refusal) if access.is_required() => Err(refusal),
        found => Ok(found.unwrap_or(bearer)),
    }
}

/// The token of a request, from where Consul looks for it and in its order; an empty one is none.
fn credential(uri: &Uri, headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    in_query(uri).or_else(|| access::credential(text).map(str::to_owned)).map(Zeroizing::new)
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
