//! The catalog over a store, as its callers use it.

use std::sync::Arc;

use super::*;
use crate::model::{Definition, Sidecar, Snapshot};
use crate::store::MemoryStore;

pub(super) fn settings() -> Settings {
    Settings {
        datacenter: "dc1".to_owned(),
        node: NodeName::new("n1").unwrap(),
        node_address: "10.0.0.1".to_owned(),
        default_action: Action::Allow,
    }
}

async fn open() -> Catalog {
    Catalog::open(Arc::new(MemoryStore::new()), settings()).await.unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn n1() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn with_sidecar(name: &str, port: u16) -> Vec<Registration> {
    let mut definition = Definition::new(service(name), port).unwrap();
    definition.sidecar = Some(Sidecar::default());
    definition.expand(&n1(), port + 1).unwrap()
}

#[tokio::test]
async fn a_registered_service_is_seen_by_readers_and_sidecars() {
    let catalog = open().await;
    let interest = Interest { services: [service("db")].into(), ..Interest::default() };
    let mut subscription = catalog.subscribe(interest);
    let first = subscription.snapshot();
    catalog.register(with_sidecar("db", 5000), Owner::Permanent).await.unwrap();
    assert_eq!(catalog.health(&service("DB")).len(), 1);
    assert_eq!(catalog.connect(&service("db"))[0].instance.instance.port, 5001);
    subscription.changed().await;
    let mut snapshot = Snapshot::default();
    let second = subscription.take();
    for change in first.changes.into_iter().chain(second.changes) {
        snapshot.apply(change);
    }
    let view = &snapshot.services[&service("db")];
    let endpoint = view.endpoints.values().next().unwrap();
    assert!(view.exists);
    assert_eq!((endpoint.endpoint.host.as_str(), endpoint.endpoint.port), ("10.0.0.1", 5001));
    assert_eq!(endpoint.status, CheckStatus::Critical);
}
