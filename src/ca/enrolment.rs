//! What the server keeps of each enrolment: how often it was renewed, and by which key last.
//!
//! Every certificate of an enrolment carries a generation, one higher than the one it renewed. Two
//! holders of one key, the rightful and one who copied it, both renew; whoever comes second shows a
//! generation that was renewed before, and is refused. Invariants: a generation is written durably
//! before it is signed; it never goes down; the same public key may ask for its generation again,
//! because the answer may have been lost on the way. [`Record::renew`] decides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::CaError;
use crate::model::{EnrolmentId, Serial, SpiffeId};
use crate::store::{Entry, Op, Outcome, Store, StoreError, Txn};

/// Where records lie in the store, each under its id.
const PREFIX: &str = "ca/enrolment/";
/// Most enrolments whose certificates have not expired: ten times the sidecars to be held.
pub const MAX_ENROLMENTS: usize = 100_000;
/// How long a record outlives the certificate it was written for, which may have been signed again.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// How often records of expired certificates are looked for, and most that go in one transaction.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
const MAX_SWEEP: usize = 1000;
/// Changes of one record take turns within a server; this many conflicts in a row mean trouble.
const MAX_CONFLICTS: usize = 16;
/// Records whose ids fall into the same slot take turns, too.
const SLOTS: usize = 64;

/// The enrolments of one mesh.
pub(super) struct Enrolments {
    turns: [Mutex<()>; SLOTS],
    swept: Mutex<Option<Swept>>,
}

/// What the last look at all records found.
struct Swept {
    at: SystemTime,
    records: usize,
}

/// A holder asks for the next certificate of an enrolment.
pub(super) struct Claim<'a> {
    pub(super) identity: &'a SpiffeId,
    /// Lower-case hex of the SHA-256 of the public key to be signed.
    pub(super) key_sha256: &'a str,
    /// When the certificate is going to expire.
    pub(super) not_after: SystemTime,
    pub(super) now: SystemTime,
}

/// An enrolment as it is stored, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    identity: SpiffeId,
    /// Of the last certificate that was signed, or was about to be.
    generation: u32,
    /// That certificate's key.
    key_sha256: String,
    /// Seconds since the Unix epoch; no certificate of this enrolment is valid much longer.
    not_after: u64,
}

/// How a renewal is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    Renewed,
    /// The same key asked before; its answer may have been lost.
    Again,
    /// The server had no record, as after a restore from a backup, and has one now.
    Adopted,
}

/// Why a renewal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The certificate was renewed before, with another key: one of two holders is not the rightful.
    Stale { generation: u32, held: u32 },
    /// The record is of another identity.
    Foreign,
    /// Certificates that were not got by enrolment are not renewed.
    NotEnrolled,
}

impl Enrolments {
    pub(super) fn new() -> Self {
        Self { turns: std::array::from_fn(|_| Mutex::new(())), swept: Mutex::new(None) }
    }

    /// Records the first certificate of an enrolment; gives its generation. The same key again is the
    /// same enrolment.
    pub(super) async fn begin(
        &self,
        store: &dyn Store,
        id: EnrolmentId,
        claim: &Claim<'_>,
    ) -> Result<u32, CaError> {
        self.make_room(store, claim.now).await?;
        let write = |record: Option<&Record>| match record {
            None => Ok((Some(Record::new(claim, 1)), 1)),
            Some(record) if record.generation == 1 && record.key_sha256 == claim.key_sha256 => {
                Ok((None, 1))
            }
            // Whoever holds a token and the first key may begin anew, and outdates what there is.
            Some(record) => {
                let next = record.generation.saturating_add(1);
                Ok((Some(Record::new(claim, next)), next))
            }
        };
        self.write(store, id, write).await
    }

    /// Decides on a renewal by the holder of a certificate with serial number `shown`, and records it.
    pub(super) async fn renew(
        &self,
        store: &dyn Store,
        shown: Serial,
        claim: &Claim<'_>,
    ) -> Result<(u32, Granted), CaError> {
        let id = shown.enrolment;
        let refused =
            |refusal| CaError::NotRenewed { id: claim.identity.clone(), enrolment: id, refusal };
        let write = |record: Option<&Record>| {
            let (next, granted) = Record::renew(record, shown, claim).map_err(refused)?;
            let generation = next.generation;
            let changed = record != Some(&next);
            Ok((changed.then_some(next), (generation, granted)))
        };
        self.write(store, id, write).await
    }

