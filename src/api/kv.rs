//! `/v1/kv`: values by key, lists by prefix, and locks.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::blocking::Read;
use super::body::ValueBytes;
use super::error::ApiError;
use super::json::kv::EntryJson;
use super::query::Params;
use super::{App, Index, Shared, reply};
use crate::kv::{Content, Operation, Refusal, Subject};

pub(super) async fn get_root(app: App, params: Params) -> Result<Response, ApiError> {
    get(app, Path(String::new()), params).await
}

pub(super) async fn delete_root(app: App, params: Params) -> Result<Response, ApiError> {
    delete(app, Path(String::new()), params).await
}

pub(super) async fn no_key() -> ApiError {
    ApiError::bad_request("Missing key name")
}

pub(super) async fn get(
    State(app): App,
    Path(key): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    if params.first("keys").is_some() {
        return keys(&app, key, &params).await;
    }
    if params.first("recurse").is_some() {
        let subject = Subject::Prefix(key.clone());
        let read = Read::begin_kv(&app, &params, &subject).await?;
        let entries = app.state.kv.list(&key);
        let shown: Vec<_> = entries.iter().map(|entry| EntryJson::from(&**entry)).collect();
        return Ok(if shown.is_empty() {
            read.nothing()
        } else {
            read.json_without_consistency(&shown)
        });
    }
    check_key(&key)?;
    let read = Read::begin_kv(&app, &params, &Subject::Key(key.clone())).await?;
    let Some(entry) = app.state.kv.get(&key) else { return Ok(read.nothing()) };
    if params.first("raw").is_some() {
        return Ok(read.with_index(raw(entry.value.clone())));
    }
    Ok(read.json_without_consistency(&[EntryJson::from(&*entry)]))
}

/// The keys under a prefix. The root has a list even when it is empty.
async fn keys(app: &Shared, prefix: String, params: &Params) -> Result<Response, ApiError> {
    // Consul reads a misspelling of old as well.
    let separator = params.first("separator").or_else(|| params.first("seperator")).unwrap_or_default();
    let read = Read::begin_kv(app, params, &Subject::Prefix(prefix.clone())).await?;
    let keys = app.state.kv.keys(&prefix, separator);
    let absent = keys.is_empty() && !prefix.is_empty();
    Ok(if absent { read.nothing() } else { read.json_without_consistency(&keys) })
}

/// A value as it is. It may be anything, so browsers are told to run nothing of it.
fn raw(value: bytes::Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox")),
    ];
    (headers, Body::from(value)).into_response()
}

pub(super) async fn put(
    State(app): App,
    Path(key): Path<String>,
    params: Params,
    ValueBytes(value): ValueBytes,
) -> Result<Response, ApiError> {
    check_write(&app, &params, &["cas", "acquire", "release"])?;
    let flags = number(&params, "flags")?.unwrap_or(0);
    let content = Content { value, flags };
    let session = |name| params.first(name).map(str::to_owned);
    let operation = match (number(&params, "cas")?, session("acquire"), session("release")) {
        (Some(index), ..) => Operation::Cas(content, index),
        (None, Some(session), _) => Operation::Lock(content, session),
        (None, None, Some(session)) => Operation::Unlock(content, session),
        (None, None, None) => Operation::Set(content),
    };
    carry_out(&app, &params, key, operation).await
}

pub(super) async fn delete(
    State(app): App,
    Path(key): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    check_write(&app, &params, &["recurse", "cas"])?;
    let operation = match (params.first("recurse"), number(&params, "cas")?) {
        (Some(_), _) => Operation::DeleteTree,
        (None, Some(index)) => Operation::DeleteCas(index),
        (None, None) => Operation::Delete,
    };
    if operation != Operation::DeleteTree {
        check_key(&key)?;
    }
    carry_out(&app, &params, key, operation).await
}

/// True or false by whether it held; a fault of the request is an error.
async fn carry_out(
    app: &Shared,
    params: &Params,
    key: String,
    operation: Operation,
) -> Result<Response, ApiError> {
    let held = match app.state.kv.apply(vec![(key, operation)]).await? {
        Ok(_) => true,
        Err(refused) => match refused.into_iter().next() {
            Some((_, refusal)) if !refusal.is_about_timing() => return Err(fault(&refusal)),
            _ => false,
        },
    };
    Ok(reply::json(params.layout, &held))
}

fn fault(refusal: &Refusal) -> ApiError {
    ApiError::internal(refusal.to_string())
}

/// What a write may not ask for: another datacenter, or two things at once.
fn check_write(app: &Shared, params: &Params, exclusive: &[&str]) -> Result<(), ApiError> {
    params.read_options(&app.state.catalog.settings().datacenter)?;
    let mut given: Vec<_> =
        exclusive.iter().filter_map(|name| params.first(name).map(|v| (name, v))).collect();
    if given.len() < 2 {
        return Ok(());
    }
    given.sort_unstable();
    let given: Vec<_> = given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Err(ApiError::bad_request(format!("Conflicting flags: {}", given.join("&"))))
}

fn check_key(key: &str) -> Result<(), ApiError> {
    if key.is_empty() { Err(ApiError::bad_request("Missing key name")) } else { Ok(()) }
}

fn number(params: &Params, name: &str) -> Result<Option<Index>, ApiError> {
    let Some(text) = params.first(name) else { return Ok(None) };
    let number = text.parse().map(Some);
    number.map_err(|_| ApiError::bad_request(format!("Invalid {name}: {text:?} is not a whole number")))
}
