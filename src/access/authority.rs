//! The tokens of one mesh: made, found, listed and revoked over the store, and the operator's own.
//!
//! The operator's token lies in a file of his and never in the store: it is there before the first
//! token is made, and whoever loses all others makes new ones with it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use super::limits::{MAX_CREDENTIAL_BYTES, MAX_SWEEP, MAX_TOKENS, MIN_OPERATOR_BYTES};
use super::token::{self, Credential, NewToken, Record, TokenInfo, Wish};
use super::{AccessError, Actor, Refusal};
use crate::store::{Entry, Op, Outcome, Store, StoreError, Txn};

/// Where records lie in the store, each under its accessor.
const PREFIX: &str = "access/token/";
/// How often a revocation is tried again because the record was written meanwhile.
const MAX_CONFLICTS: usize = 16;

/// Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    is_required: bool,
    /// Hash of the operator's token, if there is one.
    operator: ArcSwapOption<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("is_required", &self.0.is_required).finish_non_exhaustive()
    }
}

impl Access {
    /// Over `store`; `is_required` says that whoever has no token may do nothing.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, is_required: bool) -> Self {
        Self(Arc::new(Inner { store, is_required, operator: ArcSwapOption::empty() }))
    }

    /// Whether requests need a token, or a certificate in its place.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.0.is_required
    }

    /// Sets the operator's token in the place of the last one; only its hash is kept.
    ///
    /// # Errors
    /// When it is short enough to be guessed.
    pub fn set_operator(&self, secret: &str) -> Result<(), AccessError> {
        if secret.len() < MIN_OPERATOR_BYTES {
            return Err(AccessError::Weak(MIN_OPERATOR_BYTES));
        }
        self.0.operator.store(Some(Arc::new(token::hash(secret))));
        Ok(())
    }

    /// Whose token a text is.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] for all that is not a valid token, also when the store cannot say.
    pub async fn identify(&self, text: &str, now: SystemTime) -> Result<Actor, Refusal> {
        if text.len() > MAX_CREDENTIAL_BYTES {
            return Err(Refusal::Unknown);
        }
        let operator = self.0.operator.load();
        if operator.as_ref().is_some_and(|hash| token::same(&token::hash(text), hash)) {
            return Ok(Actor::Operator);
        }
        let credential = Credential::parse(text).ok_or(Refusal::Unknown)?;
        let record = self.find(credential.accessor).await.map_err(|fault| {
            tracing::error!(%fault, "tokens cannot be read");
            Refusal::Unknown
        })?;
        match record {
            Some((_, record)) if record.admits(credential.secret, now) => {
                let accessor = credential.accessor.to_owned();
                Ok(Actor::Token { accessor, scopes: record.scopes })
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// Makes a token for whoever acts. Where none is required, anonymous callers may give everything:
    /// they may do everything.
    ///
    /// # Errors
    /// When the wish is beyond the limits or beyond its author, or the store fails.
    pub async fn create(
        &self,
        wish: Wish,
        author: &Actor,
        now: SystemTime,
    ) -> Result<NewToken, AccessError> {
        let free = *author == Actor::Anonymous && !self.0.is_required;
        wish.check(if free { super::Scopes::all() } else { author.scopes() })?;
        let (accessor, secret) = token::fresh()?;
        let record = Record::new(&secret, wish, author.to_string(), now);
        let key = key_of(&accessor);
        let mut ops = self.sweep(now).await?;
        ops.push(Op::Put { key: key.clone(), value: serde_json::to_vec(&record)?.into() });
        match self.0.store.commit(Txn { conditions: vec![(key, 0)], ops }).await? {
            Outcome::Committed(_) => {
                tracing::info!(%accessor, %author, scopes = %record.scopes, "API token created");
                let text = token::text(&accessor, &secret);
                Ok(NewToken { info: record.info(&accessor), text })
            }
            // Only a repeated 64-bit random number leads here.
            Outcome::Conflict => Err(StoreError::Contended.into()),
        }
    }

    /// All tokens whose time is not over.
    ///
    /// # Errors
    /// When the store fails or a record is damaged.
    pub async fn list(&self, now: SystemTime) -> Result<Vec<TokenInfo>, AccessError> {
        let mut infos = Vec::new();
        for entry in self.0.store.load(PREFIX).await?.entries {
            let record = decode(&entry)?;
            if !record.is_over(now) {
                infos.push(record.info(entry.key.trim_start_matches(PREFIX)));
            }
        }
        Ok(infos)
    }

    /// Removes a token; `false` when there is none with this accessor.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke(&self, accessor: &str) -> Result<bool, AccessError> {
        for _ in 0..MAX_CONFLICTS {
            let Some((entry, _)) = self.find(accessor).await? else { return Ok(false) };
            let txn = Txn {
                conditions: vec![(entry.key.clone(), entry.modified)],
                ops: vec![Op::Delete { key: entry.key }],
            };
            if let Outcome::Committed(_) = self.0.store.commit(txn).await? {
                tracing::info!(%accessor, "API token revoked");
                return Ok(true);
            }
        }
        Err(StoreError::Contended.into())
    }

    async fn find(&self, accessor: &str) -> Result<Option<(Entry, Record)>, StoreError> {
        if !token::is_accessor(accessor) {
            return Ok(None);
        }
        let key = key_of(accessor);
        let image = self.0.store.load(&key).await?;
        let entry = image.entries.into_iter().find(|entry| entry.key == key);
        entry.map(|entry| decode(&entry).map(|record| (entry, record))).transpose()
    }

    /// Deletions of tokens whose time is over; an error when too many others are left.
    async fn sweep(&self, now: SystemTime) -> Result<Vec<Op>, AccessError> {
        let entries = self.0.store.load(PREFIX).await?.entries;
        let total = entries.len();
        let over = entries.into_iter().filter(|entry| decode(entry).is_ok_and(|r| r.is_over(now)));
        let ops: Vec<Op> = over.take(MAX_SWEEP).map(|entry| Op::Delete { key: entry.key }).collect();
        if total - ops.len() >= MAX_TOKENS { Err(AccessError::Full(MAX_TOKENS)) } else { Ok(ops) }
    }
}

fn decode(entry: &Entry) -> Result<Record, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Damaged { key: entry.key.clone(), detail: error.to_string() })
}

