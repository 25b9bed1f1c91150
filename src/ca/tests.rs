//! The authority over a store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;
use crate::store::{Commit, Entry, Image, Op, Outcome, StoreFuture, Txn, Watch};
use crate::tls::{self, Identity, KeyRequest};

/// The contract of a store over a map; every call yields once, so that racing tasks interleave.
#[derive(Default)]
struct MapStore(StdMutex<Map>);

#[derive(Default)]
struct Map {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    watchers: Vec<(String, mpsc::UnboundedSender<Commit>)>,
}

impl Store for MapStore {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let map = self.0.lock().unwrap();
            let entries = map.entries.values().filter(|e| e.key.starts_with(prefix)).cloned().collect();
            Ok(Image { epoch: 1, revision: map.revision, entries })
        })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(self.0.lock().unwrap().commit(txn))
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, _after: Revision) -> StoreFuture<'a, Watch> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.0.lock().unwrap().watchers.push((prefix.to_owned(), sender));
            Ok(receiver)
        })
    }
}

impl Map {
    fn commit(&mut self, txn: Txn) -> Outcome {
        let modified = |key: &String| self.entries.get(key).map_or(0, |entry| entry.modified);
        if txn.conditions.iter().any(|(key, revision)| modified(key) != *revision) {
            return Outcome::Conflict;
        }
        self.revision += 1;
        let revision = self.revision;
        let mut changes = Vec::new();
        for op in txn.ops {
            match op {
                Op::Put { key, value } => {
                    let created = self.entries.get(&key).map_or(revision, |entry| entry.created);
                    let entry = Entry { key: key.clone(), value, created, modified: revision };
                    self.entries.insert(key.clone(), entry.clone());
                    changes.push((key, Some(entry)));
                }
                Op::Delete { key } => {
                    self.entries.remove(&key);
                    changes.push((key, None));
                }
            }
        }
        for (prefix, watcher) in &self.watchers {
            if changes.iter().any(|(key, _)| key.starts_with(prefix)) {
                let _ = watcher.send(Commit { revision, changes: changes.clone() });
            }
        }
        Outcome::Committed(revision)
    }
}

fn settings() -> Settings {
    Settings {
        datacenter: "dc1".into(),
        server_id: "server-1".into(),
        leaf_ttl: Duration::from_secs(60),
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

#[tokio::test]
async fn an_issued_leaf_makes_an_identity() {
    let ca = Ca::open(Arc::new(MapStore::default()), settings()).await.unwrap();
    let request = KeyRequest::generate().unwrap();
    let id = ca.service_id(&name("Web")).unwrap();
    let leaf = ca.issue(&id, &request.csr).unwrap();
    let bundle = ca.bundle().borrow().clone();
    let identity = Identity::new(1, leaf.chain, &request.key, &bundle, SystemTime::now()).unwrap();
    assert_eq!(*identity.id(), id);
    assert_eq!(identity.serial(), leaf.serial);
    assert_eq!((identity.not_before(), identity.not_after()), (leaf.not_before, leaf.not_after));
}

#[tokio::test]
async fn the_server_certificate_serves_and_is_pinned() {
    let ca = Ca::open(Arc::new(MapStore::default()), settings()).await.unwrap();
    let material = ca.server_material().unwrap();
    let bundle = ca.bundle().borrow().clone();
    tls::grpc_server_config(material.chain, &material.key, &bundle, SystemTime::now()).unwrap();
}
