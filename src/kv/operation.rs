//! Operations on keys and what they mean, verb by verb. Pure.

use std::sync::Arc;

use bytes::Bytes;

use super::draft::Draft;
use super::limits::MAX_LOCKS;
use super::{Entry, SessionId};
use crate::store::Revision;

/// What is written under a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub value: Bytes,
    pub flags: u64,
}

/// What to do with one key, or with all under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Set(Content),
    /// Sets if the key was last modified at this index; 0: if it is not there.
    Cas(Content, Revision),
    /// Sets and takes the lock.
    Lock(Content, SessionId),
    /// Sets and gives the lock back.
    Unlock(Content, SessionId),
    Get,
    /// As `Get`, but absence is an empty entry.
    GetOrEmpty,
    /// Everything under the key as a prefix.
    GetTree,
    CheckIndex(Revision),
    CheckSession(SessionId),
    CheckNotExists,
    Delete,
    DeleteCas(Revision),
    DeleteTree,
}

/// Why an operation does not hold; nothing of its transaction is written. The words are Consul's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("failed to set key {0:?}, index is stale")]
    StaleSet(String),
    #[error("failed to delete key {0:?}, index is stale")]
    StaleDelete(String),
    #[error("failed to lock key {0:?}, lock is already held")]
    Held(String),
    #[error("failed to unlock key {0:?}, lock isn't held, or is held by another session")]
    NotHeld(String),
    #[error("failed to lock key {0:?} due to lock delay")]
    Delayed(String),
    #[error("missing session")]
    MissingSession,
    #[error("invalid session {0:?}")]
    InvalidSession(SessionId),
    #[error("session {0:?} holds {MAX_LOCKS} locks already")]
    TooManyLocks(SessionId),
    #[error("key {0:?} doesn't exist")]
    NoKey(String),
    #[error("key {0:?} exists")]
    Exists(String),
    #[error("failed to check session, key {0:?} doesn't exist")]
    NoKeyForSession(String),
    #[error("failed session check for key {key:?}, current session {held:?} != {wanted:?}")]
    OtherSession { key: String, held: SessionId, wanted: SessionId },
    #[error("failed to check index, key {0:?} doesn't exist")]
    NoKeyForIndex(String),
    #[error("failed index check for key {key:?}, current modify index {held} != {wanted}")]
    OtherIndex { key: String, held: Revision, wanted: Revision },
}

impl Refusal {
    /// Whether the request was right and only came at the wrong time.
    #[must_use]
    pub const fn is_about_timing(&self) -> bool {
        matches!(
            self,
            Self::StaleSet(_)
                | Self::StaleDelete(_)
                | Self::Held(_)
                | Self::NotHeld(_)
                | Self::Delayed(_)
        )
    }
}

type Done = Result<Vec<Arc<Entry>>, Refusal>;

/// Carries out one operation on a draft; returns what the client is to see.
pub(super) fn carry_out(draft: &mut Draft<'_>, key: &str, operation: &Operation) -> Done {
    let held = draft.get(key);
    match operation {
        Operation::Set(content) => Ok(set(draft, key, content, held.as_deref())),
        Operation::Cas(content, index) => match held.as_ref().map_or(0, |entry| entry.modified) {
            now if now == *index => Ok(set(draft, key, content, held.as_deref())),
            _ => Err(Refusal::StaleSet(key.to_owned())),
        },
        Operation::Lock(content, session) => lock(draft, key, content, session, held.as_deref()),
        Operation::Unlock(content, session) => unlock(draft, key, content, session, held.as_deref()),
        Operation::Get => held.map(|e| vec![e]).ok_or_else(|| Refusal::NoKey(key.to_owned())),
        Operation::GetOrEmpty => Ok(vec![held.unwrap_or_else(|| Arc::new(empty(key)))]),
        Operation::GetTree => Ok(draft.under(key)),
        Operation::CheckIndex(wanted) => check_index(key, *wanted, held),
        Operation::CheckSession(wanted) => check_session(key, wanted, held),
        Operation::CheckNotExists => match held {
            None => Ok(Vec::new()),
            Some(_) => Err(Refusal::Exists(key.to_owned())),
        },
        Operation::Delete => {
            draft.delete(key);
            Ok(Vec::new())
        }
        Operation::DeleteCas(index) => match held {
            Some(entry) if entry.modified != *index => Err(Refusal::StaleDelete(key.to_owned())),
            _ => {
                draft.delete(key);
                Ok(Vec::new())
            }
        },
        Operation::DeleteTree => {
            for entry in draft.under(key) {
                draft.delete(&entry.key);
            }
            Ok(Vec::new())
        }
    }
}

