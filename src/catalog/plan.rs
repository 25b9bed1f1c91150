//! What a write means for the store: one transaction, planned on a state. Pure.
//!
//! Plans write only what differs: repeating a registration writes nothing, a new output alone neither.
//! Invariant: whoever adds a check to an instance, or takes one from it, rewrites the instance, so that
//! removing an instance, which rests on its version, never leaves a check behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::draft::{Draft, Plan};
use super::key::{Key, StoredInstance, StoredLease, StoredNode};
use super::lease::MAX_LEASES;
use super::reports::Reported;
use super::state::State;
use super::{CatalogError, InstanceRecord, LeaseId, Owner, Unlisted};
use crate::model::check::cut_output;
use crate::model::{
    Check, CheckReport, EndpointId, Instance, InstanceId, Intention, Kind, NodeName, Party, Registration,
};

/// Most instances in the catalog: twice what the design has to hold.
const MAX_INSTANCES: usize = 200_000;
/// Most intentions: every decision of every sidecar may look at those of its destination.
const MAX_INTENTIONS: usize = 50_000;
/// Ids of checks that outlive a new registration of their instance: Consul's maintenance mode.
const MAINTENANCE: &str = "maintenance";

/// Adds or replaces instances. The registrations are valid.
pub(super) fn register(
    state: &State,
    registrations: &[Registration],
    owner: Owner,
    unlisted: Unlisted,
) -> Result<Plan<()>, CatalogError> {
    let mut draft = Draft::new(state);
    let lease = match owner {
        Owner::Permanent => None,
        Owner::Lease(lease) if state.leases.contains_key(&lease) => Some(lease),
        Owner::Lease(lease) => return Err(CatalogError::NoLease(lease)),
    };
    if let Some(lease) = lease {
        draft.rest_on(&Key::Lease(lease));
    }
    for registration in registrations {
        register_one(&mut draft, registration, lease, unlisted)?;
    }
    check_room(state, registrations.iter().map(|registration| &registration.instance))?;
    Ok(draft.plan(()))
}

/// Whether the catalog has room for those of the instances that are new.
pub(super) fn check_room<'a>(
    state: &State,
    instances: impl Iterator<Item = &'a Instance>,
) -> Result<(), CatalogError> {
    let id = |i: &Instance| EndpointId { node: i.node.clone(), instance: i.id.clone() };
    let new = instances.filter(|instance| state.instance_record(&id(instance)).is_none()).count();
    if new > 0 && state.instance_count + new > MAX_INSTANCES {
        return Err(CatalogError::Invalid(format!("the catalog is full: {MAX_INSTANCES} instances")));
    }
    Ok(())
}

fn register_one(
    draft: &mut Draft<'_>,
    Registration { instance, checks }: &Registration,
    lease: Option<LeaseId>,
    unlisted: Unlisted,
) -> Result<(), CatalogError> {
    let id = EndpointId { node: instance.node.clone(), instance: instance.id.clone() };
    let listed: BTreeSet<&str> = checks.iter().map(|check| check.id.as_str()).collect();
    let mut regrouped = false;
    let known: Vec<&str> = draft.state.check_ids(&id).collect();
    for known in known {
        let Some(record) = draft.state.check_record(&id.node, known) else { continue };
        if listed.contains(known) {
            continue;
        }
        if unlisted == Unlisted::Remove && record.check.type_name != MAINTENANCE {
            draft.delete(&Key::Check(id.node.clone(), known.to_owned()));
            regrouped = true;
            continue;
        }
        // The service may have a new name under its old id.
        let about = Some((instance.id.clone(), instance.name.clone()));
        draft.put_check(Check { instance: about, ..(*record.check).clone() })?;
    }
    for check in checks {
        regrouped |= put_one_check(draft, &id, check)?;
    }
    let key = Key::Instance(id.clone());
    let stored = StoredInstance { instance: instance.clone(), lease };
    let same = draft.state.instance_record(&id).is_some_and(|held| stored_of(held) == stored);
    if same && !regrouped {
        draft.rest_on(&key);
        return Ok(());
    }
    draft.put(&key, &stored)
}

