//! Durable state behind one small trait: read everything, commit a compare-and-set transaction,
//! watch from a revision.
//!
//! `catalog`, `ca`, `kv` and `etcd` are the callers. Every commit has a revision one higher than the last;
//! a commit is answered after it is durable; watchers see every commit, whole and in order.
//!
//! `contents` is the pure part that all stores on this machine share: conditions, revisions and the
//! log of recent commits. `memory` and `redb` differ only in when a commit counts as kept. `replica` is
//! a state in memory that follows a store. `private` judges files that hold secrets.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

mod contents;
mod memory;
pub mod private;
mod redb;
pub mod replica;
#[cfg(test)]
mod tests;
mod watch;

pub use self::memory::MemoryStore;
pub use self::redb::RedbStore;
pub use self::watch::Watch;

/// Longest key in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Most bytes of keys and values in one transaction; bounds what one caller can make all others wait for.
pub const MAX_TXN_BYTES: usize = 16 << 20;

/// Number of a commit. The first is 1.
pub type Revision = u64;
/// A boxed future, so that stores can be trait objects.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at {path} is in use by another process; stop it or choose another --data-dir")]
    Locked { path: String },
    #[error("the store at {path} cannot be {action}: {source}")]
    Io { path: String, action: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the store is not safe: {0}")]
    Open(#[from] private::PrivateError),
    #[error("the store holds a damaged value under {key}: {detail}")]
    Damaged { key: String, detail: String },
    #[error("revision {0} is too old to watch from; load the store again")]
    Compacted(Revision),
    #[error("the records change too fast at this place; try again")]
    Contended,
    #[error("the store has stopped: {0}; nothing more is written until the process is restarted")]
    Stopped(String),
    #[error(
        "a transaction of {bytes} bytes is too large; at most {MAX_TXN_BYTES} fit, and {MAX_KEY_BYTES} in a key"
    )]
    TooLarge { bytes: usize },
}

/// A key with its value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// Revision at which the key came into being.
    pub created: Revision,
    /// Revision of the last write.
    pub modified: Revision,
}

/// Everything in a store at one revision.
#[derive(Debug, Clone)]
pub struct Image {
    /// Random, made with the store and anew at each restore.
    pub epoch: u64,
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put { key: String, value: Bytes },
    Delete { key: String },
}

/// Writes that happen together, if every condition holds.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// Keys and the revision they must have been modified at; 0 means the key must not exist.
    pub conditions: Vec<(String, Revision)>,
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Committed(Revision),
    /// A condition did not hold; nothing was written.
    Conflict,
}

/// One commit as a watcher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub revision: Revision,
    /// Keys written (`Some`) and deleted (`None`), in the order of the transaction.
    pub changes: Vec<(String, Option<Entry>)>,
}

/// See the module.
pub trait Store: Send + Sync + 'static {
    /// Everything under keys that begin with `prefix`.
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image>;
    /// Writes, if the conditions hold. A transaction without writes only checks its conditions and
    /// answers with the current revision.
    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome>;
    /// Commits after revision `after` that touch keys under `prefix`.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch>;
}

/// A number that no other store has: random, or the time when the system has no random bytes.
fn new_epoch() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
    }
}
