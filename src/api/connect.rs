//! `/v1/connect/ca/roots` and `/v1/agent/connect`: whom to trust, and who may connect.
//! `configuration` has the rest of the authority.

use std::pin::pin;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::body::JsonBytes;
use super::catalog::service_name;
use super::decode::Fields;
use super::error::ApiError;
use super::json::intention::describe;
use super::json::roots::RootsJson;
use super::query::Params;
use super::{App, blocking, reply};
use crate::model::SpiffeId;

/// The same as an agent tells them, out of memory.
pub(super) async fn agent_roots(app: App, params: Params) -> Result<Response, ApiError> {
    let mut response = roots(app, params).await?;
    reply::add_cache_hit(response.headers_mut());
    Ok(response)
}

/// The roots of the trust domain. Their index is the version of the authority.
pub(super) async fn roots(State(app): App, params: Params) -> Result<Response, ApiError> {
    let options = params.read_options(&app.state.catalog.settings().datacenter)?;
    let wants_pem = match params.non_empty("pem").map(super::query::parse_bool) {
        None => false,
        Some(Some(wanted)) => wanted,
        Some(None) => {
            return Err(ApiError::bad_request("The 'pem' query parameter must be a boolean value"));
        }
    };
    let mut changes = app.state.ca.version();
    let version = *changes.borrow();
    if options.must_wait(version) {
        let passed = async {
            // An error means that the authority is gone: nothing will change any more.
            drop(changes.wait_for(|version| *version > options.index).await);
        };
        blocking::hold(&app, &options, pin!(passed)).await;
    }
    let version = app.state.ca.overview().version;
    let roots = app.state.ca.roots();
    if wants_pem {
        let text: String = roots.iter().map(|root| root.pem.as_str()).collect();
        return Ok(([(header::CONTENT_TYPE, "application/pem-certificate-chain")], text).into_response());
    }
    let shape = RootsJson::new(app.state.ca.trust_domain().as_str(), &roots, version);
    let mut response = reply::json(params.layout, &shape);
    // Consul says here that it knows no leader; its clients have learnt not to mind.
    reply::add_index(&mut response, version, false);
    Ok(response)
}

/// Whether the holder of a certificate may connect to a service, and which rule says so. The trust
/// domain is not looked at: TLS does that.
pub(super) async fn authorize(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let bad = |text: &str| ApiError::bad_request(format!("Bad request: {text}"));
    let fields = Fields::parse(&body, &["Target", "ClientCertURI", "ClientCertSerial", "Namespace"])
        .map_err(|fault| bad(&fault.text))?;
    let target = match fields.text("Target")? {
        "" => return Err(bad("Target service must be specified")),
        name => service_name(name)?,
    };
    let id = SpiffeId::parse(fields.text("ClientCertURI")?).ok();
    let service = id.and_then(|id| Some((id.service()?.1, id)));
    let (caller, id) = service.ok_or_else(|| bad("ClientCertURI not a valid Connect identifier"))?;
    let serial = fields.text("ClientCertSerial")?.replace(':', "").to_ascii_lowercase();
    if let Some(subject) = app.state.catalog.bans().borrow().find(&id, &serial) {
        let reason = format!("The certificate is banned by its {}", subject.kind());
        return Ok(reply::json(params.layout, &json!({ "Authorized": false, "Reason": reason })));
    }
    let verdict = app.state.catalog.decide(&caller, &target);
    let rule = verdict.rule.as_ref().and_then(|rule| {
        let all = app.state.catalog.intentions();
        all.into_iter()
            .find(|(found, ..)| (&found.source, &found.destination) == (&rule.source, &rule.destination))
    });
    let allowed = verdict.is_allowed();
    let reason = match rule {
        Some((rule, ..)) => format!("Matched intention: {}", describe(&rule)),
        // Consul's words for the two defaults.
        None if allowed => "ACLs disabled, access is allowed by default".to_owned(),
        None => "Default behavior configured by ACLs".to_owned(),
    };
    let verdict = json!({ "Authorized": allowed, "Reason": reason });
    let mut response = reply::json(params.layout, &verdict);
    reply::add_cache_hit(response.headers_mut());
    Ok(response)
}
