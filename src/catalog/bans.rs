//! Bans in the catalog: the records, the writes, and what everybody looks up in. Bounded.
//!
//! Sidecars follow them as resources; the gRPC port and the API ask here. A ban is answered when it is
//! durable and this server applies it.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::draft::{Draft, Plan};
use super::key::Key;
use super::state::State;
use super::{Catalog, CatalogError};
use crate::model::ban::Subject;
use crate::model::snapshot::Change;
use crate::model::time::epoch_ms;
use crate::model::{Ban, Bans};

/// Most bans: every sidecar holds all of them, 100 to 300 bytes each.
pub const MAX_BANS: usize = 10_000;
/// Longest reason.
pub const MAX_REASON_BYTES: usize = 256;

impl State {
    pub(super) fn write_ban(&mut self, subject: Subject, new: Option<Ban>) {
        let banned = Arc::make_mut(&mut self.banned);
        match new {
            Some(ban) => {
                banned.insert(subject.clone());
                self.bans.insert(subject, ban);
            }
            None => {
                banned.remove(&subject);
                self.bans.remove(&subject);
            }
        }
    }

    pub(super) fn ban_change(&self, subject: &Subject) -> Change {
        let subject = subject.clone();
        if self.bans.contains_key(&subject) { Change::Ban(subject) } else { Change::BanGone(subject) }
    }
}

/// Adds a ban; says what is there then. One that was there stays as it is.
fn put(state: &State, new: &Ban) -> Result<Plan<Ban>, CatalogError> {
    let mut draft = Draft::new(state);
    let key = Key::Ban(new.subject.clone());
    if let Some(held) = state.bans.get(&new.subject) {
        draft.rest_on(&key);
        return Ok(draft.plan(held.clone()));
    }
    if state.bans.len() >= MAX_BANS {
        let text = format!("there are {MAX_BANS} bans; lift those whose certificates have expired");
        return Err(CatalogError::Invalid(text));
    }
    draft.put(&key, new)?;
    Ok(draft.plan(new.clone()))
}

fn delete(state: &State, subject: &Subject) -> Plan<bool> {
    let mut draft = Draft::new(state);
    let known = state.bans.contains_key(subject);
    if known {
        draft.delete(&Key::Ban(subject.clone()));
    }
    draft.plan(known)
}

impl Catalog {
    /// Bans a subject; says what is there then.
    ///
    /// # Errors
    /// `Invalid` beyond [`MAX_BANS`] or [`MAX_REASON_BYTES`]; otherwise as all writes.
    pub async fn put_ban(&self, subject: Subject, reason: String) -> Result<Ban, CatalogError> {
        if reason.len() > MAX_REASON_BYTES {
            let text = format!("the reason has {} bytes; at most {MAX_REASON_BYTES} fit", reason.len());
            return Err(CatalogError::Invalid(text));
        }
        let new = Ban { subject, reason, created_ms: epoch_ms(SystemTime::now()) };
        let (_, ban) = self.shared.write(|state| put(state, &new)).await?;
        tracing::warn!(target: "weft::audit", subject = %ban.subject, reason = ban.reason, "banned");
        Ok(ban)
    }

    /// Lifts a ban; says whether there was one.
    ///
    /// # Errors
    /// As all writes.
    pub async fn delete_ban(&self, subject: &Subject) -> Result<bool, CatalogError> {
        let (_, known) = self.shared.write(|state| Ok(delete(state, subject))).await?;
        if known {
            tracing::warn!(target: "weft::audit", %subject, "ban lifted");
        }
        Ok(known)
    }

    /// All bans, by kind and value.
    #[must_use]
    pub fn ban_list(&self) -> Vec<Ban> {
        self.shared.read().state.bans.values().cloned().collect()
    }

    /// The bans in force, and their changes.
    #[must_use]
    pub fn bans(&self) -> watch::Receiver<Arc<Bans>> {
        self.shared.bans.subscribe()
    }
}