/// Writes a check of an instance if it differs; says whether it is new to the instance.
fn put_one_check(draft: &mut Draft<'_>, id: &EndpointId, check: &Check) -> Result<bool, CatalogError> {
    let about = |check: &Check| check.instance.as_ref().map(|(instance, _)| instance.clone());
    let held = draft.state.check_record(&id.node, &check.id).map(|record| &*record.check);
    let held = held.filter(|held| about(held) == about(check));
    let mut check = check.clone();
    if let Some(held) = held
        && check.output.is_empty()
    {
        // A definition says how a check begins, not what was seen since.
        check.status = held.status;
        check.output.clone_from(&held.output);
    }
    draft.put_check(check)?;
    Ok(held.is_none())
}

/// Adds or replaces one check. One that is run from a definition, and was before, keeps what was seen.
pub(super) fn put_check(state: &State, check: &Check) -> Result<Plan<()>, CatalogError> {
    let mut draft = Draft::new(state);
    let mut check = check.clone();
    let held = state.check_record(&check.node, &check.id).map(|record| &*record.check);
    let runs_on = |held: &&Check| held.definition.is_some() && held.instance == check.instance;
    if let Some(held) = held.filter(runs_on)
        && check.definition.is_some()
    {
        check.status = held.status;
        check.output.clone_from(&held.output);
    }
    if let Some((instance, _)) = &check.instance {
        let id = EndpointId { node: check.node.clone(), instance: instance.clone() };
        let record = state.instance_record(&id);
        let record = record.ok_or_else(|| CatalogError::NoInstance(id.to_string()))?;
        if !state.check_ids(&id).any(|known| known == check.id) {
            draft.put(&Key::Instance(id), &stored_of(record))?;
        }
    }
    draft.put_check(check)?;
    Ok(draft.plan(()))
}

/// Removes one check; says whether there was one.
pub(super) fn delete_check(state: &State, node: &NodeName, id: &str) -> Plan<bool> {
    let mut draft = Draft::new(state);
    let known = state.check_record(node, id).is_some();
    if known {
        draft.delete(&Key::Check(node.clone(), id.to_owned()));
    }
    draft.plan(known)
}

/// Removes an instance, its checks and its sidecar; says whether there was one.
pub(super) fn deregister(state: &State, node: &NodeName, id: &InstanceId) -> Plan<bool> {
    let mut draft = Draft::new(state);
    let id = EndpointId { node: node.clone(), instance: id.clone() };
    let Some(record) = state.instance_record(&id) else { return draft.plan(false) };
    draft.delete_instance(&id);
    if record.instance.kind == Kind::Typical
        && let Ok(sidecar) = InstanceId::new(format!("{}-sidecar-proxy", id.instance))
    {
        let sidecar = EndpointId { node: node.clone(), instance: sidecar };
        let of_ours = |record: &InstanceRecord| {
            record.instance.proxy.as_ref().is_some_and(|proxy| proxy.destination_id == id.instance)
        };
        if state.instance_record(&sidecar).is_some_and(of_ours) {
            draft.delete_instance(&sidecar);
        } else {
            draft.rest_on(&Key::Instance(sidecar));
        }
    }
    draft.plan(true)
}

/// Takes check results.
pub(super) fn report(
    state: &State,
    node: &NodeName,
    reports: &[CheckReport],
) -> Result<Plan<Reported>, CatalogError> {
    let mut draft = Draft::new(state);
    let mut reported = Reported::default();
    // Of several results of one check the last counts.
    let last: BTreeMap<&str, &CheckReport> = reports.iter().map(|r| (r.id.as_str(), r)).collect();
    for (id, report) in last {
        let Some(record) = state.check_record(node, id) else {
            reported.unknown.get_or_insert_with(|| id.to_owned());
            continue;
        };
        let output = cut_output(&report.output);
        reported.taken.push((report.clone(), record.check.status != report.status));
        draft.put_check(Check { status: report.status, output, ..(*record.check).clone() })?;
    }
    Ok(draft.plan(reported))
}

