//! Durable state behind one small trait: read everything, commit a compare-and-set transaction,
//! watch from a revision.
//!
//! `catalog` and `ca` are the only callers. Every commit has a revision one higher than the last;
//! a commit is answered after it is durable; watchers see every commit, whole and in order.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;

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
    #[error("the store holds a damaged value under {key}: {detail}")]
    Damaged { key: String, detail: String },
    #[error("revision {0} is too old to watch from; load the store again")]
    Compacted(Revision),
    #[error("the store has stopped after a failed write: {0}")]
    Stopped(String),
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

/// Every commit after the revision asked for, in order. Ends only when the store stops.
pub type Watch = mpsc::UnboundedReceiver<Commit>;

/// See the module.
pub trait Store: Send + Sync + 'static {
    /// Everything under keys that begin with `prefix`.
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image>;
    /// Writes, if the conditions hold.
    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome>;
    /// Commits after `revision` that touch keys under `prefix`.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch>;
}
