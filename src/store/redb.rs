//! The durable store: one redb file, all of it in memory for reading, one thread that writes.
//!
//! The thread commits everything that waits in one durable redb transaction (group commit), then
//! applies it to the memory, then answers. After the first failed write nothing is acknowledged any
//! more: a failed fsync cannot be retried, because the kernel may have dropped the pages.
//! The file is opened with all its checksums verified, so damage is an error at start.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use ::redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::contents::{Contents, check_size};
use super::watch::Shared;
use super::{
    Commit, Entry, Image, Outcome, Revision, Store, StoreError, StoreFuture, Txn, Watch, private,
};

/// Key to (created, modified, value).
const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("entries");
/// The numbers below.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const EPOCH: &str = "epoch";
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Layout of the two tables. A file with another number is refused.
const FORMAT_NOW: u64 = 1;

/// Most transactions in one group commit; bounds how long the first of them waits for the others.
const GROUP: usize = 256;
/// Transactions that may wait for the writer; further callers wait for a place.
const QUEUE: usize = 1024;
/// redb's page cache. All entries are in memory anyway.
const CACHE_BYTES: usize = 16 << 20;
/// What cannot be done with a damaged file, and what can.
const DAMAGED: &str = "read as a store, restore it from a copy";

#[cfg(test)]
mod tests;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// See the module.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    txn: Txn,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

impl RedbStore {
    /// Opens the store in a file, and creates it (mode 0600) when there is none, with the
    /// directories above it (mode 0700). Reads the whole file once, off the runtime.
    ///
    /// # Errors
    /// `Locked` when another process has it open, `Io` when it cannot be read or created, and when
    /// it is damaged.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let shown = path.display().to_string();
        let opening = tokio::task::spawn_blocking(move || {
            let (database, contents) = open_file(&path)?;
            Self::start(database, contents).map_err(|e| io(&path, "given a writer thread", e))
        });
        // redb may panic on a damaged file; that arrives here as a failed task.
        opening.await.unwrap_or_else(|e| {
            Err(StoreError::Io { path: shown, action: DAMAGED, source: Box::new(e) })
        })
    }

    fn start(database: Database, contents: Contents) -> std::io::Result<Self> {
        let shared = Shared::new(contents);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("store-writer".to_owned())
                .spawn(move || write_until_closed(&database, &shared, jobs))?
        };
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }

    async fn enqueue(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check_size(&txn)?;
        let stopped = || {
            let unknown = StoreError::Stopped("its writer is gone".to_owned());
            self.shared.running().err().unwrap_or(unknown)
        };
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Job { txn, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for RedbStore {
    /// Waits for the commit that runs, so that the file is free afterwards.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl Store for RedbStore {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image> {
        Box::pin(async move { Ok(self.shared.image(prefix)) })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome> {
        Box::pin(self.enqueue(txn))
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        Box::pin(async move { self.shared.watch(prefix, after) })
    }
}

/// The writer thread: ends when the store is dropped or a write has failed.
fn write_until_closed(database: &Database, shared: &Shared, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(job) = jobs.try_recv()
        {
            group.push(job);
        }
        let written = catch_unwind(AssertUnwindSafe(|| write_group(database, shared, group)));
        let failure = match written {
            Ok(Ok(())) => continue,
            Ok(Err(e)) => format!("a write failed: {e}"),
            Err(_) => "a write panicked".to_owned(),
        };
        tracing::error!(%failure, "the store stops");
        // Before the answers of this group are dropped with it, and those of all that still wait.
        shared.stop(&failure);
        return;
    }
    shared.stop("it was closed");
}

/// Judges, keeps, applies and answers a group. On an error nobody was answered.
fn write_group(database: &Database, shared: &Shared, group: Vec<Job>) -> Result<(), Failure> {
    let (commits, answers, revision) = judge(shared, group);
    if !commits.is_empty()
        && let Err(failure) = keep(database, &commits, revision)
    {
        shared.stop(&format!("a write failed: {failure}"));
        return Err(failure);
    }
    shared.apply(commits);
    for (answer, outcome) in answers {
        // A caller that went away does not need its answer.
        let _unheard = answer.send(Ok(outcome));
    }
    Ok(())
}

type Answer = (oneshot::Sender<Result<Outcome, StoreError>>, Outcome);

fn judge(shared: &Shared, group: Vec<Job>) -> (Vec<Commit>, Vec<Answer>, Revision) {
    let contents = shared.read();
    let mut stage = contents.stage();
    let mut commits = Vec::with_capacity(group.len());
    let mut answers = Vec::with_capacity(group.len());
    for Job { txn, answer } in group {
        let Some(commit) = stage.judge(txn) else {
            answers.push((answer, Outcome::Conflict));
            continue;
        };
        answers.push((answer, Outcome::Committed(commit.revision)));
        if !commit.changes.is_empty() {
            commits.push(commit);
        }
    }
    (commits, answers, stage.revision())
}

/// One durable redb transaction for all commits.
fn keep(database: &Database, commits: &[Commit], revision: Revision) -> Result<(), Failure> {
    let txn = database.begin_write()?;
    {
        let mut entries = txn.open_table(ENTRIES)?;
        for (key, entry) in commits.iter().flat_map(|commit| &commit.changes) {
            match entry {
                Some(e) => drop(entries.insert(key.as_str(), (e.created, e.modified, &*e.value))?),
                None => drop(entries.remove(key.as_str())?),
            }
        }
        txn.open_table(META)?.insert(REVISION, revision)?;
    }
    Ok(txn.commit()?)
}

fn open_file(path: &Path) -> Result<(Database, Contents), StoreError> {
    // A link that leads nowhere is there, and refused.
    match path.symlink_metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => create_file(path)?,
        Err(e) => return Err(io(path, "found", e)),
        Ok(_) => {}
    }
    // It may hold keys: nobody but its owner reads it.
    if private::check(path)?.len() == 0 {
        return Err(io(path, DAMAGED, "it is empty"));
    }
    let database = builder().open(path).map_err(|e| not_opened(path, e))?;
    let contents = load(&database).map_err(|e| io(path, DAMAGED, e))?;
    Ok((database, contents))
}