    /// Changes a record as `decide` says, with nobody else in between.
    async fn write<T>(
        &self,
        store: &dyn Store,
        id: EnrolmentId,
        decide: impl Fn(Option<&Record>) -> Result<(Option<Record>, T), CaError>,
    ) -> Result<T, CaError> {
        let key = format!("{PREFIX}{id}");
        let _turn = self.turns[slot(&key)].lock().await;
        for _ in 0..MAX_CONFLICTS {
            let entry = store.load(&key).await?.entries.into_iter().find(|entry| entry.key == key);
            let record = entry.as_ref().map(Record::decode).transpose()?;
            let (next, value) = decide(record.as_ref())?;
            let Some(next) = next else { return Ok(value) };
            let modified = entry.map_or(0, |entry| entry.modified);
            let txn = Txn {
                conditions: vec![(key.clone(), modified)],
                ops: vec![Op::Put { key: key.clone(), value: next.encode()?.into() }],
            };
            if let Outcome::Committed(_) = store.commit(txn).await? {
                return Ok(value);
            }
        }
        Err(CaError::Signing("the enrolment is being changed by too many at once; try again".into()))
    }

    /// Removes records of expired certificates now and then; an error when too many others are left.
    async fn make_room(&self, store: &dyn Store, now: SystemTime) -> Result<(), CaError> {
        let mut swept = self.swept.lock().await;
        let fresh = |swept: &&mut Swept| {
            let age = now.duration_since(swept.at).unwrap_or(SWEEP_EVERY);
            age < SWEEP_EVERY && swept.records < MAX_ENROLMENTS
        };
        if let Some(swept) = swept.as_mut().filter(fresh) {
            swept.records += 1;
            return Ok(());
        }
        let entries = store.load(PREFIX).await?.entries;
        let total = entries.len();
        let dead = entries.iter().filter(|entry| Record::decode(entry).is_ok_and(|r| r.is_dead(now)));
        let ops: Vec<_> =
            dead.take(MAX_SWEEP).map(|entry| Op::Delete { key: entry.key.clone() }).collect();
        let records = total - ops.len();
        if !ops.is_empty() {
            // A record that is written meanwhile is of an expired certificate all the same.
            store.commit(Txn { conditions: Vec::new(), ops }).await?;
        }
        if records >= MAX_ENROLMENTS {
            return Err(CaError::TooManyEnrolments);
        }
        *swept = Some(Swept { at: now, records: records + 1 });
        Ok(())
    }
}

impl Record {
    fn new(claim: &Claim<'_>, generation: u32) -> Self {
        Self {
            identity: claim.identity.clone(),
            generation,
            key_sha256: claim.key_sha256.to_owned(),
            not_after: seconds(claim.not_after),
        }
    }

    /// The record after a renewal by the holder of a certificate with serial number `shown`.
    fn renew(
        record: Option<&Self>,
        shown: Serial,
        claim: &Claim<'_>,
    ) -> Result<(Self, Granted), Refusal> {
        let next = shown.generation.checked_add(1).filter(|_| shown.generation > 0);
        let next = next.ok_or(Refusal::NotEnrolled)?;
        let mut renewed = Self::new(claim, next);
        let Some(record) = record else { return Ok((renewed, Granted::Adopted)) };
        renewed.not_after = renewed.not_after.max(record.not_after);
        if record.identity != *claim.identity {
            return Err(Refusal::Foreign);
        }
        if shown.generation >= record.generation {
            return Ok((renewed, Granted::Renewed));
        }
        if next == record.generation && record.key_sha256 == claim.key_sha256 {
            return Ok((record.clone(), Granted::Again));
        }
        Err(Refusal::Stale { generation: shown.generation, held: record.generation })
    }

    /// No certificate of this enrolment is valid any more.
    fn is_dead(&self, now: SystemTime) -> bool {
        seconds(now) >= self.not_after.saturating_add(KEPT_AFTER_EXPIRY.as_secs())
    }

    fn encode(&self) -> Result<Vec<u8>, CaError> {
        serde_json::to_vec(self).map_err(|error| CaError::Signing(error.to_string()))
    }

    fn decode(entry: &Entry) -> Result<Self, StoreError> {
        serde_json::from_slice(&entry.value)
            .map_err(|error| StoreError::Damaged { key: entry.key.clone(), detail: error.to_string() })
    }
}

impl Granted {
    /// For metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Renewed => "ok",
            Self::Again => "repeated",
            Self::Adopted => "adopted",
        }
    }
}

impl Refusal {
    /// For metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Stale { .. } => "stale",
            Self::Foreign => "foreign",
            Self::NotEnrolled => "not_enrolled",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stale { generation, held } => write!(
                f,
                "it was renewed before with another key (it is of generation {generation}, the last one \
                 of {held}): its key was copied, or its process twice"
            ),
            Self::Foreign => f.write_str("its enrolment is of another service"),
            Self::NotEnrolled => f.write_str("it was not got by enrolment"),
        }
    }
}

fn slot(key: &str) -> usize {
    key.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % SLOTS
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[path = "tests/enrolment.rs"]
mod tests;
