//! Makes instances of the catalog of keys under a prefix: `/services/<service>/<instance>`.
//!
//! Level-triggered: whatever happens to the keys of a service, the catalog is made to agree with what they are
//! now; so it is at start, after a fault and after a gap in the history. The instances of a service live
//! on a node of their own, `etcd:<service>`, which no machine can be called, so that ids need be unique
//! in their service only. They have no sidecar: DNS and discovery show them, the mesh does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::instance::{Location, NotAnInstance, location, names};
use super::keyspace::Keyspace;
use super::shell::Keys;
use super::span::Span;
use crate::catalog::{Catalog, CatalogError, Owner, Unlisted};
use crate::model::{
    Instance, InstanceId, Kind, NameError, NodeName, Registration, ServiceName, Weights,
};
use crate::pb::etcd::mvccpb::KeyValue;

/// Where registrations are, unless told otherwise.
const PREFIX: &str = "/services/";
/// What the names of our nodes begin with.
const NODE: &str = "etcd:";
/// Consul's name for the metadata that says where an instance comes from, and our word.
const SOURCE: (&str, &str) = ("external-source", "etcd");
/// Instances registered in one transaction of the catalog.
const AT_ONCE: usize = 128;
/// Pause after the catalog could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Bridge {
    keys: Keys,
    catalog: Catalog,
    /// Keys that were complained about, at the revision they had.
    complaints: HashMap<Bytes, i64>,
}

/// Services whose keys changed; `None`: any may have.
type Dirty = Option<BTreeSet<String>>;

impl Bridge {
    #[must_use]
    pub fn new(keys: Keys, catalog: Catalog) -> Self {
        Self { keys, catalog, complaints: HashMap::new() }
    }

    /// Follows the keys. Never returns.
    pub async fn run(mut self) {
        let mut revision = self.keys.revision();
        let mut next = 0;
        let mut dirty: Dirty = None;
        loop {
            revision.mark_unchanged();
            let (changed, seen) = self.keys.read(|space| (changed(space, next), space.revision));
            next = seen + 1;
            dirty = match (dirty, changed) {
                (Some(mut all), Some(more)) => {
                    all.extend(more);
                    Some(all)
                }
                _ => None,
            };
            match self.agree(dirty.as_ref()).await {
                Ok(()) => {
                    dirty = Some(BTreeSet::new());
                    // The sender lives in `keys`.
                    if revision.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the catalog does not follow the etcd keys; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Makes the catalog agree with the keys of these services, or of all.
    async fn agree(&mut self, dirty: Option<&BTreeSet<String>>) -> Result<(), CatalogError> {
        let services = match dirty {
            Some(dirty) => dirty.clone(),
            None => self.known(),
        };
        for service in services {
            // What is no name of a service has no instances, only keys to complain about.
            let wanted = self.wanted(&service);
            let Ok(node) = node(&service) else { continue };
            self.agree_on(&node, wanted).await?;
        }
        Ok(())
    }

    async fn agree_on(
        &self,
        node: &NodeName,
        wanted: BTreeMap<InstanceId, Instance>,
    ) -> Result<(), CatalogError> {
        let held = self.catalog.instances_on(node);
        let held: BTreeMap<_, _> = held
            .into_iter()
            .filter(|record| record.instance.meta.get(SOURCE.0).is_some_and(|word| word == SOURCE.1))
            .map(|record| (record.instance.id.clone(), record.instance))
            .collect();
        for id in held.keys().filter(|id| !wanted.contains_key(*id)) {
            self.catalog.deregister(node, id).await?;
        }
        let new: Vec<_> = wanted
            .into_iter()
            .filter(|(id, instance)| held.get(id).is_none_or(|held| **held != *instance))
            .map(|(_, instance)| Registration { instance, checks: Vec::new() })
            .collect();
        for some in new.chunks(AT_ONCE) {
            self.catalog.register(some.to_vec(), Owner::Permanent, Unlisted::Remove).await?;
        }
        Ok(())
    }

    /// The services that have keys, and those that had some when instances were made of them.
    fn known(&self) -> BTreeSet<String> {
        let nodes = self.catalog.nodes();
        let nodes = nodes.iter().filter_map(|node| node.name.as_str().strip_prefix(NODE));
        let mut services: BTreeSet<String> = nodes.map(str::to_owned).collect();
        self.keys.read(|space| {
            let all = under(PREFIX);
            services.extend(all.of(&space.keys).filter_map(|(key, _)| service_of(key)));
        });
        services
    }

    /// The instances that the keys of a service describe.
    fn wanted(&mut self, service: &str) -> BTreeMap<InstanceId, Instance> {
        let span = under(&format!("{PREFIX}{service}/"));
        let found: Vec<_> =
            self.keys.read(|space| span.of(&space.keys).map(|(_, kv)| (**kv).clone()).collect());
        let present: BTreeSet<_> = found.iter().map(|kv| kv.key.clone()).collect();
        self.complaints.retain(|key, _| !span.contains(key) || present.contains(key));
        found.iter().filter_map(|kv| self.instance(kv)).collect()
    }

    fn instance(&mut self, kv: &KeyValue) -> Option<(InstanceId, Instance)> {
        let rest = kv.key.strip_prefix(PREFIX.as_bytes())?;
        let read = || -> Result<_, NotAnInstance> {
            let (service, id) = names(rest)?;
            let node = node(service.as_str())?;
            Ok((node, service, id, location(&kv.value)?))
        };
        let complaint = match read() {
            Ok((node, service, id, Location { host, port, ignored })) => {
                if let Some(ignored) = ignored {
                    let both = format!("the port of its address, {port}, is taken, not {ignored}");
                    self.complain(kv, &both);
                }
                return Some((id.clone(), instance(node, service, id, host, port)));
            }
            Err(fault) => fault.to_string(),
        };
        self.complain(kv, &complaint);
        None
    }

    /// Says once what is wrong with a key.
    fn complain(&mut self, kv: &KeyValue, reason: &str) {
        if self.complaints.insert(kv.key.clone(), kv.mod_revision) != Some(kv.mod_revision) {
            let key = String::from_utf8_lossy(&kv.key);
            tracing::warn!(%key, reason, "an etcd key does not describe an instance as it should");
        }
    }
}

/// Services whose keys changed from a revision on.
fn changed(space: &Keyspace, from: i64) -> Dirty {
    let events = space.events(from).ok()?;
    Some(events.filter_map(|event| service_of(&event.key)).collect())
}

/// The service that a key is about, whether or not it can be called so.
fn service_of(key: &[u8]) -> Option<String> {
    let rest = key.strip_prefix(PREFIX.as_bytes())?;
    let text = String::from_utf8_lossy(rest);
    let (service, _) = text.split_once('/')?;
    Some(service.to_owned())
}

/// Everything that begins so.
fn under(prefix: &str) -> Span {
    let mut end = prefix.as_bytes().to_vec();
    // Text has no byte 0xff, so the last one can be raised.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Span::new(&Bytes::copy_from_slice(prefix.as_bytes()), &end.into())
}

fn node(service: &str) -> Result<NodeName, NameError> {
    NodeName::new(format!("{NODE}{service}"))
}

fn instance(node: NodeName, name: ServiceName, id: InstanceId, address: String, port: u16) -> Instance {
    Instance {
        node,
        id,
        name,
        kind: Kind::Typical,
        tags: Vec::new(),
        meta: [(SOURCE.0.to_owned(), SOURCE.1.to_owned())].into(),
        address,
        port,
        tagged_addresses: BTreeMap::new(),
        weights: Weights::default(),
        enable_tag_override: false,
        native: false,
        proxy: None,
    }
}
