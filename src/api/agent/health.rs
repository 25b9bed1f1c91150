//! `/v1/agent/health/service`: one verdict for load balancers, as a status code and a word.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use super::checks::own_checks;
use super::maintenance::{NODE_CHECK, SERVICE_PREFIX};
use super::services::own_instances;
use crate::api::json::check::CheckJson;
use crate::api::json::service::AgentService;
use crate::api::query::Params;
use crate::api::{App, Shared, reply};
use crate::catalog::{CheckRecord, InstanceRecord};
use crate::model::{CheckStatus, ServiceName};

const REASON: HeaderName = HeaderName::from_static("x-consul-reason");

/// The state of an instance, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aggregate {
    Checks(CheckStatus),
    Maintenance,
}

impl Aggregate {
    const fn word(self) -> &'static str {
        match self {
            Self::Checks(status) => status.as_str(),
            Self::Maintenance => "maintenance",
        }
    }

    const fn code(self) -> StatusCode {
        match self {
            Self::Checks(CheckStatus::Passing) => StatusCode::OK,
            Self::Checks(CheckStatus::Warning) => StatusCode::TOO_MANY_REQUESTS,
            Self::Checks(CheckStatus::Critical) | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// An instance with the checks that count for it.
struct Judged {
    record: InstanceRecord,
    checks: Vec<(CheckRecord, Vec<String>)>,
    status: Aggregate,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    aggregated_status: &'static str,
    service: AgentService<'a>,
    checks: Vec<CheckJson<'a>>,
}

impl Judged {
    fn new(record: InstanceRecord, all: &[(CheckRecord, Vec<String>)]) -> Self {
        let id = &record.instance.id;
        let counts = |(check, _): &&(CheckRecord, Vec<String>)| {
            check.check.instance.as_ref().is_none_or(|(about, _)| about == id)
        };
        let checks: Vec<_> = all.iter().filter(counts).cloned().collect();
        let status = checks.iter().map(|(check, _)| aggregate(check)).max();
        Self { status: status.unwrap_or(Aggregate::Checks(CheckStatus::Passing)), record, checks }
    }

    fn shape(&self) -> Shape<'_> {
        Shape {
            aggregated_status: self.status.word(),
            service: AgentService::from(&*self.record.instance),
            checks: self.checks.iter().map(|(check, tags)| CheckJson::verbose(check, tags)).collect(),
        }
    }
}

fn aggregate(record: &CheckRecord) -> Aggregate {
    let id = &record.check.id;
    if id == NODE_CHECK || id.starts_with(SERVICE_PREFIX) {
        return Aggregate::Maintenance;
    }
    Aggregate::Checks(record.check.status)
}

pub(in crate::api) async fn by_id(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let found = judged(&app, |record| record.instance.id.as_str() == id).into_iter().next();
    let Some(found) = found else {
        let reason = format!("ServiceId {id} not found");
        let response = if wants_text(&params, &headers) {
            reply::json(params.layout, &reason)
        } else {
            let nothing = json!({ "AggregatedStatus": "critical", "Service": null, "Checks": null });
            reply::json(params.layout, &nothing)
        };
        return with(response, StatusCode::NOT_FOUND, &reason);
    };
    let response = match wants_text(&params, &headers) {
        true => word(found.status),
        false => reply::json(params.layout, &found.shape()),
    };
    with(response, found.status.code(), found.status.word())
}

pub(in crate::api) async fn by_name(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Response {
    let wanted = ServiceName::new(&name).ok();
    let found = judged(&app, |record| Some(&record.instance.name) == wanted.as_ref());
    let shapes: Vec<_> = found.iter().map(Judged::shape).collect();
    let text = wants_text(&params, &headers);
    let Some(worst) = found.iter().map(|judged| judged.status).max() else {
        let reason = format!("ServiceName {name} Not Found");
        let response = match text {
            true => reply::json(params.layout, &reason),
            false => reply::json(params.layout, &shapes),
        };
        return with(response, StatusCode::NOT_FOUND, &reason);
    };
    let response = if text { word(worst) } else { reply::json(params.layout, &shapes) };
    with(response, worst.code(), worst.word())
}

fn judged(app: &Shared, wanted: impl Fn(&InstanceRecord) -> bool) -> Vec<Judged> {
    let checks = own_checks(app);
    let records = own_instances(app).into_iter().filter(|record| wanted(record));
    records.map(|record| Judged::new(record, &checks)).collect()
}

fn wants_text(params: &Params, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    params.first("format") == Some("text")
        || accept.is_some_and(|accept| accept.starts_with("text/plain"))
}

fn word(status: Aggregate) -> Response {
    ([(header::CONTENT_TYPE, "text/plain")], status.word()).into_response()
}

/// The reason is left out when it cannot be a header: it may hold any name a caller asked for.
fn with(mut response: Response, code: StatusCode, reason: &str) -> Response {
    *response.status_mut() = code;
    if let Ok(reason) = HeaderValue::from_str(reason) {
        response.headers_mut().insert(REASON, reason);
    }
    response
}
