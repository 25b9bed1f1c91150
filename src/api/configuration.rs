//! `/v1/connect/ca/configuration`: the certificate authority in Consul's form. A new root is brought in
//! by its key, as Consul does it, and the life of leaves is set; no answer ever has a key in it.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::body::JsonBytes;
use super::decode::Fields;
use super::error::ApiError;
use super::guard::Ends;
use super::query::Params;
use super::{App, ca, reply};
use crate::ca::CaError;
use crate::ca::limits::DEFAULT_PATIENCE;
use crate::model::duration;

/// The shortest and the longest life of a leaf that Consul allows.
const MIN_LEAF_TTL: Duration = Duration::from_secs(3600);
const MAX_LEAF_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
/// Consul's answer comes when the new root signs. Sidecars acknowledge within milliseconds; beyond
/// that the rotation goes on without the caller.
const ACTIVATION: Duration = Duration::from_secs(5);
/// What may be in a configuration; all but the key is kept and shown again.
const KNOWN: &[&str] = &[
    "CSRMaxConcurrent",
    "CSRMaxPerSecond",
    "IntermediateCertTTL",
    "LeafCertTTL",
    "PrivateKey",
    "PrivateKeyBits",
    "PrivateKeyType",
    "RootCert",
    "RootCertTTL",
    "RotationPeriod",
];
const KEY: &str = "PrivateKey";

pub(super) async fn get(State(app): App, params: Params) -> Response {
    let overview = app.state.ca.overview();
    let config = app.state.ca.configuration();
    let config = config.unwrap_or_else(|| json!({ "LeafCertTTL": written(overview.leaf_ttl) }));
    let shape = json!({
        "Provider": "consul",
        "Config": config,
        "State": null,
        "ForceWithoutCrossSigning": false,
        "CreateIndex": 1,
        "ModifyIndex": overview.version.max(1),
    });
    reply::json(params.layout, &shape)
}

/// Whole hours as people write them.
fn written(ttl: Duration) -> String {
    let text = duration::format(ttl);
    text.strip_suffix("0m0s").filter(|hours| hours.ends_with('h')).unwrap_or(&text).to_owned()
}

pub(super) async fn put(
    State(app): App,
    Extension(ends): Extension<Ends>,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    ca::only_here(&ends)?;
    let fields = Fields::parse_lenient(&body, &["Provider", "Config"])?;
    let provider = fields.text("Provider")?;
    if provider != "consul" {
        let text = format!("could not initialize provider: unknown CA provider {provider:?}");
        return Err(ApiError::internal(text));
    }
    let Some(config) = fields.object("Config", KNOWN)? else { return Ok(reply::empty()) };
    let leaf_ttl = leaf_ttl(config.text("LeafCertTTL")?)?;
    let authority = &app.state.ca;
    if let Some(root) = root(authority, &config).await? {
        authority.activated(&root, ACTIVATION).await;
    }
    authority.configure(kept(config), leaf_ttl).await?;
    Ok(reply::empty())
}

fn leaf_ttl(text: &str) -> Result<Option<Duration>, ApiError> {
    let refuse = |text: String| ApiError::internal(format!("error configuring provider: {text}"));
    if text.is_empty() {
        return Ok(None);
    }
    let wanted = duration::parse(text).map_err(|fault| refuse(fault.to_string()))?;
    if wanted < MIN_LEAF_TTL {
        return Err(refuse("leaf cert TTL must be greater or equal than 1h0m0s".to_owned()));
    }
    if wanted > MAX_LEAF_TTL {
        return Err(refuse("leaf cert TTL must be less than 8760h0m0s".to_owned()));
    }
    Ok(Some(wanted))
}

/// Brings in the root that a configuration has, if it has one.
async fn root(authority: &crate::ca::Ca, config: &Fields) -> Result<Option<String>, ApiError> {
    let (key, certificate) = (config.text(KEY)?, config.text("RootCert")?);
    let certificate = Some(certificate).filter(|text| !text.is_empty());
    if key.is_empty() {
        return match certificate {
            None => Ok(None),
            Some(_) => Err(ApiError::internal(
                "error generating CA root certificate: RootCert needs its PrivateKey; for a root whose \
                 key stays elsewhere use `weft ca csr` and `weft ca install`",
            )),
        };
    }
    match authority.import(certificate, key, DEFAULT_PATIENCE).await {
        Ok(root) => Ok(Some(root)),
        Err(CaError::Import(why)) => {
            Err(ApiError::internal(format!("error generating CA root certificate: {why}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// The configuration as it is shown again.
fn kept(config: Fields) -> Value {
    let mut values: Map<String, Value> = config.into_values();
    values.retain(|name, value| !name.eq_ignore_ascii_case(KEY) && !value.is_null());
    Value::Object(values)
}
