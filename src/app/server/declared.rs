//! What the server's own files declare: registered at start and at each reload, and deregistered when it
//! has gone from the files. What was registered over an API is left alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::app::AppError;
use crate::catalog::{Catalog, Owner, Unlisted};
use crate::model::service::SIDECAR_PORTS;
use crate::model::{Check, CheckDefinition, CheckId, Definition, InstanceId, NodeName};
use crate::store::{Op, Store, StoreError, Txn};

/// Where the ids of declared services are kept, so that the next start knows them.
const KEY: &str = "app/declared";

/// What files declare, by id.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    services: BTreeSet<InstanceId>,
    #[serde(default)]
    checks: BTreeSet<CheckId>,
}

/// Makes the catalog agree with the files: what is new in them comes, what has gone from them goes, and
/// what stays keeps the state of its checks. All services come in one transaction, so that a fault in
/// one of them changes nothing.
pub(super) async fn apply(
    store: &dyn Store,
    catalog: &Catalog,
    definitions: &[Definition],
    node_checks: &[CheckDefinition],
) -> Result<(), AppError> {
    let node = &catalog.settings().node;
    let mut registrations = Vec::new();
    let mut ports = free_ports(catalog);
    for definition in definitions {
        let port = match &definition.sidecar {
            Some(sidecar) if sidecar.port.is_none() => sidecar_port(catalog, definition, &mut ports)?,
            _ => 0,
        };
        registrations.extend(definition.expand(node, port)?);
    }
    if !registrations.is_empty() {
        catalog.register(registrations, Owner::Permanent, Unlisted::Remove).await?;
    }
    for definition in node_checks {
        catalog.put_check(&node_check(node, definition)).await?;
    }
    let now = Remembered {
        services: definitions.iter().map(|definition| definition.id.clone()).collect(),
        checks: node_checks.iter().map(|check| check.id.clone()).collect(),
    };
    let before = remembered(store).await?;
    for gone in before.services.difference(&now.services) {
        catalog.deregister(node, gone).await?;
    }
    for gone in before.checks.difference(&now.checks) {
        catalog.delete_check(node, gone).await?;
    }
    if before == now { Ok(()) } else { remember(store, &now).await }
}

fn node_check(node: &NodeName, definition: &CheckDefinition) -> Check {
    // Consul leaves the type of node checks from files empty.
    Check { type_name: String::new(), ..Check::declared(node, None, definition) }
}

async fn remembered(store: &dyn Store) -> Result<Remembered, AppError> {
    let image = store.load(KEY).await?;
    let Some(entry) = image.entries.into_iter().find(|entry| entry.key == KEY) else {
        return Ok(Remembered::default());
    };
    serde_json::from_slice(&entry.value).map_err(|error| damaged(&error))
}

async fn remember(store: &dyn Store, ids: &Remembered) -> Result<(), AppError> {
    let value = serde_json::to_vec(ids).map_err(|error| damaged(&error))?;
    let put = Op::Put { key: KEY.to_owned(), value: value.into() };
    store.commit(Txn { conditions: Vec::new(), ops: vec![put] }).await?;
    Ok(())
}

fn damaged(error: &serde_json::Error) -> AppError {
    StoreError::Damaged { key: KEY.to_owned(), detail: error.to_string() }.into()
}

/// The port a sidecar had before, or the lowest free one (Consul's rule).
fn sidecar_port(
    catalog: &Catalog,
    definition: &Definition,
    free: &mut impl Iterator<Item = u16>,
) -> Result<u16, AppError> {
    let node = &catalog.settings().node;
    let id = InstanceId::new(format!("{}-sidecar-proxy", definition.id))?;
    if let Some(held) = catalog.instance(node, &id) {
        return Ok(held.instance.instance.port);
    }
    let none = AppError::NoPort { first: *SIDECAR_PORTS.start(), last: *SIDECAR_PORTS.end() };
    free.next().ok_or(none)
}

fn free_ports(catalog: &Catalog) -> impl Iterator<Item = u16> + use<> {
    let records = catalog.instances_on(&catalog.settings().node);
    let taken: BTreeSet<u16> = records.iter().map(|record| record.instance.port).collect();
    SIDECAR_PORTS.filter(move |port| !taken.contains(port))
}
