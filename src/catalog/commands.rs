//! The catalog's writes: each checks what it is given, plans, commits, and waits until reads show it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::key::Key;
use super::{Catalog, CatalogError, LEASE_TTL, LeaseId, Owner, Unlisted, node, plan, validate};
use crate::model::{Action, Check, InstanceId, Intention, NodeName, Party, Registration};
use crate::store::Revision;

/// One rule toward a destination.
#[derive(Debug, Clone)]
pub struct IntentionRule {
    pub source: Party,
    pub action: Action,
    pub description: String,
    pub meta: BTreeMap<String, String>,
}

/// Writes: answered when durable and visible to reads.
///
/// # Errors
/// Each may fail with `Store` when the store has stopped, `Contended` when others keep changing the
/// same records, and `Invalid` when a record is not acceptable or a limit is reached.
impl Catalog {
    /// Adds or replaces instances and their checks in one transaction. A check that was known keeps its
    /// status unless it comes with an output; `unlisted` says what becomes of the others. The same
    /// registration again writes nothing.
    ///
    /// # Errors
    /// `NoLease` when the owner has expired; see the block.
    pub async fn register(
        &self,
        registrations: Vec<Registration>,
        owner: Owner,
        unlisted: Unlisted,
    ) -> Result<Revision, CatalogError> {
        validate::registrations(&registrations)?;
        let write = self.shared.write(|state| plan::register(state, &registrations, owner, unlisted));
        write.await.map(|(revision, ())| revision)
    }

    /// Removes an instance, its checks and its sidecar; says whether there was one.
    ///
    /// # Errors
    /// See the block.
    pub async fn deregister(&self, node: &NodeName, id: &InstanceId) -> Result<bool, CatalogError> {
        let write = self.shared.write(|state| Ok(plan::deregister(state, node, id)));
        write.await.map(|(_, known)| known)
    }

    /// Adds or replaces one check: of a node, or of an instance that exists. It gets the status it comes
    /// with, unless it has a definition to run and had one before: then it keeps what was seen.
    ///
    /// # Errors
    /// `NoInstance` when it is about one that does not exist; see the block.
    pub async fn put_check(&self, check: &Check) -> Result<(), CatalogError> {
        validate::check(check)?;
        self.shared.write(|state| plan::put_check(state, check)).await.map(drop)
    }

    /// Removes one check; says whether there was one.
    ///
    /// # Errors
    /// See the block.
    pub async fn delete_check(&self, node: &NodeName, id: &str) -> Result<bool, CatalogError> {
        let write = self.shared.write(|state| Ok(plan::delete_check(state, node, id)));
        write.await.map(|(_, known)| known)
    }

    /// Adds the intention of a pair or replaces it; id and time of creation stay.
    ///
    /// # Errors
    /// See the block.
    pub async fn put_intention(
        &self,
        source: Party,
        destination: Party,
        action: Action,
        description: String,
        meta: BTreeMap<String, String>,
    ) -> Result<Intention, CatalogError> {
        let now_ms = now_ms();
        let (created_ms, updated_ms) = (now_ms, now_ms);
        let id = new_uuid()?;
        let new =
            Intention { id, source, destination, action, description, meta, created_ms, updated_ms };
        let write = self.shared.write(|state| plan::put_intention(state, &new));
        write.await.map(|(_, intention)| intention)
    }

    /// Makes the intentions toward a destination exactly these, in one transaction. Those that were there
    /// keep id and time of creation.
    ///
    /// # Errors
    /// See the block.
    pub async fn replace_intentions(
        &self,
        destination: &Party,
        rules: Vec<IntentionRule>,
    ) -> Result<(), CatalogError> {
        let mut new = Vec::with_capacity(rules.len());
        for rule in rules {
            let IntentionRule { source, action, description, meta } = rule;
            let (id, now_ms) = (new_uuid()?, now_ms());
            let (created_ms, updated_ms) = (now_ms, now_ms);
            new.push(Intention {
                id,
                source,
                destination: destination.clone(),
                action,
                description,
                meta,
                created_ms,
                updated_ms,
            });
        }
        self.shared.write(|state| plan::replace_intentions(state, destination, &new)).await.map(drop)
    }

    /// Removes the intention of a pair; says whether there was one.
    ///
    /// # Errors
    /// See the block.
    pub async fn delete_intention(
        &self,
        source: &Party,
        destination: &Party,
    ) -> Result<bool, CatalogError> {
        let key = Key::Intention(source.clone(), destination.clone());
        let write = self.shared.write(|state| Ok(plan::delete_intention(state, &key)));
        write.await.map(|(_, known)| known)
    }

    /// Starts a lease. Its id cannot be guessed.
    ///
    /// # Errors
    /// `Invalid` when the period is outside `LEASE_TTL`; see the block.
    pub async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, CatalogError> {
        if !LEASE_TTL.contains(&ttl) {
            let (least, most) = (LEASE_TTL.start().as_secs(), LEASE_TTL.end().as_secs());
            let text = format!("a lease of {ttl:?} is not possible: {least} to {most} seconds are");
            return Err(CatalogError::Invalid(text));
        }
        let lease = LeaseId::from_le_bytes(random()?).max(1);
        self.shared.write(|state| plan::grant_lease(state, lease, ttl)).await?;
        Ok(lease)
    }

    /// Starts the lease's period anew; returns it. Asynchronous for a store shared by several servers,
    /// where the deadline is not only here.
    ///
    /// # Errors
    /// `NoLease` when it does not exist or is being ended.
    // Asynchronous because a store shared by several servers keeps its own leases.
    #[allow(clippy::unused_async, reason = "a shared store makes it wait")]
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, CatalogError> {
        let renewed = self.shared.clock.renew(&lease);
        renewed.ok_or(CatalogError::NoLease(lease))
    }

    /// Ends a lease now and removes what it holds.
    ///
    /// # Errors
    /// `NoLease` when it does not exist; see the block.
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<(), CatalogError> {
        if !self.shared.read().state.leases.contains_key(&lease) {
            return Err(CatalogError::NoLease(lease));
        }
        self.shared.end_lease(lease).await
    }
}

fn now_ms() -> u64 {
    crate::model::time::epoch_ms(SystemTime::now())
}

/// A random UUID.
///
/// # Errors
/// `NoRandom` when the system has no random bytes.
pub fn new_uuid() -> Result<String, CatalogError> {
    Ok(node::uuid(random()?, 4))
}

fn random<const N: usize>() -> Result<[u8; N], CatalogError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CatalogError::NoRandom)?;
    Ok(bytes)
}
