//! Enrolment tokens as the server keeps them: creation, redemption, listing, removal.
//!
//! Invariants: the store holds only a hash of the secret; a use is written durably before anything is
//! signed for it; one use admits one public key, which may come again for [`REPLAY_WINDOW`] because the
//! reply may have been lost. [`Record::redeem`] decides; the rest moves records in and out of the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, digest};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::issue::random;
use super::{CaError, TokenInfo};
use crate::model::{ServiceName, Token, hex};
use crate::store::{Entry, Op, Outcome, Store, StoreError, Txn};

/// Where records lie in the store, each under its id.
const PREFIX: &str = "ca/token/";
/// How long the same public key may repeat its redemption.
pub(super) const REPLAY_WINDOW: Duration = Duration::from_secs(120);
/// Longest life of a token: it is to be used at once, not to be kept.
pub const MAX_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// Most uses of one token; keeps a record small, as each use within the window is noted in it.
pub const MAX_TOKEN_USES: u32 = 1000;
/// Most services one token may be bound to.
pub const MAX_TOKEN_SERVICES: usize = 64;
/// Most tokens that may be outstanding.
pub const MAX_TOKENS: usize = 10_000;
/// Most expired records removed along with one creation, to bound the transaction.
const MAX_SWEEP: usize = 100;
/// Redemptions of one token take turns within a server, so that only another server can cause a
/// conflict; this many in a row mean that something is wrong.
const MAX_CONFLICTS: usize = 16;
/// Tokens whose ids fall into the same slot take turns too; enough slots make that rare.
const SLOTS: usize = 64;

/// The tokens of one mesh.
pub(super) struct Tokens {
    turns: [Mutex<()>; SLOTS],
}

/// A token as it is stored, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Lower-case hex.
    secret_sha256: String,
    services: Vec<ServiceName>,
    /// Seconds since the Unix epoch.
    expires: u64,
    uses_left: u32,
    /// Redemptions that may still be repeated.
    redeemed: Vec<Redemption>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Redemption {
    /// Lower-case hex of the SHA-256 of the `SubjectPublicKeyInfo`.
    key_sha256: String,
    /// Seconds since the Unix epoch.
    at: u64,
}

/// What a valid redemption means for the record.
#[derive(Debug, PartialEq, Eq)]
enum Redeemed {
    /// The same key came again; nothing is to be written.
    Again,
    /// A use was taken; this is to be written before signing.
    Use(Record),
}