/// Adds an intention or replaces that of its pair. What stays the same keeps id and times.
pub(super) fn put_intention(state: &State, new: &Intention) -> Result<Plan<Intention>, CatalogError> {
    let mut draft = Draft::new(state);
    let key = Key::Intention(new.source.clone(), new.destination.clone());
    let pair = (new.destination.clone(), new.source.clone());
    let mut new = new.clone();
    if let Some(held) = state.intentions.get(&pair).map(|record| &record.intention) {
        new.id.clone_from(&held.id);
        new.created_ms = held.created_ms;
        if (&new.description, &new.meta, new.action) == (&held.description, &held.meta, held.action) {
            return Ok(draft.plan((**held).clone()));
        }
    } else if state.intentions.len() >= MAX_INTENTIONS {
        return Err(CatalogError::Invalid(format!(
            "there are {MAX_INTENTIONS} intentions; remove some"
        )));
    }
    draft.put(&key, &new)?;
    Ok(draft.plan(new))
}

/// Makes the intentions toward a destination exactly these.
pub(super) fn replace_intentions(
    state: &State,
    destination: &Party,
    new: &[Intention],
) -> Result<Plan<()>, CatalogError> {
    let mut draft = Draft::new(state);
    let held = |source: &Party| state.intentions.get(&(destination.clone(), source.clone()));
    let fresh = new.iter().filter(|intention| held(&intention.source).is_none()).count();
    if state.intentions.len() + fresh > MAX_INTENTIONS {
        let text = format!("there would be more than {MAX_INTENTIONS} intentions; remove some");
        return Err(CatalogError::Invalid(text));
    }
    for intention in new {
        let mut intention = intention.clone();
        let key = Key::Intention(intention.source.clone(), destination.clone());
        if let Some(held) = held(&intention.source).map(|record| &record.intention) {
            intention.id.clone_from(&held.id);
            intention.created_ms = held.created_ms;
            if (Intention { updated_ms: held.updated_ms, ..intention.clone() }) == **held {
                draft.rest_on(&key);
                continue;
            }
        }
        draft.put(&key, &intention)?;
    }
    for (to, source) in state.intentions.keys().filter(|(to, _)| to == destination) {
        if !new.iter().any(|intention| intention.source == *source) {
            draft.delete(&Key::Intention(source.clone(), to.clone()));
        }
    }
    Ok(draft.plan(()))
}

pub(super) fn delete_intention(state: &State, key: &Key) -> Plan<bool> {
    let mut draft = Draft::new(state);
    let known = state.versions.contains_key(&key.encode());
    if known {
        draft.delete(key);
    }
    draft.plan(known)
}

pub(super) fn grant_lease(
    state: &State,
    lease: LeaseId,
    ttl: Duration,
) -> Result<Plan<()>, CatalogError> {
    if state.leases.len() >= MAX_LEASES {
        return Err(CatalogError::Invalid(format!("there are {MAX_LEASES} leases; revoke some")));
    }
    let mut draft = Draft::new(state);
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    draft.put(&Key::Lease(lease), &StoredLease { ttl_ms })?;
    Ok(draft.plan(()))
}

/// Removes a lease and what it owns now; says whether there was anything to remove.
pub(super) fn end_lease(state: &State, lease: LeaseId) -> Plan<bool> {
    let mut draft = Draft::new(state);
    if state.leases.contains_key(&lease) {
        draft.delete(&Key::Lease(lease));
    }
    for id in state.owned.get(&lease).into_iter().flatten() {
        draft.delete_instance(id);
    }
    let any = draft.writes();
    draft.plan(any)
}

/// Makes this server's own node what it should be.
pub(super) fn own_node(
    state: &State,
    name: &NodeName,
    id: &str,
    address: &str,
) -> Result<Plan<()>, CatalogError> {
    let mut draft = Draft::new(state);
    let held = state.nodes.get(name).and_then(|node| node.own.as_ref());
    let node = StoredNode {
        id: held.map_or(id, |held| &held.id).to_owned(),
        address: address.to_owned(),
        tagged_addresses: None,
        meta: held.map(|held| held.meta.clone()).unwrap_or_default(),
        external: false,
    };
    if held != Some(&node) {
        draft.put(&Key::Node(name.clone()), &node)?;
    }
    Ok(draft.plan(()))
}

pub(super) fn stored_of(record: &InstanceRecord) -> StoredInstance {
    let lease = match record.owner {
        Owner::Permanent => None,
        Owner::Lease(lease) => Some(lease),
    };
    StoredInstance { instance: (*record.instance).clone(), lease }
}
