//! The authority as it lies in the store: one JSON document under [`KEY`].
//!
//! One document, so that one compare-and-set decides which server's first root counts and every later
//! change is whole. Private keys in it are sealed when the server has a key for that; no API ever
//! returns one. What older versions wrote is read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CaError;
use super::authority::{Authority, Member};
use super::limits::{CHANGE_ATTEMPTS, MAX_ROOTS};
use super::root::{Keys, Root, Signer};
use super::rotation::Rotation;
use super::seal::Keyring;
use crate::model::{TrustDomain, hex};
use crate::store::{Entry, Op, Outcome, Revision, Store, StoreError, Txn};

/// Where the document lies in the store.
pub(super) const KEY: &str = "ca/authority";

#[derive(Serialize, Deserialize)]
struct Document {
    trust_domain: TrustDomain,
    version: u64,
    /// Absent in documents from before there were rotations: then the version's.
    #[serde(default)]
    bundle_version: Option<u64>,
    roots: Vec<RootDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<Rotation>,
    #[serde(default)]
    longest_leaf_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf_ttl_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    /// The key of a request that waits to be signed elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_key: Option<String>,
}

/// Certificates in base64, keys as `seal` writes them.
#[derive(Serialize, Deserialize)]
struct RootDocument {
    certificate: String,
    /// Absent for the root of an external authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intermediate: Option<IntermediateDocument>,
    active: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cross: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retire_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct IntermediateDocument {
    certificate: String,
    key: String,
}

/// For the store; holds the keys.
pub(super) fn encode(authority: &Authority, ring: &Keyring) -> Result<Bytes, CaError> {
    let domain = &authority.domain;
    let roots = authority.members.iter().enumerate();
    let roots = roots
        .map(|(index, member)| RootDocument::of(member, index == authority.active, domain, ring))
        .collect::<Result<_, CaError>>()?;
    let request_key = authority.requested.as_ref();
    let request_key = request_key.map(|key| ring.seal(&request_place(domain), key)).transpose()?;
    let document = Document {
        trust_domain: domain.clone(),
        version: authority.version,
        bundle_version: Some(authority.bundle_version),
        roots,
        rotation: authority.rotation.clone(),
        longest_leaf_s: authority.longest_leaf.as_secs(),
        leaf_ttl_s: authority.leaf_ttl.map(|ttl| ttl.as_secs()),
        config: authority.config.clone(),
        request_key,
    };
    let text = serde_json::to_vec(&document).map_err(|error| damaged(&error.to_string()))?;
    Ok(text.into())
}

pub(super) fn decode(value: &[u8], ring: &Keyring) -> Result<Authority, CaError> {
    let document = read(value)?;
    let found = document.roots.len();
    if found > MAX_ROOTS {
        return Err(damaged(&format!("it has {found} roots; at most {MAX_ROOTS} are possible")));
    }
    if document.roots.iter().filter(|root| root.active).count() > 1 {
        return Err(damaged("more than one root is active"));
    }
    let active = document.roots.iter().position(|root| root.active);
    let active = active.ok_or_else(|| damaged("no root is active"))?;
    let domain = document.trust_domain;
    let members = document.roots.iter().map(|root| root.member(&domain, ring));
    let members = members.collect::<Result<_, CaError>>()?;
    let request_key = document.request_key.as_deref();
    let requested = request_key.map(|key| ring.open(&request_place(&domain), key)).transpose()?;
    Ok(Authority {
        version: document.version,
        bundle_version: document.bundle_version.unwrap_or(document.version),
        members,
        active,
        rotation: document.rotation,
        longest_leaf: Duration::from_secs(document.longest_leaf_s),
        leaf_ttl: document.leaf_ttl_s.map(Duration::from_secs),
        config: document.config,
        requested: requested.map(Arc::new),
        domain,
    })
}

/// Whether every key in a document is as `ring` would write it.
fn is_current(value: &[u8], ring: &Keyring) -> Result<bool, CaError> {
    let document = read(value)?;
    let keys = document
        .roots
        .iter()
        .flat_map(|root| root.key.iter().chain(root.intermediate.as_ref().map(|below| &below.key)));
    Ok(keys.chain(&document.request_key).all(|key| ring.is_current(key)))
}

fn read(value: &[u8]) -> Result<Document, CaError> {
    serde_json::from_slice(value).map_err(|error| damaged(&error.to_string()))
}

impl RootDocument {
    fn of(member: &Member, active: bool, domain: &TrustDomain, ring: &Keyring) -> Result<Self, CaError> {
        let seal =
            |signer: &Signer| ring.seal(&place(domain, &signer.certificate), signer.key.as_slice());
        let (key, intermediate) = match member.root.keys() {
            Keys::Own(signer) => (Some(seal(signer)?), None),
            Keys::External(signer) => {
                let certificate = STANDARD.encode(&signer.certificate);
                (None, Some(IntermediateDocument { certificate, key: seal(signer)? }))
            }
        };
        Ok(Self {
            certificate: STANDARD.encode(member.root.certificate()),
            key,
            intermediate,
            active,
            cross: member.cross.as_ref().map(|der| STANDARD.encode(der)),
            retire_at: member.retire_at,
        })
    }

