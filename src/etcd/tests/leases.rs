//! Leases: who goes when.

use tokio::time::{Instant, sleep};

use super::*;

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

async fn grant(keys: &Keys, id: i64, ttl: i64) -> i64 {
    keys.grant(LeaseGrantRequest { ttl, id }).await.unwrap().id
}

async fn attach(keys: &Keys, key: &str, lease: i64) {
    keys.put(PutRequest { lease, ..put(key, "x") }).await.unwrap();
}

/// Waits until nothing is left.
async fn emptied(keys: &Keys) {
    let mut revision = keys.revision();
    let gone = async {
        while keys.range(&all(0)).unwrap().count > 0 {
            revision.changed().await.unwrap();
        }
    };
    tokio::time::timeout(100 * DEADLINE, gone).await.expect("the keys stay");
}

#[tokio::test(start_paused = true)]
async fn keys_go_with_their_lease_and_not_before() {
    let keys = Keys::open(Arc::new(MemoryStore::new())).await.unwrap();
    let lease = grant(&keys, 0, 10).await;
    for key in ["a", "b"] {
        attach(&keys, key, lease).await;
    }
    for _ in 0..5 {
        sleep(TTL - Duration::from_millis(1)).await;
        assert_eq!(keys.keep_alive(lease), Some(10));
        assert_eq!(keys.range(&all(0)).unwrap().count, 2);
    }
    let (last, before) = (Instant::now(), revision(&keys));
    emptied(&keys).await;
    assert!(last.elapsed() >= TTL && last.elapsed() <= TTL + SECOND, "{:?}", last.elapsed());
    assert_eq!(revision(&keys), before + 1, "all at one revision");
    assert_eq!((keys.keep_alive(lease), keys.leases()), (None, vec![]));
    assert!(keys.remaining(lease).is_none());
    assert_eq!(keys.revoke(lease).await, Err(Fault::LeaseNotFound));
    let late = keys.put(PutRequest { lease, ..put("c", "x") }).await;
    assert_eq!(late, Err(Fault::LeaseNotFound));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_lease_has_a_full_period() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keys = Keys::open(Arc::clone(&store)).await.unwrap();
    attach(&keys, "a", grant(&keys, 7, 10).await).await;
    sleep(TTL - SECOND).await;
    drop(keys);
    sleep(5 * TTL).await;
    let keys = Keys::open(store).await.unwrap();
    sleep(TTL - SECOND).await;
    assert_eq!(keys.range(&all(0)).unwrap().count, 1);
    let remaining = keys.remaining(7).unwrap();
    assert_eq!((remaining.left, remaining.granted_s, remaining.keys.len()), (SECOND, 10, 1));
    emptied(&keys).await;
}

#[tokio::test]
async fn a_key_belongs_to_its_last_lease_only() {
    let keys = Keys::open(Arc::new(MemoryStore::new())).await.unwrap();
    let (one, two) = (grant(&keys, 1, 60).await, grant(&keys, 2, 60).await);
    for (key, lease) in [("a", one), ("b", one), ("a", two), ("c", two)] {
        attach(&keys, key, lease).await;
    }
    keys.put(put("c", "no lease")).await.unwrap();
    keys.put(PutRequest { ignore_lease: true, ..put("b", "same lease") }).await.unwrap();
    let attached = |lease| keys.remaining(lease).unwrap().keys;
    assert_eq!((attached(one), attached(two)), (vec!["b".into()], vec![Bytes::from("a")]));
    let before = revision(&keys);
    assert_eq!(keys.revoke(two).await.unwrap().revision, before + 1);
    assert_eq!(keys.revoke(one).await.unwrap().revision, before + 2);
    assert_eq!(pairs(&keys.range(&all(0)).unwrap()), [("c".to_owned(), "no lease".to_owned())]);
    let empty = grant(&keys, 3, 60).await;
    assert_eq!(keys.revoke(empty).await.unwrap().revision, before + 2, "no key, no revision");
}

#[tokio::test]
async fn a_lease_has_bounds() {
    let keys = Keys::open(Arc::new(MemoryStore::new())).await.unwrap();
    for (ttl, granted) in [(-1, 2), (0, 2), (1, 2), (30, 30), (9_000_000_000, 9_000_000_000)] {
        let answer = keys.grant(LeaseGrantRequest { ttl, id: 0 }).await.unwrap();
        assert!(answer.id > 0 && answer.ttl == granted, "{answer:?}");
    }
    let long = LeaseGrantRequest { ttl: 9_000_000_001, id: 0 };
    assert_eq!(keys.grant(long).await, Err(Fault::TtlTooLarge));
    let taken = LeaseGrantRequest { ttl: 30, id: 9 };
    keys.grant(taken).await.unwrap();
    assert_eq!(keys.grant(taken).await, Err(Fault::LeaseExists));
}

#[tokio::test]
async fn a_lease_with_very_many_keys_ends_in_steps() {
    let keys = Keys::open(Arc::new(MemoryStore::new())).await.unwrap();
    let lease = grant(&keys, 0, 600).await;
    let many = limits::MAX_DELETED_BYTES / limits::MAX_KEY_BYTES + 500;
    for group in 0..many.div_ceil(128) {
        let put = |number| {
            let request = PutRequest { lease, ..put(&format!("{:0>1000}", group * 128 + number), "") };
            RequestOp { request: Some(Request::RequestPut(request)) }
        };
        let success = (0..128).map(put).collect();
        keys.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    }
    let zero = Bytes::from_static(&[0]);
    let delete = DeleteRangeRequest { key: zero.clone(), range_end: zero, prev_kv: false };
    assert_eq!(keys.delete(delete).await, Err(Fault::TooLarge));
    let before = revision(&keys);
    assert_eq!(keys.revoke(lease).await.unwrap().revision, before + 2);
    assert_eq!((keys.range(&all(0)).unwrap().count, keys.leases().len()), (0, 0));
}
