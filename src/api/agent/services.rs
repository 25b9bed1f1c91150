//! `/v1/agent/services` and `/v1/agent/service`: what runs on the server's own node. Registrations made
//! here belong to that node and stay until they are taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

use super::scripts_refused;
use crate::api::blocking;
use crate::api::body::JsonBytes;
use crate::api::error::ApiError;
use crate::api::filter::schema;
use crate::api::json::service::{AgentService, content_hash};
use crate::api::query::{Params, parse_bool};
use crate::api::{App, Shared, reply};
use crate::catalog::{CatalogError, InstanceRecord, Owner, Topic, Unlisted};
use crate::model::service::SIDECAR_PORTS;
use crate::model::{Definition, InstanceId};

const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

/// The instances of the server's node that somebody registered.
pub(in crate::api) fn own_instances(app: &Shared) -> Vec<InstanceRecord> {
    let mut records = app.state.catalog.instances_on(&app.state.catalog.settings().node);
    records.retain(|record| !record.instance.is_server());
    records
}

pub(in crate::api) async fn list(State(app): App, params: Params) -> Result<Response, ApiError> {
    let filter = params.filter(schema::SERVICE)?;
    let records = own_instances(&app);
    let services: BTreeMap<_, _> = records
        .iter()
        .map(|record| (record.instance.id.as_str(), AgentService::from(&*record.instance)))
        .filter(|(_, service)| filter.keeps(service))
        .collect();
    Ok(reply::json(params.layout, &services))
}

/// One instance; with `?hash`, only once it is another than the caller knows.
pub(in crate::api) async fn get(
    State(app): App,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let options = params.read_options(&app.state.catalog.settings().datacenter)?;
    let unknown = || ApiError::not_found(format!("unknown service ID: {id}"));
    let known = params.non_empty("hash");
    let Some((mut record, mut hash)) = find(&app, &id) else { return Err(unknown()) };
    if known == Some(hash.as_str()) {
        blocking::hold(&app, &options, pin!(until_other(&app, &id, &hash))).await;
        (record, hash) = find(&app, &id).ok_or_else(unknown)?;
    }
    let mut shape = AgentService::from(&*record.instance);
    shape.content_hash = Some(&hash);
    let mut response = reply::json(params.layout, &shape);
    if let Ok(hash) = HeaderValue::from_str(&hash) {
        response.headers_mut().insert(CONTENT_HASH, hash);
    }
    Ok(response)
}

fn find(app: &Shared, id: &str) -> Option<(InstanceRecord, String)> {
    let record = own_instances(app).into_iter().find(|record| record.instance.id.as_str() == id)?;
    let hash = content_hash(&record.instance);
    Some((record, hash))
}

/// Waits until the instance has another hash, or is gone.
async fn until_other(app: &Shared, id: &str, known: &str) {
    while let Some((record, _)) = find(app, id) {
        let topic = Topic::Service(record.instance.name.clone());
        // The index first: what comes after the second look ends the wait.
        let index = app.state.catalog.index(&topic);
        if find(app, id).is_none_or(|(_, hash)| hash != known) {
            return;
        }
        app.state.catalog.changed(&topic, index).await;
    }
}

pub(in crate::api) async fn register(
    State(app): App,
    params: Params,
    JsonBytes(body): JsonBytes,
) -> Result<Response, ApiError> {
    let definition = (app.state.decoders.definition)(&body).map_err(ApiError::bad_request)?;
    let sidecar = definition.sidecar.iter().flat_map(|sidecar| &sidecar.checks);
    scripts_refused(definition.checks.iter().chain(sidecar))?;
    let replace = params.first("replace-existing-checks");
    let replaces = replace.is_some_and(|word| word.is_empty() || parse_bool(word) == Some(true));
    let unlisted = if replaces { Unlisted::Remove } else { Unlisted::Keep };
    accept(&app, &definition, unlisted).await?;
    Ok(reply::empty())
}

/// Writes a definition to the catalog, under the server's own node.
async fn accept(app: &Shared, definition: &Definition, unlisted: Unlisted) -> Result<(), ApiError> {
    let catalog = &app.state.catalog;
    let node = &catalog.settings().node;
    // Two registrations at once must not be given the same port.
    let _alone = app.writes.lock().await;
    let port = match &definition.sidecar {
        Some(sidecar) if sidecar.port.is_none() => sidecar_port(
            &catalog.instances_on(node),
            &definition.id,
        )
        .ok_or_else(|| {
            ApiError::internal(format!(
                "no port provided for sidecar_service and none left in the configured range [{}, {}]",
                SIDECAR_PORTS.start(),
                SIDECAR_PORTS.end()
            ))
        })?,
        _ => 0,
    };
    let registrations = definition.expand(node, port).map_err(CatalogError::from)?;
    catalog.register(registrations, Owner::Permanent, unlisted).await?;
    Ok(())
}

/// The port the sidecar of `parent` has already, or the first of the range that no instance uses.
fn sidecar_port(instances: &[InstanceRecord], parent: &InstanceId) -> Option<u16> {
    let has_parent = |record: &&InstanceRecord| {
        record.instance.proxy.as_ref().is_some_and(|proxy| proxy.destination_id == *parent)
    };
    if let Some(sidecar) = instances.iter().find(has_parent) {
        return Some(sidecar.instance.port);
    }
    let taken: BTreeSet<u16> = instances.iter().map(|record| record.instance.port).collect();
    SIDECAR_PORTS.into_iter().find(|port| !taken.contains(port))
}

pub(in crate::api) async fn deregister_nothing() -> ApiError {
    ApiError::internal("ServiceID missing")
}

/// Removing what is not there is a success, as in Consul.
pub(in crate::api) async fn deregister(
    State(app): App,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    if let Ok(id) = InstanceId::new(&id)
        && !own_instances(&app).iter().all(|record| record.instance.id != id)
    {
        app.state.catalog.deregister(&app.state.catalog.settings().node, &id).await?;
    }
    Ok(reply::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::Sidecar;
    use crate::model::{NodeName, ServiceName};
    use std::sync::Arc;

    fn with_sidecar(name: &str, port: u16) -> Vec<InstanceRecord> {
        let mut definition = Definition::new(ServiceName::new(name).unwrap(), 80).unwrap();
        definition.sidecar = Some(Sidecar::default());
        let all = definition.expand(&NodeName::new("n1").unwrap(), port).unwrap();
        all.into_iter()
            .map(|registration| InstanceRecord {
                instance: Arc::new(registration.instance),
                owner: Owner::Permanent,
                created: 1,
                modified: 1,
            })
            .collect()
    }

    #[test]
    fn sidecar_ports_are_kept_and_never_shared() {
        let id = |text| InstanceId::new(text).unwrap();
        assert_eq!(sidecar_port(&[], &id("web")), Some(21000));
        let mut instances = with_sidecar("web", 21000);
        assert_eq!(sidecar_port(&instances, &id("web")), Some(21000));
        assert_eq!(sidecar_port(&instances, &id("api")), Some(21001));
        for port in SIDECAR_PORTS {
            instances.extend(with_sidecar(&format!("s{port}"), port));
        }
        assert_eq!(sidecar_port(&instances, &id("api")), None);
        assert_eq!(sidecar_port(&instances, &id("s21255")), Some(21255));
    }
}