/// Makes the file under another name and renames it, so that a crash never leaves half a store.
fn create_file(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let make = || -> Result<(), Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        initialise(&builder().create(&fresh)?)?;
        fs::rename(&fresh, path)?;
        fs::File::open(directory)?.sync_all()?;
        Ok(())
    };
    make().map_err(|e| io(path, "created", e))
}

fn initialise(database: &Database) -> Result<(), Failure> {
    let txn = database.begin_write()?;
    txn.open_table(ENTRIES)?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(FORMAT, FORMAT_NOW)?;
        meta.insert(EPOCH, super::new_epoch())?;
        meta.insert(REVISION, 0)?;
    }
    Ok(txn.commit()?)
}

fn load(database: &Database) -> Result<Contents, Failure> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(META)?;
    let number = |name: &'static str| -> Result<u64, Failure> {
        let value = meta.get(name)?.ok_or_else(|| format!("it has no {name}"))?;
        Ok(value.value())
    };
    let format = number(FORMAT)?;
    if format != FORMAT_NOW {
        return Err(format!("it has format {format}, this version reads {FORMAT_NOW}").into());
    }
    let mut entries = BTreeMap::new();
    for item in txn.open_table(ENTRIES)?.iter()? {
        let (key, stored) = item?;
        let key = key.value().to_owned();
        let (created, modified, value) = stored.value();
        let value = Bytes::copy_from_slice(value);
        entries.insert(key.clone(), Entry { key, value, created, modified });
    }
    Ok(Contents::new(number(EPOCH)?, number(REVISION)?, entries))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn not_opened(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.display().to_string() },
        DatabaseError::Storage(StorageError::Corrupted(detail)) => io(path, DAMAGED, detail),
        other => io(path, "opened", other),
    }
}

fn io(path: &Path, action: &'static str, source: impl Into<Failure>) -> StoreError {
    StoreError::Io { path: path.display().to_string(), action, source: source.into() }
}
