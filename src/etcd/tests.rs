//! The keys as clients see them, over a store in memory, and against a naive model.

mod bridge;
mod leases;
mod random;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::pb::etcd::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, WatchCreateRequest, request_op::Request,
};
use crate::store::{MemoryStore, Store};

/// Longest wait for anything here; most of it takes microseconds.
const DEADLINE: Duration = Duration::from_secs(10);

fn put(key: &str, value: &str) -> PutRequest {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
}

/// Everything, or what there was at a revision.
fn all(revision: i64) -> RangeRequest {
    let zero = Bytes::from_static(&[0]);
    RangeRequest { key: zero.clone(), range_end: zero, revision, ..RangeRequest::default() }
}

fn pairs(answer: &RangeResponse) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

fn revision(keys: &Keys) -> i64 {
    keys.read(|space| space.revision)
}

#[tokio::test]
async fn revisions_are_etcds_whatever_else_the_store_holds() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keys = Keys::open(Arc::clone(&store)).await.unwrap();
    assert_eq!(revision(&keys), 1, "nothing was written");
    for expected in 2..5 {
        let foreign = crate::store::Op::Put { key: "ca/x".to_owned(), value: "1".into() };
        store.commit(crate::store::Txn { conditions: vec![], ops: vec![foreign] }).await.unwrap();
        let answer = keys.put(put("a", &expected.to_string())).await.unwrap();
        assert_eq!(answer.header.unwrap().revision, expected);
    }
    let kv = keys.range(&all(0)).unwrap().kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 4, 3));
    let gone = DeleteRangeRequest { key: "b".into(), ..DeleteRangeRequest::default() };
    assert_eq!(keys.delete(gone).await.unwrap().header.unwrap().revision, 4, "nothing was deleted");
    drop(keys);
    let keys = Keys::open(store).await.unwrap();
    assert_eq!(revision(&keys), 4, "a restart keeps it");
    assert_eq!(keys.put(put("a", "x")).await.unwrap().header.unwrap().revision, 5);
}

#[tokio::test]
async fn requests_at_once_share_commits_but_not_revisions() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keys = Keys::open(Arc::clone(&store)).await.unwrap();
    let before = store.load("").await.unwrap().revision;
    let puts: Vec<_> = (0..500)
        .map(|number| {
            let keys = keys.clone();
            tokio::spawn(async move { keys.put(put(&format!("k{number}"), "x")).await.unwrap() })
        })
        .collect();
    let mut revisions = Vec::new();
    for put in puts {
        revisions.push(put.await.unwrap().header.unwrap().revision);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..502).collect::<Vec<_>>());
    let commits = store.load("").await.unwrap().revision - before;
    assert!(commits < 100, "{commits} commits");
    // Every revision on the way can be seen.
    for revision in [2, 100, 501] {
        assert_eq!(keys.range(&all(revision)).unwrap().count, revision - 1);
    }
}

#[tokio::test]
async fn a_refused_transaction_changes_nothing() {
    let keys = Keys::open(Arc::new(MemoryStore::new())).await.unwrap();
    keys.put(put("a", "1")).await.unwrap();
    let operation = |request| RequestOp { request: Some(request) };
    let with = |request| TxnRequest {
        success: vec![operation(Request::RequestPut(put("b", "2"))), operation(request)],
        ..TxnRequest::default()
    };
    let lease = PutRequest { lease: 77, ..put("c", "3") };
    let missing = PutRequest { ignore_value: true, ..put("c", "") };
    let past = RangeRequest { revision: 9, ..all(0) };
    for (request, fault) in [
        (Request::RequestPut(lease), Fault::LeaseNotFound),
        (Request::RequestPut(missing), Fault::KeyNotFound),
        (Request::RequestPut(put("b", "3")), Fault::DuplicateKey),
        (Request::RequestPut(put("", "3")), Fault::EmptyKey),
        (Request::RequestRange(past), Fault::FutureRevision),
    ] {
        assert_eq!(keys.txn(with(request)).await, Err(fault.clone()), "{fault}");
    }
    let large = put("big", &"x".repeat(limits::MAX_REQUEST_BYTES));
    assert_eq!(keys.put(large).await, Err(Fault::TooLarge));
    let long = put(&"é".repeat(limits::MAX_KEY_BYTES / 4 + 1), "x");
    assert_eq!(keys.put(long).await, Err(Fault::TooLarge));
    assert_eq!((pairs(&keys.range(&all(0)).unwrap()).len(), revision(&keys)), (1, 2));
}

#[tokio::test]
async fn what_is_compacted_is_neither_read_nor_watched() {
    let keys = Keys::open(Arc::new(MemoryStore::new())).await.unwrap();
    for value in ["1", "2", "3", "4"] {
        keys.put(put("a", value)).await.unwrap(); // revisions 2 to 5
    }
    assert_eq!(keys.compact(9), Err(Fault::FutureRevision));
    assert_eq!(keys.compact(4).unwrap().revision, 5);
    assert_eq!(keys.compact(4), Err(Fault::Compacted));
    assert_eq!(keys.range(&all(3)), Err(Fault::Compacted));
    assert_eq!(pairs(&keys.range(&all(4)).unwrap()), [("a".to_owned(), "3".to_owned())]);
    let look = |start_revision| {
        let request = WatchCreateRequest { start_revision, ..WatchCreateRequest::default() };
        watcher::Watcher::new(&request, 5).unwrap()
    };
    let found = |start| keys.read(|space| look(start).look(space));
    assert_eq!(found(3), watcher::Found::Compacted(4));
    assert!(matches!(found(4), watcher::Found::Events(_, 5) | watcher::Found::Nothing));
}

#[tokio::test]
async fn who_lost_track_catches_up_and_forgets_the_past() {
    use super::keyspace::Keyspace;
    use crate::store::replica::Follow;

    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keys = Keys::open(Arc::clone(&store)).await.unwrap();
    keys.put(put("a", "1")).await.unwrap();
    for id in [1, 2] {
        keys.grant(LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    }
    let before = store.load(record::PREFIX).await.unwrap();
    keys.put(PutRequest { lease: 2, ..put("a", "2") }).await.unwrap();
    keys.put(put("b", "1")).await.unwrap();
    keys.revoke(1).await.unwrap();
    let after = store.load(record::PREFIX).await.unwrap();

    let mut space = Keyspace::load(&before).unwrap();
    let mut effects = space.catch_up(&after, tokio::time::Instant::now()).unwrap();
    effects.leases.sort_unstable();
    assert_eq!((effects.revision, effects.leases), (4, vec![(1, None), (2, Some(60))]));
    assert_eq!(pairs(&keys.range(&all(0)).unwrap()).len(), space.keys.len());
    assert_eq!(space.attached(2).collect::<Vec<_>>(), ["a"]);
    assert_eq!(space.events(4).err(), Some(5), "what happened in between is not known one by one");
}
