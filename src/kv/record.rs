//! Where keys and sessions are kept in the store, and how. Pure.
//!
//! Invariant: `Key::parse` reads back everything `Key::encode` writes.

use bytes::Bytes;
use prost::Message;

use super::{Entry, Session, SessionId};
use crate::store::{self, StoreError};

/// Everything of this module lives under this prefix.
pub(super) const PREFIX: &str = "kv/";
const KEYS: &str = "kv/k/";
const SESSIONS: &str = "kv/s/";

/// What a key of the store stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Entry(String),
    Session(SessionId),
}

impl Key {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Entry(key) => format!("{KEYS}{key}"),
            Self::Session(id) => format!("{SESSIONS}{id}"),
        }
    }

    /// `None` for keys of later versions.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let entry = text.strip_prefix(KEYS).map(|key| Self::Entry(key.to_owned()));
        entry.or_else(|| text.strip_prefix(SESSIONS).map(|id| Self::Session(id.to_owned())))
    }
}

/// An entry as it is kept. A value of half a megabyte is not for JSON.
#[derive(Clone, PartialEq, Message)]
struct StoredEntry {
    #[prost(uint64, tag = "1")]
    flags: u64,
    #[prost(uint64, tag = "2")]
    lock_index: u64,
    #[prost(string, optional, tag = "3")]
    session: Option<String>,
    #[prost(bytes = "bytes", tag = "4")]
    value: Bytes,
}

pub(super) fn write_entry(entry: &Entry) -> Bytes {
    let Entry { flags, lock_index, session, value, .. } = entry.clone();
    StoredEntry { flags, lock_index, session, value }.encode_to_vec().into()
}

/// Reads an entry; the value shares its memory with the store's.
pub(super) fn read_entry(key: String, stored: &store::Entry) -> Result<Entry, StoreError> {
    let StoredEntry { flags, lock_index, session, value } = StoredEntry::decode(stored.value.clone())
        .map_err(|fault| StoreError::Damaged { key: stored.key.clone(), detail: fault.to_string() })?;
    let (created, modified) = (stored.created, stored.modified);
    Ok(Entry { key, value, flags, lock_index, session, created, modified })
}

/// Writes a session; its id is in the key, its indexes are the store's.
pub(super) fn write_session(session: &Session) -> Result<Bytes, StoreError> {
    let key = || Key::Session(session.id.clone()).encode();
    let json = serde_json::to_vec(session);
    json.map(Bytes::from).map_err(|fault| StoreError::Damaged { key: key(), detail: fault.to_string() })
}

pub(super) fn read_session(id: SessionId, stored: &store::Entry) -> Result<Session, StoreError> {
    let session: Session = serde_json::from_slice(&stored.value)
        .map_err(|fault| StoreError::Damaged { key: stored.key.clone(), detail: fault.to_string() })?;
    Ok(Session { id, created: stored.created, modified: stored.modified, ..session })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_entry_is_read_back(
            key in "[a-z/%é\u{0}]{1,9}",
            value: Vec<u8>,
            flags: u64,
            lock_index: u64,
            session in proptest::option::of("[0-9a-f]{4}"),
        ) {
            let name = Key::Entry(key.clone());
            prop_assert_eq!(Key::parse(&name.encode()), Some(name.clone()));
            let value = Bytes::from(value);
            let entry = Entry { key: key.clone(), value, flags, lock_index, session, created: 3, modified: 5 };
            let value = write_entry(&entry);
            let stored = store::Entry { key: name.encode(), value, created: 3, modified: 5 };
            prop_assert_eq!(read_entry(key, &stored).unwrap(), entry);
        }
    }

    #[test]
    fn damage_is_named_with_its_key() {
        let value = Bytes::from_static(&[0xff]);
        let stored = store::Entry { key: "kv/k/a".to_owned(), value, created: 1, modified: 1 };
        let fault = read_entry("a".to_owned(), &stored).unwrap_err().to_string();
        assert!(fault.contains("kv/k/a"), "{fault}");
        assert!(read_session("s".to_owned(), &stored).is_err());
        assert_eq!(Key::parse("kv/x/later"), None);
    }
}
