//! What only a durable store has to do: keep, refuse a damaged file, and stop when it cannot keep.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redb::StorageBackend;
use ::redb::backends::InMemoryBackend;

use super::private::PrivateError;
use super::*;
use crate::store::Op;

fn put(key: &str, value: &str) -> Txn {
    let op = Op::Put { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) };
    Txn { conditions: Vec::new(), ops: vec![op] }
}

async fn filled(path: &Path) -> Image {
    let store = RedbStore::open(path).await.unwrap();
    for n in 0..40 {
        store.commit(put(&format!("key/{n}"), &"value".repeat(n))).await.unwrap();
    }
    store.load("").await.unwrap()
}

fn same(a: &Image, b: &Image) -> bool {
    (a.epoch, a.revision, &a.entries) == (b.epoch, b.revision, &b.entries)
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/weft.redb");
    let written = filled(&path).await;
    let store = RedbStore::open(&path).await.unwrap();
    assert!(same(&store.load("").await.unwrap(), &written));
    assert_eq!(store.commit(put("more", "")).await.unwrap(), Outcome::Committed(41));
    let recent = store.watch("", 40).await.unwrap().recv().await.unwrap();
    assert_eq!(recent.revision, 41);
    let before = store.watch("", 39).await;
    assert!(matches!(before, Err(StoreError::Compacted(39))), "the log does not outlive the process");
}

#[tokio::test]
async fn two_stores_have_two_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for name in ["a", "b"] {
        let store = RedbStore::open(dir.path().join(name)).await.unwrap();
        epochs.push(store.load("").await.unwrap().epoch);
    }
    assert_ne!(epochs[0], epochs[1]);
}

#[tokio::test]
async fn nobody_else_may_open_or_read_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let restrict = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let store = RedbStore::open(&path).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = RedbStore::open(&path).await;
    assert!(matches!(second, Err(StoreError::Locked { .. })), "{second:?}");
    drop(store);
    for mode in [0o644, 0o640, 0o620, 0o601] {
        restrict(mode);
        let error = RedbStore::open(&path).await.unwrap_err();
        assert!(matches!(&error, StoreError::Open(PrivateError::Mode { .. })), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    restrict(0o600);
    let link = dir.path().join("link.redb");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = RedbStore::open(&link).await.unwrap_err();
    assert!(matches!(&error, StoreError::Open(PrivateError::Link(_))), "{error}");
    RedbStore::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_leftover_of_an_interrupted_creation_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    fs::write(dir.path().join("weft.redb.new"), "half a store").unwrap();
    filled(&path).await;
    assert!(!dir.path().join("weft.redb.new").exists());
}

/// Every damage is an error or harmless; it is never other data and never a panic.
#[tokio::test]
async fn a_damaged_file_is_never_taken_for_other_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let written = filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let header = (0..320).step_by(3);
    let pages = (320..used).step_by((used / 150).max(1));
    let (mut refused, mut harmless) = (0, 0);
    for place in header.chain(pages) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        match RedbStore::open(&path).await {
            Ok(store) => {
                let image = store.load("").await.unwrap();
                assert!(same(&image, &written), "byte {place} changed what is read");
                harmless += 1;
            }
            Err(StoreError::Io { .. }) => refused += 1,
            Err(other) => panic!("byte {place}: {other}"),
        }
    }
    assert!(refused > 0 && harmless > 0, "{refused} refused, {harmless} harmless");
    for length in [0, 1, 511, 4096, used / 2, used] {
        fs::write(&path, &whole[..length]).unwrap();
        if let Ok(store) = RedbStore::open(&path).await {
            assert!(same(&store.load("").await.unwrap(), &written), "cut at {length}");
        }
    }
}

/// A disk that loses what was not synced, and can be told to fail.
#[derive(Debug, Clone, Default)]
struct Disk {
    cache: Arc<Mutex<Vec<u8>>>,
    durable: Arc<Mutex<Vec<u8>>>,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.cache.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.cache.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.cache.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the disk is broken"));
        }
        self.durable.lock().unwrap().clone_from(&self.cache.lock().unwrap());
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let at = usize::try_from(offset).unwrap();
        self.cache.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl Disk {
    fn open(&self) -> RedbStore {
        let database = builder().create_with_backend(self.clone()).unwrap();
        if self.durable.lock().unwrap().is_empty() || load(&database).is_err() {
            initialise(&database).unwrap();
        }
        let contents = load(&database).unwrap();
        RedbStore::start(database, contents).unwrap()
    }

    /// What is left of the disk at this moment when the power goes.
    fn after_power_cut(&self) -> Self {
        let left = self.durable.lock().unwrap().clone();
        Self {
            cache: Arc::new(Mutex::new(left.clone())),
            durable: Arc::new(Mutex::new(left)),
            broken: Arc::default(),
        }
    }
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let store = Arc::new(disk.open());
    for round in 0..20_u64 {
        let commits = (0..5).map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(put(&format!("{round}/{n}"), "x")).await.unwrap() })
        });
        for commit in commits.collect::<Vec<_>>() {
            assert!(matches!(commit.await.unwrap(), Outcome::Committed(_)));
        }
        let image = disk.after_power_cut().open().load("").await.unwrap();
        assert_eq!(image.revision, (round + 1) * 5);
        assert_eq!(image.entries.len() as u64, (round + 1) * 5);
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let disk = Disk::default();
    let store = disk.open();
    assert_eq!(store.commit(put("a", "1")).await.unwrap(), Outcome::Committed(1));
    let mut watch = store.watch("", 0).await.unwrap();
    disk.broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = store.commit(put("a", "2")).await;
        assert!(
            matches!(&refused, Err(StoreError::Stopped(why)) if why.contains("the disk is broken")),
            "{refused:?}"
        );
        disk.broken.store(false, Ordering::SeqCst);
    }
    let image = store.load("").await.unwrap();
    assert_eq!((image.revision, &*image.entries[0].value), (1, b"1".as_slice()), "reading goes on");
    assert_eq!(watch.recv().await.unwrap().revision, 1);
    assert!(matches!(watch.recv().await, Err(StoreError::Stopped(_))));
    assert_eq!(disk.after_power_cut().open().load("").await.unwrap().revision, 1);
}

#[tokio::test]
async fn transactions_of_a_group_are_judged_one_after_the_other() {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    initialise(&database).unwrap();
    let shared = Shared::new(load(&database).unwrap());
    let (mut group, mut answers) = (Vec::new(), Vec::new());
    for (expected, value) in [(0, "first"), (0, "second"), (1, "third")] {
        let (answer, answered) = oneshot::channel();
        let mut txn = put("a", value);
        txn.conditions.push(("a".to_owned(), expected));
        group.push(Job { txn, answer });
        answers.push(answered);
    }
    write_group(&database, &shared, group).unwrap();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap().unwrap());
    }
    assert_eq!(outcomes, [Outcome::Committed(1), Outcome::Conflict, Outcome::Committed(2)]);
    for contents in [shared.image(""), load(&database).unwrap().image("")] {
        assert_eq!((contents.revision, &*contents.entries[0].value), (2, b"third".as_slice()));
    }
}
