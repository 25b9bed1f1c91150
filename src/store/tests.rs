//! What every store has to do, run against each of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<String, (Vec<u8>, Revision, Revision)>;

fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned() }
}

fn txn(conditions: &[(&str, Revision)], ops: impl Into<Vec<Op>>) -> Txn {
    let conditions = conditions.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect();
    Txn { conditions, ops: ops.into() }
}

/// Runs a test body with a memory store and with a redb store in a fresh directory.
async fn with_both<F: Future<Output = ()>>(body: impl Fn(std::sync::Arc<dyn Store>) -> F) {
    body(std::sync::Arc::new(MemoryStore::new())).await;
    let dir = tempfile::tempdir().unwrap();
    body(std::sync::Arc::new(RedbStore::open(dir.path().join("weft.redb")).await.unwrap())).await;
}

async fn committed(store: &dyn Store, txn: Txn) -> Revision {
    match store.commit(txn).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a conflict"),
    }
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    with_both(|store| async move {
        assert_eq!(committed(&*store, txn(&[("a", 0)], [put("a", "1"), put("b", "1")])).await, 1);
        let refused = txn(&[("a", 1), ("b", 0)], [put("a", "2"), delete("b")]);
        assert_eq!(store.commit(refused).await.unwrap(), Outcome::Conflict);
        assert_eq!(
            committed(&*store, txn(&[("a", 1), ("c", 0)], [put("a", "2"), delete("b")])).await,
            2
        );
        let image = store.load("").await.unwrap();
        let a = Entry { key: "a".to_owned(), value: Bytes::from_static(b"2"), created: 1, modified: 2 };
        assert_eq!((image.revision, image.entries), (2, vec![a]));
    })
    .await;
}

