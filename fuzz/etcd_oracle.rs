//! What must hold for any requests that an etcd client could send: the oracle of that fuzz target.
//!
//! Used by `fuzz_targets/etcd.rs` with what libFuzzer makes up, and by `tests/it/fuzz_corpus.rs` with
//! the corpus. It ends with a panic when something does not hold.
//!
//! An input is a list of requests, each a byte that says which, two that say how long, and a protobuf
//! message.

use std::sync::Arc;

use prost::Message;
use weft::etcd::Keys;
use weft::pb::etcd::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RangeResponse, TxnRequest,
};
use weft::store::{MemoryStore, Store};

/// Most requests of one input: more only make it slow.
const MOST: usize = 64;

/// Checks one input. Returns how many of its requests were carried out, so that a caller can tell an
/// input that says something from one that does not.
pub fn check(input: &[u8]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(check_requests(input))
}

async fn check_requests(input: &[u8]) -> usize {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let keys = Keys::open(Arc::clone(&store)).await.unwrap();
    let (mut revision, mut done) = (1, 0);
    for (kind, message) in requests(input).take(MOST) {
        let before = everything(&keys);
        let outcome = carry_out(&keys, kind, message).await;
        let after = everything(&keys);
        match outcome {
            Some(Ok(now)) => {
                assert!(now == revision || now == revision + 1, "revision {revision} became {now}");
                assert!(now > revision || before == after, "a change without a revision");
                (revision, done) = (now, done + 1);
            }
            Some(Err(())) | None => assert_eq!(before, after, "what was refused has changed something"),
        }
        assert_consistent(&after, revision);
    }
    let before = everything(&keys);
    drop(keys);
    let again = Keys::open(store).await.unwrap();
    assert_eq!(everything(&again), before, "a restart changes what is there");
    done
}

/// The requests in an input.
fn requests(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([kind, low, high], rest) = input.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        input = rest;
        Some((*kind, message))
    })
}

/// The revision that a request leads to. `None`: it is no message, or changes nothing by its nature.
async fn carry_out(keys: &Keys, kind: u8, message: &[u8]) -> Option<Result<i64, ()>> {
    let now = |header: Option<weft::pb::etcd::etcdserverpb::ResponseHeader>| header.unwrap().revision;
    Some(
        match kind % 7 {
            0 => keys.put(PutRequest::decode(message).ok()?).await.map(|a| now(a.header)),
            1 => keys.range(&RangeRequest::decode(message).ok()?).map(|a| now(a.header)),
            2 => keys.delete(DeleteRangeRequest::decode(message).ok()?).await.map(|a| now(a.header)),
            3 => keys.txn(TxnRequest::decode(message).ok()?).await.map(|a| now(a.header)),
            4 => keys.grant(LeaseGrantRequest::decode(message).ok()?).await.map(|a| now(a.header)),
            5 => keys.revoke(LeaseRevokeRequest::decode(message).ok()?.id).await.map(|h| h.revision),
            _ => keys.compact(CompactionRequest::decode(message).ok()?.revision).map(|h| h.revision),
        }
        .map_err(drop),
    )
}

fn everything(keys: &Keys) -> RangeResponse {
    let zero = bytes::Bytes::from_static(&[0]);
    let request = RangeRequest { key: zero.clone(), range_end: zero, ..RangeRequest::default() };
    let mut all = keys.range(&request).unwrap();
    all.header = None;
    all
}

fn assert_consistent(all: &RangeResponse, revision: i64) {
    assert!(all.kvs.is_sorted_by(|a, b| a.key < b.key));
    for kv in &all.kvs {
        assert!(!kv.key.is_empty() && kv.version >= 1);
        assert!(2 <= kv.create_revision && kv.create_revision <= kv.mod_revision, "{kv:?}");
        assert!(kv.mod_revision <= revision, "{kv:?} after {revision}");
    }
}