    fn member(&self, domain: &TrustDomain, ring: &Keyring) -> Result<Member, CaError> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| damaged(&error.to_string()));
        let certificate = bytes(&self.certificate)?;
        let root = match (&self.key, &self.intermediate) {
            (Some(key), None) => {
                let key = ring.open(&place(domain, &certificate), key)?;
                Root::own(certificate, key, domain)
            }
            (None, Some(below)) => {
                let intermediate = bytes(&below.certificate)?;
                let key = ring.open(&place(domain, &intermediate), &below.key)?;
                Root::external(certificate, intermediate, key, domain)
            }
            _ => return Err(damaged("a root has no key, or two")),
        };
        let root = root.map_err(|detail| damaged(&format!("a root is not usable: {detail}")))?;
        let cross = self.cross.as_deref().map(bytes).transpose()?.map(Into::into);
        Ok(Member { root: Arc::new(root), cross, retire_at: self.retire_at })
    }
}

/// What the key of a certificate is bound to.
fn place(domain: &TrustDomain, certificate: &[u8]) -> String {
    let hash = hex::encode(digest::digest(&digest::SHA256, certificate).as_ref());
    format!("weft ca key|{domain}|{hash}")
}

fn request_place(domain: &TrustDomain) -> String {
    format!("weft ca request|{domain}")
}

fn damaged(detail: &str) -> CaError {
    StoreError::Damaged { key: KEY.to_owned(), detail: detail.to_owned() }.into()
}

/// The authority in `store`, made first when there is none, and the revision at which it was read.
/// Keys that are not sealed as `ring` would are written anew, and a longer life of leaves is noted.
pub(super) async fn load_or_create(
    store: &dyn Store,
    ring: &Keyring,
    leaf_ttl: Duration,
    now: SystemTime,
) -> Result<(Authority, Revision), CaError> {
    for _ in 0..CHANGE_ATTEMPTS {
        let image = store.load(KEY).await?;
        let found = image.entries.iter().find(|entry| entry.key == KEY);
        let next = match found {
            Some(entry) => match refreshed(entry, ring, leaf_ttl)? {
                (authority, false) => return Ok((authority, image.revision)),
                (authority, true) => authority.changed(),
            },
            None => Authority { longest_leaf: leaf_ttl, ..Authority::create(now)? },
        };
        // Whether this server or another wrote it: what counts is what the store has now.
        if commit(store, &next, found.map_or(0, |entry| entry.modified), ring).await? {
            let news = if found.is_some() { "updated" } else { "made" };
            tracing::info!(sealed = ring.seals(), "{news} the authority of this mesh");
        }
    }
    Err(damaged("it changes as soon as it is written"))
}

/// What is stored, and whether it is to be written again.
fn refreshed(entry: &Entry, ring: &Keyring, leaf_ttl: Duration) -> Result<(Authority, bool), CaError> {
    let mut authority = decode(&entry.value, ring)?;
    let is_longer = leaf_ttl > authority.longest_leaf;
    authority.longest_leaf = authority.longest_leaf.max(leaf_ttl);
    Ok((authority, is_longer || !is_current(&entry.value, ring)?))
}

/// Changes the stored authority by compare-and-set; `None` from `step` changes nothing. Returns what is
/// stored afterwards.
pub(super) async fn change(
    store: &dyn Store,
    ring: &Keyring,
    step: impl Fn(&Authority) -> Result<Option<Authority>, CaError>,
) -> Result<Authority, CaError> {
    for _ in 0..CHANGE_ATTEMPTS {
        let image = store.load(KEY).await?;
        let entry = image.entries.iter().find(|entry| entry.key == KEY);
        let entry = entry.ok_or_else(|| damaged("it is gone"))?;
        let current = decode(&entry.value, ring)?;
        let Some(next) = step(&current)? else { return Ok(current) };
        if commit(store, &next, entry.modified, ring).await? {
            return Ok(next);
        }
    }
    Err(StoreError::Contended.into())
}

async fn commit(
    store: &dyn Store,
    authority: &Authority,
    modified: Revision,
    ring: &Keyring,
) -> Result<bool, CaError> {
    let value = encode(authority, ring)?;
    let txn = Txn {
        conditions: vec![(KEY.to_owned(), modified)],
        ops: vec![Op::Put { key: KEY.to_owned(), value }],
    };
    Ok(matches!(store.commit(txn).await?, Outcome::Committed(_)))
}
