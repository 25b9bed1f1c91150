//! `/v1/weft/ca`: the certificate authority as its operator sees it. What changes it is for callers on
//! the server's own machine. No answer has a key in it.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::body::JsonBytes;
use super::decode::Fields;
use super::error::ApiError;
use super::guard::Ends;
use super::json::ca::{CaJson, RequestReply, RootReply};
use super::query::Params;
use super::{App, reply};
use crate::ca::limits::{DEFAULT_PATIENCE, MAX_PATIENCE};
use crate::model::duration;

pub(super) async fn show(State(app): App, params: Params) -> Response {
    let ca = &app.state.ca;
    reply::json(params.layout, &CaJson::new(ca.trust_domain().as_str(), &ca.overview()))
}

/// Begins a rotation to a new root.
pub(super) async fn rotate(
    State(app): App,
    Extension(ends): Extension<Ends>,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let (_, patience) = wish(&ends, &body, &["patience"])?;
    Ok(begun(&params, app.state.ca.rotate(patience).await?))
}

/// Begins a rotation to a root whose key is sent along.
pub(super) async fn import(
    State(app): App,
    Extension(ends): Extension<Ends>,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let (fields, patience) = wish(&ends, &body, &["certificate", "key", "patience"])?;
    let (certificate, key) = (fields.text("certificate")?, fields.text("key")?);
    Ok(begun(&params, app.state.ca.import(Some(certificate), key, patience).await?))
}

/// A request for an external authority.
pub(super) async fn request(
    State(app): App,
    Extension(ends): Extension<Ends>,
    params: Params,
) -> Result<Response, ApiError> {
    only_here(&ends)?;
    let csr = app.state.ca.request().await?;
    Ok(reply::json(params.layout, &RequestReply { csr }))
}

/// What the external authority has made of it.
pub(super) async fn install(
    State(app): App,
    Extension(ends): Extension<Ends>,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let (fields, patience) = wish(&ends, &body, &["chain", "patience"])?;
    Ok(begun(&params, app.state.ca.install(fields.text("chain")?, patience).await?))
}

/// What a caller on this machine wants a rotation to begin with, and how patient it is to be.
fn wish(ends: &Ends, body: &[u8], names: &[&'static str]) -> Result<(Fields, Duration), ApiError> {
    only_here(ends)?;
    let fields = Fields::parse(body, names)?;
    let patience = patience(&fields)?;
    Ok((fields, patience))
}

/// The root that is going to sign.
fn begun(params: &Params, root: String) -> Response {
    reply::json(params.layout, &RootReply { root })
}

/// Whoever changes the roots decides on every identity.
pub(super) fn only_here(ends: &Ends) -> Result<(), ApiError> {
    if ends.peer.is_local() {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "The certificate authority is changed only by callers on the server's own machine; run the \
         command there",
    ))
}

fn patience(fields: &Fields) -> Result<Duration, ApiError> {
    let wanted = match fields.text("patience")? {
        "" => return Ok(DEFAULT_PATIENCE),
        text => {
            duration::parse(text).map_err(|fault| ApiError::bad_request(format!("patience: {fault}")))?
        }
    };
    if wanted > MAX_PATIENCE {
        let most = duration::format(MAX_PATIENCE);
        return Err(ApiError::bad_request(format!("patience: at most {most}")));
    }
    Ok(wanted)
}