/// Why a redemption is refused. The caller of the API learns only the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Unknown,
    WrongSecret,
    Expired,
    UsedUp,
    OtherService,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { turns: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// Makes a token for `services`, stores its record and returns the token itself, this once.
    pub(super) async fn create(
        &self,
        store: &dyn Store,
        services: Vec<ServiceName>,
        (ttl, uses): (Duration, u32),
        pin: &str,
        now: SystemTime,
    ) -> Result<Token, CaError> {
        check_limits(&services, ttl, uses)?;
        let (id, secret) = (hex::encode(&random::<8>()?), hex::encode(&random::<32>()?));
        let token =
            Token::new(&id, &secret, pin).map_err(|error| CaError::Signing(error.to_string()))?;
        let record = Record {
            secret_sha256: sha256(token.secret()),
            services,
            expires: seconds(now) + ttl.as_secs(),
            uses_left: uses,
            redeemed: Vec::new(),
        };
        let key = key_of(token.id());
        let mut ops = self.sweep(store, now).await?;
        ops.push(Op::Put { key: key.clone(), value: record.encode()?.into() });
        match store.commit(Txn { conditions: vec![(key, 0)], ops }).await? {
            Outcome::Committed(_) => Ok(token),
            // Only a repeated 64-bit random number leads here.
            Outcome::Conflict => Err(CaError::Signing("the new token's id is taken; try again".into())),
        }
    }

    /// Takes a use of `token` for `service` and a key, durably, or finds that the key has one already.
    pub(super) async fn redeem(
        &self,
        store: &dyn Store,
        token: &Token,
        service: &ServiceName,
        key_sha256: &str,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let key = key_of(token.id());
        let _turn = self.turns[slot(token.id())].lock().await;
        for _ in 0..MAX_CONFLICTS {
            let Some(entry) = find(store, &key).await? else {
                return Err(refuse(token, Refusal::Unknown, None, service));
            };
            let record = Record::decode(&entry)?;
            let next = match record.redeem(token.secret(), service, key_sha256, now) {
                Ok(Redeemed::Again) => return Ok(()),
                Ok(Redeemed::Use(next)) => next,
                Err(refusal) => return Err(refuse(token, refusal, Some(&record), service)),
            };
            let txn = Txn {
                conditions: vec![(key.clone(), entry.modified)],
                ops: vec![Op::Put { key: key.clone(), value: next.encode()?.into() }],
            };
            if let Outcome::Committed(_) = store.commit(txn).await? {
                tracing::info!(token = token.id(), %service, "enrolment token used");
                return Ok(());
            }
        }
        Err(CaError::Signing("the token is being used by too many at once; try again".into()))
    }

    pub(super) async fn list(
        &self,
        store: &dyn Store,
        now: SystemTime,
    ) -> Result<Vec<TokenInfo>, CaError> {
        let mut infos = Vec::new();
        for entry in store.load(PREFIX).await?.entries {
            let record = Record::decode(&entry)?;
            if seconds(now) < record.expires && record.uses_left > 0 {
                infos.push(TokenInfo {
                    id: entry.key.trim_start_matches(PREFIX).to_owned(),
                    expires: UNIX_EPOCH + Duration::from_secs(record.expires),
                    uses_left: record.uses_left,
                    services: record.services,
                });
            }
        }
        Ok(infos)
    }

    /// Removes a token; `false` when there is none with this id.
    pub(super) async fn revoke(&self, store: &dyn Store, id: &str) -> Result<bool, CaError> {
        let key = key_of(id);
        let _turn = self.turns[slot(id)].lock().await;
        for _ in 0..MAX_CONFLICTS {
            let Some(entry) = find(store, &key).await? else { return Ok(false) };
            let txn = Txn {
                conditions: vec![(key.clone(), entry.modified)],
                ops: vec![Op::Delete { key: key.clone() }],
            };
            if let Outcome::Committed(_) = store.commit(txn).await? {
                tracing::info!(token = id, "enrolment token revoked");
                return Ok(true);
            }
        }
        Err(CaError::Signing("the token is being used by too many at once; try again".into()))
    }

    /// Deletions of records that nobody can use any more; an error when too many others are left.
    async fn sweep(&self, store: &dyn Store, now: SystemTime) -> Result<Vec<Op>, CaError> {
        let entries = store.load(PREFIX).await?.entries;
        let total = entries.len();
        let dead =
            entries.into_iter().filter(|entry| Record::decode(entry).is_ok_and(|r| r.is_dead(now)));
        let ops: Vec<Op> = dead.take(MAX_SWEEP).map(|entry| Op::Delete { key: entry.key }).collect();
        if total - ops.len() >= MAX_TOKENS {
            let text = format!("{MAX_TOKENS} tokens are outstanding; revoke some or let them expire");
            return Err(CaError::TokenLimit(text));
        }
        Ok(ops)
    }
}

impl Record {
    /// Decides on one redemption. Whoever does not know the secret learns nothing of the rest.
    fn redeem(
        &self,
        secret: &str,
        service: &ServiceName,
        key_sha256: &str,
        now: SystemTime,
    ) -> Result<Redeemed, Refusal> {
        let presented = sha256(secret);
        constant_time::verify_slices_are_equal(presented.as_bytes(), self.secret_sha256.as_bytes())
            .map_err(|_| Refusal::WrongSecret)?;
        if !self.services.contains(service) {
            return Err(Refusal::OtherService);
        }
        let now = seconds(now);
        let recent = |one: &Redemption| now < one.at + REPLAY_WINDOW.as_secs();
        if self.redeemed.iter().any(|one| one.key_sha256 == key_sha256 && recent(one)) {
            return Ok(Redeemed::Again);
        }
        if now >= self.expires {
            return Err(Refusal::Expired);
        }
        let uses_left = self.uses_left.checked_sub(1).ok_or(Refusal::UsedUp)?;
        let mut next = Self { uses_left, ..self.clone() };
        next.redeemed.retain(recent);
        next.redeemed.push(Redemption { key_sha256: key_sha256.to_owned(), at: now });
        Ok(Redeemed::Use(next))
    }

    /// Neither a use nor a repetition can come any more.
    fn is_dead(&self, now: SystemTime) -> bool {
        let now = seconds(now);
        let over = now >= self.expires || self.uses_left == 0;
        over && self.redeemed.iter().all(|one| now >= one.at + REPLAY_WINDOW.as_secs())
    }

    fn encode(&self) -> Result<Vec<u8>, CaError> {
        serde_json::to_vec(self).map_err(|error| CaError::Signing(error.to_string()))
    }

    fn decode(entry: &Entry) -> Result<Self, StoreError> {
        serde_json::from_slice(&entry.value)
            .map_err(|error| StoreError::Damaged { key: entry.key.clone(), detail: error.to_string() })
    }
}

