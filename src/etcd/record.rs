//! Where keys, leases and the revision are kept in the store. Pure.
//!
//! Keys are any bytes, those of the store are text: each byte becomes the character of that number,
//! which keeps their order. A commit names the revision after the changes that belong to it; one commit
//! may hold several revisions.

use bytes::Bytes;
use prost::Message;

use crate::pb::etcd::mvccpb::KeyValue;
use crate::store::{Op, StoreError};

/// Everything of this module lives under this prefix.
pub(super) const PREFIX: &str = "etcd/";
const KEYS: &str = "etcd/k/";
const LEASES: &str = "etcd/l/";
/// The revision of the keys; every commit writes it, and rests on it.
pub(super) const REVISION: &str = "etcd/r";

/// What a key of the store stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Key(Bytes),
    Lease(i64),
    Revision,
}

impl Place {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Key(key) => key.iter().fold(KEYS.to_owned(), |mut text, byte| {
                text.push(char::from(*byte));
                text
            }),
            Self::Lease(id) => format!("{LEASES}{id:016x}"),
            Self::Revision => REVISION.to_owned(),
        }
    }

    /// `None` for keys of later versions.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == REVISION {
            return Some(Self::Revision);
        }
        if let Some(id) = text.strip_prefix(LEASES) {
            return u64::from_str_radix(id, 16).ok().map(|id| Self::Lease(id.cast_signed()));
        }
        let key: Result<Vec<u8>, _> = text.strip_prefix(KEYS)?.chars().map(u8::try_from).collect();
        key.ok().map(|key| Self::Key(key.into()))
    }
}

/// How long a key is in the store.
pub(super) fn stored_len(key: &[u8]) -> usize {
    key.iter().map(|byte| if byte.is_ascii() { 1 } else { 2 }).sum()
}

pub(super) fn put_key(kv: &KeyValue) -> Op {
    Op::Put { key: Place::Key(kv.key.clone()).encode(), value: kv.encode_to_vec().into() }
}

pub(super) fn delete_key(key: &Bytes) -> Op {
    Op::Delete { key: Place::Key(key.clone()).encode() }
}

pub(super) fn put_lease(id: i64, ttl_s: i64) -> Op {
    Op::Put { key: Place::Lease(id).encode(), value: number(ttl_s) }
}

pub(super) fn delete_lease(id: i64) -> Op {
    Op::Delete { key: Place::Lease(id).encode() }
}

pub(super) fn put_revision(revision: i64) -> Op {
    Op::Put { key: REVISION.to_owned(), value: number(revision) }
}

fn number(value: i64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Reads a key; its value shares memory with the store's.
pub(super) fn read_key(place: &str, value: &Bytes) -> Result<KeyValue, StoreError> {
    KeyValue::decode(value.clone()).map_err(|fault| damaged(place, fault.to_string()))
}

pub(super) fn read_number(place: &str, value: &[u8]) -> Result<i64, StoreError> {
    let bytes = value.try_into().map_err(|_| damaged(place, "it is not a number".to_owned()))?;
    Ok(i64::from_be_bytes(bytes))
}

fn damaged(place: &str, detail: String) -> StoreError {
    StoreError::Damaged { key: place.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_is_read_back_and_order_is_kept(a: Vec<u8>, b: Vec<u8>, lease: i64) {
            let (a, b) = (Place::Key(a.into()), Place::Key(b.into()));
            for place in [a.clone(), Place::Lease(lease), Place::Revision] {
                prop_assert_eq!(Place::parse(&place.encode()), Some(place));
            }
            let (Place::Key(x), Place::Key(y)) = (&a, &b) else { unreachable!() };
            prop_assert_eq!(x.cmp(y), a.encode().cmp(&b.encode()));
            prop_assert_eq!(stored_len(x), a.encode().len() - KEYS.len());
        }
    }

    #[test]
    fn damage_is_named_with_its_place() {
        assert!(read_number("etcd/r", b"7").unwrap_err().to_string().contains("etcd/r"));
        assert!(read_key("etcd/k/a", &Bytes::from_static(&[0xff])).is_err());
        for foreign in ["etcd/x", "etcd/k/€", "etcd/l/zz"] {
            assert_eq!(Place::parse(foreign), None, "{foreign}");
        }
    }
}
