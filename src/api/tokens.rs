//! `/v1/weft/api-tokens`: the tokens of the API itself.

use std::time::SystemTime;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::App;
use super::body::JsonBytes;
use super::decode::Fields;
use super::error::ApiError;
use super::gate::Caller;
use super::json::tokens::{ApiToken, NewApiToken};
use super::query::Params;
use super::reply;
use crate::access::{AccessError, Actor, Scopes, Wish};
use crate::model::duration;

pub(super) async fn list(State(app): App, params: Params) -> Result<Response, ApiError> {
    let listed = app.state.access.list(SystemTime::now()).await?;
    let shapes: Vec<ApiToken> = listed.iter().map(ApiToken::from).collect();
    Ok(reply::json(params.layout, &shapes))
}

pub(super) async fn create(
    State(app): App,
    Extension(caller): Extension<Caller>,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    on_this_machine(&caller)?;
    let fields = Fields::parse(&body, &["scopes", "description", "ttl"])?;
    let words = fields.list("scopes")?.unwrap_or_default();
    let scopes =
        Scopes::parse(words).map_err(|fault| ApiError::bad_request(format!("scopes: {fault}")))?;
    let ttl = match fields.text("ttl")? {
        "" => None,
        ttl => {
            Some(duration::parse(ttl).map_err(|fault| ApiError::bad_request(format!("ttl: {fault}")))?)
        }
    };
    let wish = Wish { description: fields.text("description")?.to_owned(), scopes, ttl };
    let made = app.state.access.create(wish, &caller.actor, SystemTime::now()).await?;
    let shape = NewApiToken { token: made.text.to_string(), about: ApiToken::from(&made.info) };
    let mut response = reply::json(params.layout, &shape);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(super) async fn revoke(
    State(app): App,
    Extension(caller): Extension<Caller>,
    Path(accessor): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    on_this_machine(&caller)?;
    if app.state.access.revoke(&accessor).await? {
        return Ok(reply::json(params.layout, &true));
    }
    Err(ApiError::not_found(
        "There is no API token with this accessor; list them to see which there are",
    ))
}

/// A secret is as good as what it opens: whoever says nothing of himself has to be on this machine.
pub(super) fn on_this_machine(caller: &Caller) -> Result<(), ApiError> {
    if caller.is_local || caller.actor != Actor::Anonymous {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "Without a token or a certificate, tokens are made only for callers on the server's own machine",
    ))
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        let status = match &error {
            AccessError::Wish(_) | AccessError::Full(_) => StatusCode::BAD_REQUEST,
            AccessError::Exceeds(_) => StatusCode::FORBIDDEN,
            AccessError::Store(_)
            | AccessError::Weak(_)
            | AccessError::NoRandom
            | AccessError::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let text = match &error {
            AccessError::Exceeds(_) => format!("Permission denied: {error}"),
            _ => error.to_string(),
        };
        Self::new(status, text)
    }
}