fn check_limits(services: &[ServiceName], ttl: Duration, uses: u32) -> Result<(), CaError> {
    let limit = |text: String| Err(CaError::TokenLimit(text));
    if services.is_empty() || services.len() > MAX_TOKEN_SERVICES {
        return limit(format!("a token is bound to 1–{MAX_TOKEN_SERVICES} services"));
    }
    if ttl < Duration::from_secs(1) || ttl > MAX_TOKEN_TTL {
        return limit(format!(
            "a token lives from 1 second to {} hours",
            MAX_TOKEN_TTL.as_secs() / 3600
        ));
    }
    if uses == 0 || uses > MAX_TOKEN_USES {
        return limit(format!("a token has 1–{MAX_TOKEN_USES} uses"));
    }
    Ok(())
}

/// Logs why, with the id and never the secret, and tells the caller as little as is useful.
fn refuse(token: &Token, refusal: Refusal, record: Option<&Record>, service: &ServiceName) -> CaError {
    tracing::warn!(token = token.id(), %service, reason = ?refusal, "enrolment refused");
    match (refusal, record) {
        (Refusal::OtherService, Some(record)) => {
            let bound: Vec<&str> = record.services.iter().map(ServiceName::as_str).collect();
            CaError::TokenForOther { service: service.to_string(), bound: bound.join(", ") }
        }
        _ => CaError::TokenRefused,
    }
}

async fn find(store: &dyn Store, key: &str) -> Result<Option<Entry>, StoreError> {
    Ok(store.load(key).await?.entries.into_iter().find(|entry| entry.key == key))
}

fn key_of(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn slot(id: &str) -> usize {
    id.bytes().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % SLOTS
}

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3";
    const WEB: &str = "web";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn record(uses_left: u32, redeemed: &[(&str, u64)]) -> Record {
        let redeemed =
            redeemed.iter().map(|(key, at)| Redemption { key_sha256: (*key).into(), at: *at });
        Record {
            secret_sha256: sha256(SECRET),
            services: vec![ServiceName::new(WEB).unwrap()],
            expires: 1000,
            uses_left,
            redeemed: redeemed.collect(),
        }
    }

    /// The uses left afterwards; `None` when nothing is to be written.
    fn redeem(
        record: &Record,
        secret: &str,
        service: &str,
        key: &str,
        now: u64,
    ) -> Result<Option<u32>, Refusal> {
        let service = ServiceName::new(service).unwrap();
        record.redeem(secret, &service, key, at(now)).map(|redeemed| match redeemed {
            Redeemed::Again => None,
            Redeemed::Use(next) => Some(next.uses_left),
        })
    }

    #[test]
    fn redemption_by_table() {
        let (fresh, used) = (record(1, &[]), record(0, &[("k1", 900)]));
        for (record, secret, service, key, now, want) in [
            (&fresh, SECRET, WEB, "k1", 500, Ok(Some(0))),
            (&fresh, SECRET, "WEB", "k1", 999, Ok(Some(0))),
            (&fresh, SECRET, WEB, "k1", 1000, Err(Refusal::Expired)),
            (&fresh, "wrong", WEB, "k1", 500, Err(Refusal::WrongSecret)),
            (&fresh, "", WEB, "k1", 500, Err(Refusal::WrongSecret)),
            (&fresh, "wrong", "db", "k1", 2000, Err(Refusal::WrongSecret)),
            (&fresh, SECRET, "db", "k1", 500, Err(Refusal::OtherService)),
            (&used, SECRET, WEB, "k1", 900, Ok(None)),
            (&used, SECRET, WEB, "k1", 1019, Ok(None)),
            (&used, SECRET, WEB, "k1", 1020, Err(Refusal::Expired)),
            (&used, SECRET, WEB, "k2", 901, Err(Refusal::UsedUp)),
            (&used, "wrong", WEB, "k1", 901, Err(Refusal::WrongSecret)),
        ] {
            assert_eq!(redeem(record, secret, service, key, now), want, "{service} {key} {now}");
        }
    }

    #[test]
    fn repetitions_are_forgotten_after_the_window() {
        let service = ServiceName::new(WEB).unwrap();
        let record = record(2, &[("k1", 100), ("k2", 200)]);
        let Ok(Redeemed::Use(next)) = record.redeem(SECRET, &service, "k3", at(230)) else {
            panic!("refused")
        };
        let keys: Vec<&str> = next.redeemed.iter().map(|one| one.key_sha256.as_str()).collect();
        assert_eq!((keys, next.uses_left), (vec!["k2", "k3"], 1));
    }

    #[test]
    fn a_record_is_dead_when_nothing_can_come_any_more() {
        assert!(!record(1, &[]).is_dead(at(999)));
        assert!(record(1, &[]).is_dead(at(1000)));
        assert!(!record(0, &[("k", 500)]).is_dead(at(619)));
        assert!(record(0, &[("k", 500)]).is_dead(at(620)));
    }
}