/// A plain set leaves the lock to whoever has it.
fn set(draft: &mut Draft<'_>, key: &str, content: &Content, held: Option<&Entry>) -> Vec<Arc<Entry>> {
    let entry = held.cloned().unwrap_or_else(|| empty(key));
    put(draft, content, entry)
}

fn lock(
    draft: &mut Draft<'_>,
    key: &str,
    content: &Content,
    session: &SessionId,
    held: Option<&Entry>,
) -> Done {
    if session.is_empty() {
        return Err(Refusal::MissingSession);
    }
    if draft.state.is_delayed(key, draft.now) {
        return Err(Refusal::Delayed(key.to_owned()));
    }
    if !draft.has_session(session) {
        return Err(Refusal::InvalidSession(session.clone()));
    }
    let mut entry = held.cloned().unwrap_or_else(|| empty(key));
    match &entry.session {
        Some(holder) if holder == session => {}
        Some(_) => return Err(Refusal::Held(key.to_owned())),
        None if draft.locks_of(session) >= MAX_LOCKS => {
            return Err(Refusal::TooManyLocks(session.clone()));
        }
        None => {
            entry.lock_index += 1;
            entry.session = Some(session.clone());
        }
    }
    Ok(put(draft, content, entry))
}

fn unlock(
    draft: &mut Draft<'_>,
    key: &str,
    content: &Content,
    session: &SessionId,
    held: Option<&Entry>,
) -> Done {
    if session.is_empty() {
        return Err(Refusal::MissingSession);
    }
    match held {
        Some(entry) if entry.session.as_ref() == Some(session) => {
            Ok(put(draft, content, Entry { session: None, ..entry.clone() }))
        }
        _ => Err(Refusal::NotHeld(key.to_owned())),
    }
}

fn check_index(key: &str, wanted: Revision, held: Option<Arc<Entry>>) -> Done {
    let entry = held.ok_or_else(|| Refusal::NoKeyForIndex(key.to_owned()))?;
    if entry.modified == wanted {
        return Ok(vec![without_value(&entry)]);
    }
    Err(Refusal::OtherIndex { key: key.to_owned(), held: entry.modified, wanted })
}

fn check_session(key: &str, wanted: &SessionId, held: Option<Arc<Entry>>) -> Done {
    let entry = held.ok_or_else(|| Refusal::NoKeyForSession(key.to_owned()))?;
    let holder = entry.session.clone().unwrap_or_default();
    if holder == *wanted {
        return Ok(vec![without_value(&entry)]);
    }
    Err(Refusal::OtherSession { key: key.to_owned(), held: holder, wanted: wanted.clone() })
}

fn put(draft: &mut Draft<'_>, content: &Content, entry: Entry) -> Vec<Arc<Entry>> {
    let Content { value, flags } = content.clone();
    vec![without_value(&draft.put(Entry { value, flags, ..entry }))]
}

/// Who writes a value need not be told it.
fn without_value(entry: &Entry) -> Arc<Entry> {
    Arc::new(Entry { value: Bytes::new(), ..entry.clone() })
}

fn empty(key: &str) -> Entry {
    let (value, key) = (Bytes::new(), key.to_owned());
    Entry { key, value, flags: 0, lock_index: 0, session: None, created: 0, modified: 0 }
}
