//! Random requests against a model that keeps a whole copy of the keys for every revision.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::etcd::watcher::{Found, Watcher};
use crate::pb::etcd::mvccpb::KeyValue;
use crate::pb::etcd::mvccpb::event::EventType;

type Copy = BTreeMap<String, KeyValue>;

/// One request, or several in one transaction: puts (a value) and deletes (an end of the range).
#[derive(Debug, Clone)]
enum Change {
    Put(&'static str, u8),
    Delete(&'static str, &'static str),
}

const KEYS: [&str; 6] = ["a", "a/1", "a/2", "b", "b/1", "c"];
const ENDS: [&str; 4] = ["", "\0", "b", "a0"];

fn change() -> impl Strategy<Value = Change> {
    let key = || (0..KEYS.len()).prop_map(|n| KEYS[n]);
    prop_oneof![
        3 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
        1 => (key(), (0..ENDS.len()).prop_map(|n| ENDS[n])).prop_map(|(key, end)| Change::Delete(key, end)),
    ]
}

fn in_range(key: &str, from: &str, end: &str) -> bool {
    match end {
        "" => key == from,
        "\0" => key >= from,
        _ => key >= from && key < end,
    }
}

fn request(change: &Change) -> Request {
    match change {
        Change::Put(key, value) => Request::RequestPut(put(key, &value.to_string())),
        Change::Delete(key, end) => Request::RequestDeleteRange(DeleteRangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
            prev_kv: false,
        }),
    }
}

/// Whether an open range deletes a key that is put as well, which etcd allows.
fn mixes(changes: &[Change]) -> bool {
    let put = |change: &Change| match change {
        Change::Put(key, _) => Some(*key),
        Change::Delete(..) => None,
    };
    let deletes = |key: &str| {
        changes.iter().any(|change| matches!(change, Change::Delete(from, "\0") if key >= *from))
    };
    changes.iter().filter_map(put).any(deletes)
}

/// What the changes make of the newest copy; `None` when they are not allowed together.
fn next(now: &Copy, changes: &[Change], revision: i64) -> Option<Copy> {
    let mut after = now.clone();
    let mut put_keys = Vec::new();
    for change in changes {
        match change {
            Change::Put(key, value) => {
                let deleted = |other: &Change| matches!(other, Change::Delete(from, end) if in_range(key, from, end));
                if put_keys.contains(key) || changes.iter().any(deleted) {
                    return None;
                }
                put_keys.push(key);
                let old = now.get(*key);
                after.insert(
                    (*key).to_owned(),
                    KeyValue {
                        key: Bytes::from_static(key.as_bytes()),
                        create_revision: old.map_or(revision, |old| old.create_revision),
                        mod_revision: revision,
                        version: old.map_or(1, |old| old.version + 1),
                        value: value.to_string().into(),
                        lease: 0,
                    },
                );
            }
            Change::Delete(from, end) => after.retain(|key, _| !in_range(key, from, end)),
        }
    }
    Some(after)
}

/// The events between copies, in the order of the keys within a revision.
fn events(
    copies: &[(i64, Copy)],
    from: i64,
    range: (&str, &str),
) -> Vec<(i64, String, Option<KeyValue>)> {
    let mut events = Vec::new();
    for pair in copies.windows(2) {
        let ((_, old), (revision, new)) = (&pair[0], &pair[1]);
        if *revision < from {
            continue;
        }
        let mut keys: Vec<_> = old.keys().chain(new.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys.into_iter().filter(|key| in_range(key, range.0, range.1)) {
            if old.get(key) != new.get(key) {
                events.push((*revision, key.clone(), new.get(key).cloned()));
            }
        }
    }
    events
}

fn heard(
    keys: &Keys,
    from: i64,
    range: (&'static str, &'static str),
) -> Vec<(i64, String, Option<KeyValue>)> {
    let request = WatchCreateRequest {
        key: Bytes::from_static(range.0.as_bytes()),
        range_end: Bytes::from_static(range.1.as_bytes()),
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    let Ok(mut watcher) = Watcher::new(&request, 0) else { return Vec::new() };
    let mut heard = Vec::new();
    while let Found::Events(events, _) = keys.read(|space| watcher.look(space)) {
        for event in events {
            let gone = event.r#type() == EventType::Delete;
            let kv = event.kv.unwrap();
            let key = String::from_utf8(kv.key.to_vec()).unwrap();
            heard.push((kv.mod_revision, key, (!gone).then_some(kv)));
        }
    }
    heard.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    heard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_requests_do_what_the_model_does(
        all_changes in proptest::collection::vec(proptest::collection::vec(change(), 1..4), 1..30),
        looks in proptest::collection::vec((any::<u16>(), 0..KEYS.len(), 0..ENDS.len()), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let keys = Keys::open(Arc::clone(&store)).await.unwrap();
            let mut copies = vec![(1, Copy::new())];
            for changes in &all_changes {
                let (revision, now) = copies.last().cloned().unwrap();
                if mixes(changes) {
                    continue; // one key twice in a revision; compared with a real etcd in tests/it/etcd
                }
                let success =
                    changes.iter().map(|c| RequestOp { request: Some(request(c)) }).collect();
                let done = keys.txn(TxnRequest { success, ..TxnRequest::default() }).await;
                let Some(after) = next(&now, changes, revision + 1) else {
                    assert_eq!(done, Err(Fault::DuplicateKey), "{changes:?}");
                    continue;
                };
                let done = done.unwrap().header.unwrap().revision;
                if after == now {
                    assert_eq!(done, revision, "{changes:?} on {now:?}");
                } else {
                    assert_eq!(done, revision + 1, "{changes:?} on {now:?}");
                    copies.push((revision + 1, after));
                }
            }
            let newest = copies.last().unwrap().0;
            for (at, copy) in &copies {
                let seen: Copy = keys.range(&all(*at)).unwrap().kvs.into_iter()
                    .map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv)).collect();
                assert_eq!(&seen, copy, "at revision {at}");
            }
            for (from, key, end) in looks {
                let from = 2 + i64::from(from) % newest;
                let range = (KEYS[key], ENDS[end]);
                assert_eq!(heard(&keys, from, range), events(&copies, from, range), "{range:?} from {from}");
            }
            // What is kept reads back as the same.
            let before = keys.range(&all(0)).unwrap();
            drop(keys);
            let again = Keys::open(store).await.unwrap();
            assert_eq!(again.range(&all(0)).unwrap(), before, "after a restart");
        });
    }
}
