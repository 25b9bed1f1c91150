//! `/v1/weft/bans`: which certificates are refused although they are genuine.

use axum::extract::State;
use axum::response::Response;

use super::body::JsonBytes;
use super::catalog::service_name;
use super::decode::Fields;
use super::error::ApiError;
use super::json::weft::BanJson;
use super::query::Params;
use super::{App, reply};
use crate::model::Ban;
use crate::model::ban::Subject;
use crate::model::time::rfc3339;

/// How a request may name a subject; exactly one of them.
const NAMES: [&str; 4] = ["service", "identity", "enrolment", "serial"];

pub(super) async fn list(State(app): App, params: Params) -> Response {
    let bans: Vec<_> = app.state.catalog.ban_list().iter().map(json).collect();
    reply::json(params.layout, &bans)
}

pub(super) async fn add(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body, &["service", "identity", "enrolment", "serial", "reason"])?;
    let mut named = Vec::new();
    for name in NAMES {
        named.push((name, fields.text(name)?));
    }
    let subject = subject(&app, &named)?;
    let ban = app.state.catalog.put_ban(subject, fields.text("reason")?.to_owned()).await?;
    Ok(reply::json(params.layout, &json(&ban)))
}

pub(super) async fn remove(State(app): App, params: Params) -> Result<Response, ApiError> {
    let named = NAMES.map(|name| (name, params.non_empty(name).unwrap_or_default()));
    let subject = subject(&app, &named)?;
    if !app.state.catalog.delete_ban(&subject).await? {
        return Err(ApiError::not_found(format!("there is no ban of {subject}")));
    }
    Ok(reply::json(params.layout, &true))
}

fn subject(app: &super::Shared, named: &[(&str, &str)]) -> Result<Subject, ApiError> {
    let given: Vec<_> = named.iter().filter(|(_, text)| !text.is_empty()).collect();
    let [(name, text)] = given[..] else {
        let text = format!("name one of {}, and only one", NAMES.join(", "));
        return Err(ApiError::bad_request(text));
    };
    if *name == "service" {
        return Ok(Subject::Identity(app.state.ca.service_id(&service_name(text)?)?));
    }
    let parsed = Subject::parse(name, text);
    let parsed = parsed.ok_or_else(|| ApiError::internal("a kind of ban without a reader"))?;
    let subject = parsed.map_err(|error| ApiError::bad_request(format!("{name}: {error}")))?;
    if let Subject::Identity(id) = &subject
        && !id.is_member_of(app.state.ca.trust_domain())
    {
        let domain = app.state.ca.trust_domain().as_str();
        return Err(ApiError::bad_request(format!("{id} is not of the trust domain {domain}")));
    }
    Ok(subject)
}

fn json(ban: &Ban) -> BanJson {
    BanJson {
        kind: ban.subject.kind().to_owned(),
        value: ban.subject.value().to_owned(),
        reason: ban.reason.clone(),
        created: rfc3339(ban.created_ms),
    }
}
