//! `/v1/connect/ca` and `/v1/agent/connect`: the certificate authority, and who may connect.

use std::time::Duration;

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
use crate::model::{SpiffeId, duration};

/// The shortest life of a leaf that Consul allows.
const MIN_LEAF_TTL: Duration = Duration::from_secs(3600);

/// The same as an agent tells them, out of memory.
pub(super) async fn agent_roots(app: App, params: Params) -> Result<Response, ApiError> {
    let mut response = roots(app, params).await?;
    reply::add_cache_hit(response.headers_mut());
    Ok(response)
}

/// The roots of the trust domain. Their index is the version of the bundle.
pub(super) async fn roots(State(app): App, params: Params) -> Result<Response, ApiError> {
    let options = params.read_options(&app.state.catalog.settings().datacenter)?;
    let wants_pem = match params.non_empty("pem").map(super::query::parse_bool) {
        None => false,
        Some(Some(wanted)) => wanted,
        Some(None) => {
            return Err(ApiError::bad_request("The 'pem' query parameter must be a boolean value"));
        }
    };
    let mut bundle = app.state.ca.bundle();
    let version = bundle.borrow().version;
    if options.must_wait(version) {
        let passed = async {
            // An error means that the authority is gone: nothing will change any more.
            drop(bundle.wait_for(|bundle| bundle.version > options.index).await);
        };
        blocking::hold(&app, &options, passed).await;
    }
    let version = app.state.ca.bundle().borrow().version;
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

/// The authority's settings in Consul's form.
pub(super) async fn configuration(State(app): App, params: Params) -> Response {
    let settings = app.state.ca.settings();
    let version = app.state.ca.bundle().borrow().version;
    let ttl = duration::format(settings.leaf_ttl);
    // Whole hours as people write them.
    let ttl = ttl.strip_suffix("0m0s").filter(|hours| hours.ends_with('h')).unwrap_or(&ttl);
    let shape = json!({
        "Provider": "consul",
        "Config": { "LeafCertTTL": ttl },
        "State": null,
        "ForceWithoutCrossSigning": false,
        "CreateIndex": version.max(1),
        "ModifyIndex": version.max(1),
    });
    reply::json(params.layout, &shape)
}

/// The authority is set up where its server is started; a request that asks for what holds is a success.
pub(super) async fn configure(
    State(app): App,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse_lenient(&body, &["Provider", "Config"])?;
    let provider = fields.text("Provider")?;
    if provider != "consul" {
        let text = format!("could not initialize provider: unknown CA provider {provider:?}");
        return Err(ApiError::internal(text));
    }
    const KNOWN: &[&str] =
        &["LeafCertTTL", "PrivateKey", "RootCert", "PrivateKeyType", "PrivateKeyBits"];
    let Some(config) = fields.object("Config", KNOWN)? else { return Ok(reply::empty()) };
    if let Some(wanted) = Some(config.text("LeafCertTTL")?).filter(|text| !text.is_empty()) {
        let wanted = duration::parse(wanted)
            .map_err(|fault| ApiError::internal(format!("error configuring provider: {fault}")))?;
        if wanted < MIN_LEAF_TTL {
            let text = "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s";
            return Err(ApiError::internal(text));
        }
        if wanted != app.state.ca.settings().leaf_ttl {
            return Err(unchangeable("the life of leaves", "--leaf-ttl"));
        }
    }
    for key in ["PrivateKey", "RootCert", "PrivateKeyType", "PrivateKeyBits"] {
        if config.is_set(key) {
            return Err(unchangeable(key, "the data directory"));
        }
    }
    Ok(reply::empty())
}

fn unchangeable(what: &str, place: &str) -> ApiError {
    ApiError::internal(format!(
        "error configuring provider: {what} cannot be changed over this API; it is set by {place} when \
         the server starts"
    ))
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
