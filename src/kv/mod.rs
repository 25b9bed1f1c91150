//! The key-value store with sessions and transactions, by Consul's rules.
//!
//! Used by `api` and wired by `app`. Pure: `state` (what one commit does), `operation` and `ending` (what a write
//! means), `draft` (a transaction in the making), `graveyard` (indexes of what is gone). Around them:
//! `shell` (reads, writes and waiting) and `tasks` (time, and the catalog on which sessions depend).
//! Invariants: an index never goes backwards; a key is locked only by a session that is there, or whose
//! end is being written; a transaction is one commit of the store.

mod delays;
mod draft;
mod ending;
mod graveyard;
pub mod limits;
mod operation;
mod record;
mod session;
mod shell;
mod state;
mod tasks;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::operation::{Content, Operation, Refusal};
pub use self::session::{Behavior, Session, SessionFault, Wish};
pub use self::shell::{Kv, Outcome, Subject};

use crate::catalog::CatalogError;
use crate::store::{Revision, StoreError};

/// A UUID.
pub type SessionId = String;

/// A key with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// The client's own; not interpreted.
    pub flags: u64,
    /// How often the lock was taken.
    pub lock_index: u64,
    /// Who holds the lock.
    pub session: Option<SessionId>,
    pub created: Revision,
    pub modified: Revision,
}

/// Why a request cannot be carried out at all.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("the keys change too fast at this place; try again")]
    Contended,
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Session(#[from] SessionFault),
    #[error("a key of {0} bytes is too long; at most {max} are kept", max = limits::MAX_KEY_BYTES)]
    KeyTooLong(usize),
    #[error("a value of {0} bytes is too large; at most {max} are kept", max = limits::MAX_VALUE_BYTES)]
    ValueTooLarge(usize),
    #[error("the key-value store is full: {0}; delete some keys")]
    Full(&'static str),
}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Contended => Self::Contended,
            other => Self::Store(other),
        }
    }
}