fn key_of(accessor: &str) -> String {
    format!("{PREFIX}{accessor}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::access::Scopes;
    use crate::store::MemoryStore;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wish(scope: &str, ttl: Option<u64>) -> Wish {
        let scopes = Scopes::parse([scope]).unwrap();
        Wish { description: String::new(), scopes, ttl: ttl.map(Duration::from_secs) }
    }

    #[tokio::test]
    async fn a_token_lives_until_its_time_is_over_or_it_is_revoked() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let access = Access::new(Arc::clone(&store), true);
        access.set_operator(&"o".repeat(32)).unwrap();
        let operator = access.identify(&"o".repeat(32), at(0)).await.unwrap();
        assert_eq!(operator, Actor::Operator);
        let made = access.create(wish("kv:write", Some(100)), &operator, at(0)).await.unwrap();
        let actor = access.identify(&made.text, at(99)).await.unwrap();
        assert_eq!(actor.scopes().to_string(), "kv:read, kv:write");
        assert_eq!(access.identify(&made.text, at(100)).await, Err(Refusal::Unknown));
        // It cannot give more than it has, and what it gives is listed with its author.
        let exceeds = access.create(wish("service:read", None), &actor, at(0)).await.unwrap_err();
        assert!(matches!(exceeds, AccessError::Exceeds(_)), "{exceeds}");
        access.create(wish("kv:read", None), &actor, at(1)).await.unwrap();
        let listed = access.list(at(1)).await.unwrap();
        let authors: Vec<&str> = listed.iter().map(|info| info.author.as_str()).collect();
        assert!(authors.contains(&"operator") && authors.contains(&actor.to_string().as_str()));
        // Nothing in the store is the secret.
        let secret = made.text.rsplit('.').next().unwrap().to_owned();
        for entry in store.load("").await.unwrap().entries {
            assert!(!String::from_utf8_lossy(&entry.value).contains(&secret));
        }
        assert!(access.revoke(&made.info.accessor).await.unwrap());
        assert!(!access.revoke(&made.info.accessor).await.unwrap());
        assert_eq!(access.identify(&made.text, at(1)).await, Err(Refusal::Unknown));
    }

    #[tokio::test]
    async fn what_is_no_token_is_unknown() {
        let access = Access::new(Arc::new(MemoryStore::new()), true);
        assert!(access.set_operator("short").is_err());
        let secret = "0".repeat(64);
        for text in [
            String::new(),
            "short".to_owned(),
            "x".repeat(100_000),
            format!("wa1.0000000000000000.{secret}"),
            "b1gs33cr3t-0000-1111-2222-333333333333".to_owned(),
        ] {
            assert_eq!(access.identify(&text, at(0)).await, Err(Refusal::Unknown));
        }
        for accessor in ["", "../x", "0000000000000000"] {
            assert!(!access.revoke(accessor).await.unwrap());
        }
    }

    #[tokio::test]
    async fn nobody_without_a_token_makes_one_where_they_are_required() {
        for (is_required, made) in [(true, false), (false, true)] {
            let access = Access::new(Arc::new(MemoryStore::new()), is_required);
            let created = access.create(wish("kv:read", None), &Actor::Anonymous, at(0)).await;
            assert_eq!(created.is_ok(), made, "{is_required}");
        }
    }
}
