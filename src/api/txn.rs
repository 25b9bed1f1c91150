//! `/v1/txn`: several operations on keys that happen together or not at all.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::body::JsonBytes;
use super::decode::Fields;
use super::error::ApiError;
use super::json::kv::EntryJson;
use super::query::Params;
use super::{App, reply};
use crate::kv::limits::{MAX_OPERATIONS, MAX_TXN_BYTES, MAX_VALUE_BYTES};
use crate::kv::{Content, Entry, Operation, Refusal};

/// What one operation may be about. Only keys can be changed so here.
const KINDS: &[&str] = &["KV", "Node", "Service", "Check", "Intention"];
const FIELDS: &[&str] = &["Verb", "Key", "Value", "Flags", "Index", "Session", "Namespace", "Partition"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    /// `null` when something did not hold.
    results: Option<Vec<ResultJson<'a>>>,
    /// `null` when everything did.
    errors: Option<Vec<ErrorJson>>,
}

#[derive(Debug, Serialize)]
struct ResultJson<'a> {
    #[serde(rename = "KV")]
    kv: EntryJson<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ErrorJson {
    op_index: usize,
    what: String,
}

pub(super) async fn run(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    params.read_options(&app.state.catalog.settings().datacenter)?;
    let operations = parse(&body)?;
    let only_reads = operations.iter().all(|(_, operation)| is_read(operation));
    let outcome = app.state.kv.apply(operations).await?;
    let mut response = reply::json(params.layout, &answer(&outcome));
    if outcome.is_err() {
        *response.status_mut() = StatusCode::CONFLICT;
    }
    if only_reads {
        reply::add_leader(response.headers_mut(), true);
    }
    Ok(response)
}

fn answer(outcome: &Result<Vec<Entry>, Vec<(usize, Refusal)>>) -> Answer<'_> {
    match outcome {
        Ok(entries) => {
            let results = entries.iter().map(|entry| ResultJson { kv: EntryJson::from(entry) });
            Answer { results: Some(results.collect()), errors: None }
        }
        Err(refused) => {
            let error = |(place, refusal): &(usize, Refusal)| ErrorJson {
                op_index: *place,
                what: refusal.to_string(),
            };
            Answer { results: None, errors: Some(refused.iter().map(error).collect()) }
        }
    }
}

const fn is_read(operation: &Operation) -> bool {
    use Operation as O;
    matches!(
        operation,
        O::Get | O::GetOrEmpty | O::GetTree | O::CheckIndex(_) | O::CheckSession(_) | O::CheckNotExists
    )
}

fn parse(body: &[u8]) -> Result<Vec<(String, Operation)>, ApiError> {
    let unreadable = |fault: String| ApiError::bad_request(format!("Failed to parse body: {fault}"));
    let value: Value = serde_json::from_slice(body).map_err(|fault| unreadable(fault.to_string()))?;
    let Value::Array(items) = value else {
        return Err(unreadable("json: the body must be a list of operations".to_owned()));
    };
    if items.len() > MAX_OPERATIONS {
        return Err(too_large(format!(
            "Transaction contains too many operations ({} > {MAX_OPERATIONS})",
            items.len()
        )));
    }
    let operations: Result<Vec<_>, _> = items.into_iter().enumerate().map(operation).collect();
    let operations = operations?;
    let bytes: usize = operations.iter().map(|(_, operation)| value_of(operation).len()).sum();
    if bytes > MAX_TXN_BYTES {
        let text = format!("Cumulative size of key data is too large ({bytes} > {MAX_TXN_BYTES} bytes)");
        return Err(too_large(text));
    }
    Ok(operations)
}

fn operation((place, item): (usize, Value)) -> Result<(String, Operation), ApiError> {
    let fields = Fields::of(item, KINDS)?;
    let Some(kv) = fields.value("KV").filter(|kv| !kv.is_null()) else {
        return Err(ApiError::bad_request(format!(
            "operation {place} is not about a key; this server's transactions hold KV operations only"
        )));
    };
    let fields = Fields::of(kv.clone(), FIELDS)?;
    let key = fields.text("Key")?.to_owned();
    let value = STANDARD.decode(fields.text("Value")?).map_err(|fault| {
        ApiError::bad_request(format!("Failed to parse body: the value of key {key:?}: {fault}"))
    })?;
    if value.len() > MAX_VALUE_BYTES {
        let bytes = value.len();
        return Err(too_large(format!(
            "Value for key {key:?} is too large ({bytes} > {MAX_VALUE_BYTES} bytes)"
        )));
    }
    let content = Content { value: Bytes::from(value), flags: fields.long("Flags")?.unwrap_or(0) };
    let index = fields.long("Index")?.unwrap_or(0);
    let session = fields.text("Session")?.to_owned();
    let operation = match fields.text("Verb")? {
        "set" => Operation::Set(content),
        "cas" => Operation::Cas(content, index),
        "lock" => Operation::Lock(content, session),
        "unlock" => Operation::Unlock(content, session),
        "get" => Operation::Get,
        "get-or-empty" => Operation::GetOrEmpty,
        "get-tree" => Operation::GetTree,
        "check-index" => Operation::CheckIndex(index),
        "check-session" => Operation::CheckSession(session),
        "check-not-exists" => Operation::CheckNotExists,
        "delete" => Operation::Delete,
        "delete-cas" => Operation::DeleteCas(index),
        "delete-tree" => Operation::DeleteTree,
        other => return Err(ApiError::bad_request(format!("unknown KV verb {other:?}"))),
    };
    if key.is_empty() && !matches!(operation, Operation::DeleteTree | Operation::GetTree) {
        return Err(ApiError::bad_request(format!("operation {place}: Must provide key")));
    }
    Ok((key, operation))
}

fn value_of(operation: &Operation) -> &[u8] {
    match operation {
        Operation::Set(content)
        | Operation::Cas(content, _)
        | Operation::Lock(content, _)
        | Operation::Unlock(content, _) => &content.value,
        _ => &[],
    }
}

fn too_large(text: String) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}
