//! From keys to instances.

use super::*;
use crate::catalog::{self, Catalog, Owner, Topic, Unlisted};
use crate::model::{Action, Definition, NodeName, ServiceName};

struct Fixture {
    store: Arc<dyn Store>,
    catalog: Catalog,
    keys: Keys,
    bridge: tokio::task::JoinHandle<()>,
}

async fn open_on(store: Arc<dyn Store>) -> Fixture {
    let settings = catalog::Settings {
        datacenter: "dc1".to_owned(),
        node: NodeName::new("n1").unwrap(),
        node_address: "127.0.0.1".to_owned(),
        default_action: Action::Allow,
    };
    let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
    let keys = Keys::open(Arc::clone(&store)).await.unwrap();
    let bridge = tokio::spawn(Bridge::new(keys.clone(), catalog.clone()).run());
    Fixture { store, catalog, keys, bridge }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn instances(catalog: &Catalog, name: &str) -> Vec<(String, String, u16)> {
    let entries = catalog.health(&service(name));
    let shown = entries.iter().map(|entry| &entry.instance.instance);
    shown.map(|i| (i.id.to_string(), i.address.clone(), i.port)).collect()
}

async fn agrees(catalog: &Catalog, name: &str, expected: &[(&str, &str, u16)]) {
    let expected: Vec<_> =
        expected.iter().map(|(id, host, port)| ((*id).to_owned(), (*host).to_owned(), *port)).collect();
    let topic = Topic::Service(service(name));
    let agree = async {
        loop {
            let index = catalog.index(&topic);
            if instances(catalog, name) == expected {
                return;
            }
            catalog.wait(&topic, index, DEADLINE).await;
        }
    };
    let agreed = tokio::time::timeout(DEADLINE, agree).await;
    assert!(agreed.is_ok(), "{name}: {:?} is not {expected:?}", instances(catalog, name));
}

async fn set(keys: &Keys, key: &str, value: &str) {
    keys.put(put(key, value)).await.unwrap();
}

async fn delete(keys: &Keys, key: &str) {
    let request = DeleteRangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..DeleteRangeRequest::default()
    };
    assert_eq!(keys.delete(request).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn keys_become_instances_and_go_again() {
    let Fixture { catalog, keys, .. } = open_on(Arc::new(MemoryStore::new())).await;
    set(&keys, "/services/user-service/1", r#"{"address": "10.0.0.1", "port": 8080}"#).await;
    agrees(&catalog, "user-service", &[("1", "10.0.0.1", 8080)]).await;
    let entry = catalog.health(&service("user-service")).remove(0);
    assert_eq!(entry.node.name.as_str(), "etcd:user-service");
    assert_eq!(entry.instance.instance.meta["external-source"], "etcd");
    assert!(catalog.connect(&service("user-service")).is_empty(), "the mesh does not know it");

    // The same id in another service is another instance.
    set(&keys, "/services/api/1", r#"{"address": "10.0.0.2:80"}"#).await;
    set(&keys, "/services/user-service/2", r#"{"address": "db.example", "port": 1}"#).await;
    agrees(&catalog, "api", &[("1", "10.0.0.2", 80)]).await;
    agrees(&catalog, "user-service", &[("1", "10.0.0.1", 8080), ("2", "db.example", 1)]).await;
    set(&keys, "/services/user-service/1", r#"{"address": "10.0.0.9", "port": 8080}"#).await;
    agrees(&catalog, "user-service", &[("1", "10.0.0.9", 8080), ("2", "db.example", 1)]).await;
    delete(&keys, "/services/user-service/1").await;
    agrees(&catalog, "user-service", &[("2", "db.example", 1)]).await;
    delete(&keys, "/services/user-service/2").await;
    agrees(&catalog, "user-service", &[]).await;
    agrees(&catalog, "api", &[("1", "10.0.0.2", 80)]).await;
}

#[tokio::test]
async fn what_says_nothing_usable_stays_a_key() {
    let Fixture { catalog, keys, .. } = open_on(Arc::new(MemoryStore::new())).await;
    for (key, value) in [
        ("/services/web/bad", "not json"),
        ("/services/web/no-port", r#"{"address":"10.0.0.1"}"#),
        ("/services/web/a/b", r#"{"address":"10.0.0.1","port":1}"#),
        ("/services/w*b/1", r#"{"address":"10.0.0.1","port":1}"#),
        ("/services/", r#"{"address":"10.0.0.1","port":1}"#),
        ("/other/web/1", r#"{"address":"10.0.0.1","port":1}"#),
        ("/services/web/good", r#"{"address":"10.0.0.1","port":1}"#),
    ] {
        set(&keys, key, value).await;
    }
    agrees(&catalog, "web", &[("good", "10.0.0.1", 1)]).await;
    assert_eq!(keys.range(&all(0)).unwrap().count, 7);
    assert_eq!(catalog.services().len(), 1);
    // Mended, it is one; broken again, it is none.
    set(&keys, "/services/web/bad", r#"{"address":"10.0.0.2","port":2}"#).await;
    agrees(&catalog, "web", &[("bad", "10.0.0.2", 2), ("good", "10.0.0.1", 1)]).await;
    set(&keys, "/services/web/bad", "[]").await;
    agrees(&catalog, "web", &[("good", "10.0.0.1", 1)]).await;
}

#[tokio::test]
async fn after_a_restart_the_catalog_agrees_again() {
    let first = open_on(Arc::new(MemoryStore::new())).await;
    set(&first.keys, "/services/web/1", r#"{"address":"10.0.0.1","port":1}"#).await;
    set(&first.keys, "/services/api/1", r#"{"address":"10.0.0.1","port":1}"#).await;
    agrees(&first.catalog, "web", &[("1", "10.0.0.1", 1)]).await;
    agrees(&first.catalog, "api", &[("1", "10.0.0.1", 1)]).await;
    // Somebody else's instance on a node that looks like ours is left alone.
    let foreign = Definition::new(service("web"), 7).unwrap();
    let registrations = foreign.expand(&NodeName::new("etcd:web").unwrap(), 0).unwrap();
    first.catalog.register(registrations, Owner::Permanent, Unlisted::Remove).await.unwrap();
    // The bridge is gone; keys change meanwhile.
    first.bridge.abort();
    assert!(first.bridge.await.unwrap_err().is_cancelled());
    set(&first.keys, "/services/web/2", r#"{"address":"10.0.0.2","port":2}"#).await;
    delete(&first.keys, "/services/web/1").await;
    delete(&first.keys, "/services/api/1").await;
    drop((first.keys, first.catalog));
    let second = open_on(first.store).await;
    agrees(&second.catalog, "web", &[("2", "10.0.0.2", 2), ("web", "", 7)]).await;
    agrees(&second.catalog, "api", &[]).await;
}
