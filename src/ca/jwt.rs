//! JWT-SVIDs: the keys that sign them, and signing.
//!
//! The keys are one document under [`KEY`] in the store, sealed as the roots' are. A key is published a while
//! before it signs, so that whoever checks tokens knows it by then, and stays published until the last
//! token that it signed has expired. [`Keys::step`] decides; [`keeper`] carries it out.

mod keeper;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(super) use self::keeper::Keeper;
use super::seal::Keyring;
use super::{Ca, CaError};
use crate::model::{JwtBundle, JwtKey, SpiffeId, TrustDomain, hex};
use crate::store::StoreError;

/// Where the document lies in the store.
const KEY: &str = "ca/jwt";
/// Life of a token when nobody asks for another, and the longest.
pub const DEFAULT_JWT_TTL: Duration = Duration::from_secs(300);
pub const MAX_JWT_TTL: Duration = Duration::from_secs(3600);
/// How long one key signs.
const SIGNS_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long before it signs a key is published: bundles are fetched every 5 minutes or pushed, and a
/// server that is away for a while shall still be in time.
const PUBLISHED_AHEAD: Duration = Duration::from_secs(24 * 3600);
/// What clocks may differ by.
const SLACK: Duration = Duration::from_secs(300);
/// Keys of a document: one that retires, one that signs and one to come, and some slack.
const MAX_KEYS: usize = 8;
/// Bytes of the hash that names a key.
const ID_BYTES: usize = 16;

/// A signed token.
#[derive(Clone)]
pub struct Jwt {
    pub token: String,
    pub not_after: SystemTime,
}

impl Jwt {
    /// By what it is found again, and of no use to whoever reads it: SHA-256 in lower-case hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(digest::digest(&digest::SHA256, self.token.as_bytes()).as_ref())
    }
}

/// The keys of one moment, the one that signed first in front.
struct Keys {
    /// Grows with every change.
    version: u64,
    keys: Vec<Arc<Key>>,
}

struct Key {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    public: JwtKey,
    /// Seconds since the Unix epoch.
    signs_from: u64,
}

impl Ca {
    /// The keys that check JWT-SVIDs, and their changes.
    #[must_use]
    pub fn jwt_bundle(&self) -> watch::Receiver<Arc<JwtBundle>> {
        self.0.jwt.bundle()
    }

    /// Signs a JWT-SVID of `id` for these audiences. It expires after `ttl`, but not after `limit`.
    ///
    /// # Errors
    /// When `id` is of another trust domain, the times make no token, or signing fails.
    pub fn mint_jwt(
        &self,
        id: &SpiffeId,
        audience: &[String],
        ttl: Duration,
        limit: SystemTime,
    ) -> Result<Jwt, CaError> {
        if !id.is_member_of(self.trust_domain()) || id.path().is_empty() {
            return Err(CaError::Signing(format!("{id} is no workload of this trust domain")));
        }
        let now = SystemTime::now();
        let not_after = now.checked_add(ttl.min(MAX_JWT_TTL)).map_or(limit, |end| end.min(limit));
        if not_after <= now || audience.is_empty() {
            return Err(CaError::Signing("a token needs an audience and a future".to_owned()));
        }
        let claims = json!({
            "sub": id.as_str(), "aud": audience, "iat": seconds(now), "exp": seconds(not_after),
        });
        let token = self.0.jwt.sign(&claims, now)?;
        Ok(Jwt { token, not_after })
    }
}

impl Keys {
    /// The first key of a trust domain, which signs at once: nobody can know it before.
    fn create(now: SystemTime) -> Result<Self, CaError> {
        Ok(Self { version: 1, keys: vec![Key::create(seconds(now))?] })
    }

    /// The key that signs: the last one whose time has come.
    fn active(&self, now: SystemTime) -> Option<&Key> {
        let now = seconds(now);
        let come = self.keys.iter().rev().find(|key| key.signs_from <= now);
        // A clock that went back must not stop the signing.
        come.or(self.keys.first()).map(AsRef::as_ref)
    }

