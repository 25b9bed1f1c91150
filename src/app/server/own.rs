//! The server's own entry in the catalog: the service `consul`, which clients and dashboards of Consul look
//! for. Nothing connects to it through the mesh.

use std::collections::BTreeMap;

use crate::app::AppError;
use crate::catalog::{Catalog, Owner, Unlisted};
use crate::model::service::SERVER_SERVICE;
use crate::model::{Definition, ServiceName};

/// Registers the entry, or brings it up to date.
pub(super) async fn register(catalog: &Catalog, grpc_port: u16) -> Result<(), AppError> {
    let mut definition = Definition::new(ServiceName::new(SERVER_SERVICE)?, grpc_port)?;
    let version = ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    definition.meta = BTreeMap::from([version]);
    let registrations = definition.expand(&catalog.settings().node, 0)?;
    catalog.register(registrations, Owner::Permanent, Unlisted::Remove).await?;
    Ok(())
}