#[tokio::test]
async fn a_transaction_without_writes_takes_no_revision() {
    with_both(|store| async move {
        assert_eq!(committed(&*store, txn(&[], [put("a", "1")])).await, 1);
        assert_eq!(committed(&*store, txn(&[("a", 1)], [])).await, 1);
        assert_eq!(store.commit(txn(&[("a", 9)], [])).await.unwrap(), Outcome::Conflict);
        assert_eq!(store.load("").await.unwrap().revision, 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_comes_back_is_new() {
    with_both(|store| async move {
        for op in [put("a", "1"), put("a", "2"), delete("a"), put("a", "3")] {
            committed(&*store, txn(&[], [op])).await;
        }
        let entries = store.load("a").await.unwrap().entries;
        assert_eq!((entries[0].created, entries[0].modified), (4, 4));
    })
    .await;
}

#[tokio::test]
async fn a_watch_sees_every_commit_in_order_and_only_its_prefix() {
    with_both(|store| async move {
        committed(&*store, txn(&[], [put("x/1", "1")])).await;
        let mut watch = store.watch("x/", 0).await.unwrap();
        let mut late = store.watch("x/", 1).await.unwrap();
        committed(&*store, txn(&[], [put("y/1", "1")])).await;
        committed(&*store, txn(&[], [put("x/2", "1"), put("y/2", "1"), delete("x/1")])).await;
        assert_eq!(watch.recv().await.unwrap().revision, 1);
        let commit = watch.recv().await.unwrap();
        let keys: Vec<_> = commit.changes.iter().map(|(key, e)| (key.as_str(), e.is_some())).collect();
        assert_eq!((commit.revision, keys), (3, vec![("x/2", true), ("x/1", false)]));
        assert_eq!(late.recv().await.unwrap(), commit);
        assert!(watch.try_recv().unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_watch_waits_and_ends_with_the_store() {
    with_both(|store| async move {
        let mut watch = store.watch("", 0).await.unwrap();
        let waiting = tokio::spawn(async move { (watch.recv().await, watch.recv().await) });
        committed(&*store, txn(&[], [put("a", "1")])).await;
        drop(store);
        let (first, second) = waiting.await.unwrap();
        assert_eq!(first.unwrap().revision, 1);
        assert!(matches!(second, Err(StoreError::Stopped(_))), "{second:?}");
    })
    .await;
}

#[tokio::test]
async fn of_many_writers_one_wins_each_round() {
    with_both(|store| async move {
        let increment = |store: std::sync::Arc<dyn Store>| async move {
            loop {
                let held = store.load("n").await.unwrap().entries.pop();
                let (at, n) = held.map_or((0, 0), |e| {
                    (e.modified, std::str::from_utf8(&e.value).unwrap().parse::<u32>().unwrap())
                });
                let next = txn(&[("n", at)], [put("n", &(n + 1).to_string())]);
                if store.commit(next).await.unwrap() != Outcome::Conflict {
                    return;
                }
            }
        };
        let tasks: Vec<_> = (0..20).map(|_| tokio::spawn(increment(store.clone()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let image = store.load("n").await.unwrap();
        assert_eq!((image.revision, &*image.entries[0].value), (20, b"20".as_slice()));
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_anything_is_written() {
    with_both(|store| async move {
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        let huge = Op::Put { key: "a".to_owned(), value: Bytes::from(vec![0; MAX_TXN_BYTES]) };
        for op in [put(&long, "1"), huge] {
            let result = store.commit(txn(&[], [put("b", "1"), op])).await;
            assert!(matches!(result, Err(StoreError::TooLarge { .. })), "{result:?}");
        }
        assert_eq!(store.load("").await.unwrap().revision, 0);
    })
    .await;
}

#[tokio::test]
async fn a_watcher_that_is_too_far_behind_is_told() {
    let store = MemoryStore::new();
    let mut watch = store.watch("", 0).await.unwrap();
    let half: Vec<Op> = (0..contents::LOG_CHANGES / 2).map(|n| put(&n.to_string(), "")).collect();
    for _ in 0..3 {
        committed(&store, txn(&[], half.clone())).await;
    }
    assert!(matches!(watch.recv().await, Err(StoreError::Compacted(0))));
    assert!(matches!(store.watch("", 0).await, Err(StoreError::Compacted(0))));
    assert_eq!(store.watch("", 1).await.unwrap().recv().await.unwrap().revision, 2);
}

/// The rules read literally.
fn model_commit(model: &mut Model, revision: &mut Revision, txn: &Txn) -> Outcome {
    let at = |key: &String| model.get(key).map_or(0, |(_, _, modified)| *modified);
    if txn.conditions.iter().any(|(key, expected)| at(key) != *expected) {
        return Outcome::Conflict;
    }
    *revision += Revision::from(!txn.ops.is_empty());
    for op in &txn.ops {
        match op {
            Op::Delete { key } => drop(model.remove(key)),
            Op::Put { key, value } => {
                let created = model.get(key).map_or(*revision, |(_, created, _)| *created);
                model.insert(key.clone(), (value.to_vec(), created, *revision));
            }
        }
    }
    Outcome::Committed(*revision)
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ba", "c"]).prop_map(str::to_owned)
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let op = prop_oneof![
        (key(), prop::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(key, value)| Op::Put { key, value: value.into() }),
        key().prop_map(|key| Op::Delete { key }),
    ];
    let conditions = prop::collection::vec((key(), 0_u64..6), 0..2);
    let ops = prop::collection::vec(op, 0..4);
    (conditions, ops).prop_map(|(conditions, ops)| Txn { conditions, ops })
}

async fn agrees_with_the_model(store: &dyn Store, txns: Vec<Txn>) {
    let (mut model, mut revision) = (Model::new(), 0);
    let mut replayed = Model::new();
    let mut watch = store.watch("", 0).await.unwrap();
    for txn in txns {
        let expected = model_commit(&mut model, &mut revision, &txn);
        assert_eq!(store.commit(txn).await.unwrap(), expected);
    }
    while let Some(commit) = watch.try_recv().unwrap() {
        for (key, entry) in commit.changes {
            match entry {
                Some(e) => drop(replayed.insert(key, (e.value.to_vec(), e.created, e.modified))),
                None => drop(replayed.remove(&key)),
            }
        }
    }
    assert_eq!(replayed, model, "a watcher that replays all commits has everything");
    for prefix in ["", "b", "zz"] {
        let image = store.load(prefix).await.unwrap();
        let loaded: Model = image
            .entries
            .into_iter()
            .map(|e| (e.key, (e.value.to_vec(), e.created, e.modified)))
            .collect();
        let mut expected = model.clone();
        expected.retain(|key, _| key.starts_with(prefix));
        assert_eq!((image.revision, loaded), (revision, expected));
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #[test]
    fn memory_agrees_with_the_model(txns in prop::collection::vec(any_txn(), 0..30)) {
        block_on(agrees_with_the_model(&MemoryStore::new(), txns));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn redb_agrees_with_the_model(txns in prop::collection::vec(any_txn(), 0..30)) {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let store = RedbStore::open(dir.path().join("weft.redb")).await.unwrap();
            agrees_with_the_model(&store, txns).await;
        });
    }
}