    /// What the document should be by now; `None` when it is that already.
    fn step(&self, now: SystemTime) -> Result<Option<Self>, CaError> {
        let at = seconds(now);
        let outlived = |next: &Key| next.signs_from + (MAX_JWT_TTL + SLACK).as_secs() <= at;
        let retired = self.keys.iter().skip(1).take_while(|next| outlived(next)).count();
        let mut keys: Vec<_> = self.keys.iter().skip(retired).cloned().collect();
        let newest = keys.last().map_or(0, |key| key.signs_from);
        let due = newest + (SIGNS_FOR - PUBLISHED_AHEAD).as_secs() <= at;
        if due {
            keys.push(Key::create(at.max(newest) + PUBLISHED_AHEAD.as_secs())?);
        }
        let changed = due || retired > 0;
        Ok(changed.then(|| Self { version: self.version + 1, keys }))
    }

    fn bundle(&self, trust_domain: &TrustDomain) -> JwtBundle {
        JwtBundle {
            trust_domain: trust_domain.clone(),
            version: self.version,
            keys: self.keys.iter().map(|key| key.public.clone()).collect(),
        }
    }

    /// For the store; holds the keys.
    fn encode(&self, ring: &Keyring) -> Result<Bytes, CaError> {
        let seal = |key: &Arc<Key>| -> Result<_, CaError> {
            let id = key.public.id().to_owned();
            Ok(KeyDocument { key: ring.seal(&place(&id), &key.pkcs8)?, id, signs_from: key.signs_from })
        };
        let keys = self.keys.iter().map(seal).collect::<Result<_, _>>()?;
        let document = Document { version: self.version, keys };
        let text = serde_json::to_vec(&document).map_err(|error| damaged(&error.to_string()))?;
        Ok(text.into())
    }

    /// What is stored, and whether it is sealed as `ring` would do it.
    fn decode(value: &[u8], ring: &Keyring) -> Result<(Self, bool), CaError> {
        let document: Document =
            serde_json::from_slice(value).map_err(|error| damaged(&error.to_string()))?;
        let found = document.keys.len();
        if found == 0 || found > MAX_KEYS {
            return Err(damaged(&format!("it has {found} keys; 1 to {MAX_KEYS} are possible")));
        }
        let read = |key: &KeyDocument| {
            let pkcs8 = ring.open(&place(&key.id), &key.key)?;
            Key::from_pkcs8(pkcs8, key.signs_from)
                .filter(|read| read.public.id() == key.id)
                .ok_or_else(|| damaged("a key is not PKCS#8 of P-256, or another's"))
        };
        let keys = document.keys.iter().map(read).collect::<Result<_, _>>()?;
        let is_current = document.keys.iter().all(|key| ring.is_current(&key.key));
        Ok((Self { version: document.version, keys }, is_current))
    }
}

impl Key {
    fn create(signs_from: u64) -> Result<Arc<Self>, CaError> {
        let failed = || CaError::Signing("no key for tokens can be made".to_owned());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| failed())?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Self::from_pkcs8(pkcs8, signs_from).ok_or_else(failed)
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>, signs_from: u64) -> Option<Arc<Self>> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).ok()?;
        let point = pair.public_key().as_ref();
        let hash = digest::digest(&digest::SHA256, point);
        let id = hex::encode(hash.as_ref().get(..ID_BYTES)?);
        let public = JwtKey::new(&id, point)?;
        Some(Arc::new(Self { pkcs8, pair, public, signs_from }))
    }

    /// A JWS in compact form.
    fn sign(&self, claims: &serde_json::Value) -> Result<String, CaError> {
        let header = json!({ "alg": "ES256", "kid": self.public.id(), "typ": "JWT" });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| CaError::Signing("the token cannot be signed".to_owned()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a stored key is bound to.
fn place(id: &str) -> String {
    format!("weft jwt key|{id}")
}

fn damaged(detail: &str) -> CaError {
    StoreError::Damaged { key: KEY.to_owned(), detail: detail.to_owned() }.into()
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u64,
    keys: Vec<KeyDocument>,
}

/// The key as `seal` writes it, and seconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct KeyDocument {
    id: String,
    key: String,
    signs_from: u64,
}
