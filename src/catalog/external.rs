//! Entries that callers of the catalog API write by hand: nodes without an agent, what runs on them, and
//! checks that somebody else runs. Consul's `catalog/register` and `catalog/deregister`.
//!
//! The plans are pure. An entry is one transaction: node, instance and checks come together.

use std::collections::BTreeMap;

use super::draft::{Draft, Plan};
use super::key::{Key, StoredInstance, StoredNode};
use super::state::State;
use super::{Catalog, CatalogError, plan, validate};
use crate::model::{Check, EndpointId, Instance, NodeName, Registration};

/// Most nodes in the catalog.
const MAX_NODES: usize = 50_000;
/// Consul's limits for metadata of a node.
const MAX_META_PAIRS: usize = 64;
const MAX_META_KEY_BYTES: usize = 128;
const MAX_META_VALUE_BYTES: usize = 512;
/// Longest address, and longest id, of a node: a host name.
const MAX_ADDRESS_BYTES: usize = 255;

/// One entry: a node, perhaps an instance on it, and checks of either.
#[derive(Debug, Clone)]
pub struct External {
    pub node: NodeName,
    /// `None` leaves the node as it is.
    pub update: Option<NodeUpdate>,
    pub instance: Option<Instance>,
    /// Each with the status it has from now on.
    pub checks: Vec<Check>,
}

/// What a caller says of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeUpdate {
    /// Empty keeps the one it has.
    pub id: String,
    pub address: String,
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    pub meta: BTreeMap<String, String>,
}

impl Catalog {
    /// Writes an entry. A node with an agent describes itself: what the entry says of it is left out.
    ///
    /// # Errors
    /// `NoInstance` when a check is about an instance that neither exists nor comes along; `Invalid` when
    /// something is not acceptable or a limit is reached; `Contended` and `Store` as all writes.
    pub async fn put_external(&self, external: &External) -> Result<(), CatalogError> {
        check(external)?;
        self.shared.write(|state| put(state, external)).await.map(drop)
    }

    /// Removes a node without an agent and everything on it; says whether there was one.
    ///
    /// # Errors
    /// As all writes.
    pub async fn delete_node(&self, node: &NodeName) -> Result<bool, CatalogError> {
        let write = self.shared.write(|state| Ok(delete(state, node)));
        write.await.map(|(_, known)| known)
    }
}

fn put(state: &State, external: &External) -> Result<Plan<()>, CatalogError> {
    let mut draft = Draft::new(state);
    put_node(&mut draft, external)?;
    if let Some(instance) = &external.instance {
        plan::check_room(state, std::iter::once(instance))?;
    }
    let id = external.instance.as_ref().map(|instance| &instance.id);
    let mut regrouped: BTreeMap<EndpointId, StoredInstance> = BTreeMap::new();
    for check in &external.checks {
        if let Some((about, _)) = &check.instance
            && id != Some(about)
        {
            let about = EndpointId { node: external.node.clone(), instance: about.clone() };
            let record = state.instance_record(&about);
            let record = record.ok_or_else(|| CatalogError::NoInstance(about.to_string()))?;
            if !state.check_ids(&about).any(|known| known == check.id) {
                regrouped.insert(about, plan::stored_of(record));
            }
        }
        draft.put_check(check.clone())?;
    }
    for (id, stored) in &regrouped {
        draft.put(&Key::Instance(id.clone()), stored)?;
    }
    if let Some(instance) = &external.instance {
        put_instance(&mut draft, instance, &external.checks)?;
    }
    Ok(draft.plan(()))
}

fn put_node(draft: &mut Draft<'_>, external: &External) -> Result<(), CatalogError> {
    let Some(update) = &external.update else { return Ok(()) };
    let held = draft.state.nodes.get(&external.node);
    let stored = held.and_then(|node| node.own.as_ref());
    if stored.is_some_and(|stored| !stored.external) {
        return Ok(());
    }
    if held.is_none() && draft.state.nodes.len() >= MAX_NODES {
        return Err(CatalogError::Invalid(format!("the catalog is full: {MAX_NODES} nodes")));
    }
    let id = match (&update.id, stored) {
        (id, Some(stored)) if id.is_empty() => stored.id.clone(),
        (id, _) => id.clone(),
    };
    let node = StoredNode {
        id,
        address: update.address.clone(),
        tagged_addresses: update.tagged_addresses.clone(),
        meta: update.meta.clone(),
        external: true,
    };
    if stored == Some(&node) {
        return Ok(());
    }
    draft.put(&Key::Node(external.node.clone()), &node)
}

/// The instance keeps its lease: who wrote it first still answers for it.
fn put_instance(
    draft: &mut Draft<'_>,
    instance: &Instance,
    checks: &[Check],
) -> Result<(), CatalogError> {
    let id = EndpointId { node: instance.node.clone(), instance: instance.id.clone() };
    let held = draft.state.instance_record(&id).map(plan::stored_of);
    let stored =
        StoredInstance { instance: instance.clone(), lease: held.as_ref().and_then(|held| held.lease) };
    let is_ours =
        |check: &&Check| check.instance.as_ref().is_some_and(|(about, _)| *about == instance.id);
    let known: Vec<&str> = draft.state.check_ids(&id).collect();
    let regrouped = checks.iter().filter(is_ours).any(|check| !known.contains(&check.id.as_str()));
    if held.as_ref() == Some(&stored) && !regrouped {
        return Ok(());
    }
    draft.put(&Key::Instance(id), &stored)
}

fn delete(state: &State, name: &NodeName) -> Plan<bool> {
    let mut draft = Draft::new(state);
    let Some(node) = state.nodes.get(name) else { return draft.plan(false) };
    if node.own.as_ref().is_some_and(|own| !own.external) {
        return draft.plan(false);
    }
    draft.delete(&Key::Node(name.clone()));
    for id in node.instances.keys() {
        draft.delete(&Key::Instance(EndpointId { node: name.clone(), instance: id.clone() }));
    }
    for id in node.checks.keys() {
        draft.delete(&Key::Check(name.clone(), id.clone()));
    }
    draft.plan(true)
}

fn check(external: &External) -> Result<(), CatalogError> {
    if let Some(update) = &external.update {
        check_node(update)?;
    }
    if let Some(instance) = &external.instance {
        let alone = Registration { instance: instance.clone(), checks: Vec::new() };
        validate::registrations(&[alone])?;
    }
    external.checks.iter().try_for_each(validate::check)
}

fn check_node(update: &NodeUpdate) -> Result<(), CatalogError> {
    let invalid = |text: String| Err(CatalogError::Invalid(text));
    let tagged = update.tagged_addresses.iter().flatten().flat_map(|(name, address)| [name, address]);
    for text in [&update.id, &update.address].into_iter().chain(tagged) {
        if text.len() > MAX_ADDRESS_BYTES || text.chars().any(|c| c.is_control() || c == ' ') {
            return invalid(format!("{text:?} is not an id or an address of a node"));
        }
    }
    let pairs = update.meta.len().max(update.tagged_addresses.as_ref().map_or(0, BTreeMap::len));
    if pairs > MAX_META_PAIRS {
        return invalid(format!("a node has {pairs} pairs of metadata; at most {MAX_META_PAIRS}"));
    }
    for (key, value) in &update.meta {
        if key.is_empty() || key.len() > MAX_META_KEY_BYTES || value.len() > MAX_META_VALUE_BYTES {
            return invalid(format!(
                "metadata {key:?} of the node is not usable: keys have 1 to {MAX_META_KEY_BYTES} bytes, \
                 values at most {MAX_META_VALUE_BYTES}"
            ));
        }
    }
    Ok(())
}
