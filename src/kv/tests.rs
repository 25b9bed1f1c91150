//! The store as its users see it, over a store in memory, and against a naive model.

mod locks;
mod random;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::catalog::{self, Catalog};
use crate::model::{Action, NodeName};
use crate::store::{MemoryStore, Store};

/// Longest wait for anything here; most of it takes microseconds.
const DEADLINE: Duration = Duration::from_secs(10);

struct Fixture {
    store: Arc<dyn Store>,
    catalog: Catalog,
    kv: Kv,
}

async fn open() -> Fixture {
    open_on(Arc::new(MemoryStore::new())).await
}

async fn open_on(store: Arc<dyn Store>) -> Fixture {
    let settings = catalog::Settings {
        datacenter: "dc1".to_owned(),
        node: NodeName::new("n1").unwrap(),
        node_address: "127.0.0.1".to_owned(),
        default_action: Action::Allow,
    };
    let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
    let kv = Kv::open(Arc::clone(&store), catalog.clone()).await.unwrap();
    Fixture { store, catalog, kv }
}

fn content(value: &str) -> Content {
    Content { value: Bytes::copy_from_slice(value.as_bytes()), flags: 0 }
}

fn key(text: &str) -> Subject {
    Subject::Key(text.to_owned())
}

fn prefix(text: &str) -> Subject {
    Subject::Prefix(text.to_owned())
}

async fn one(kv: &Kv, key: &str, operation: Operation) -> Outcome {
    kv.apply(vec![(key.to_owned(), operation)]).await.unwrap()
}

async fn set(kv: &Kv, key: &str, value: &str) -> Entry {
    one(kv, key, Operation::Set(content(value))).await.unwrap().remove(0)
}

fn value(kv: &Kv, key: &str) -> Option<String> {
    kv.get(key).map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

#[tokio::test]
async fn every_index_is_about_its_own_keys() {
    let Fixture { kv, catalog, .. } = open().await;
    assert!(kv.index(&key("a/1")) > 0);
    let first = set(&kv, "a/1", "x").await;
    assert_eq!(kv.get("a/1").unwrap().modified, first.modified);
    let other = set(&kv, "b", "x").await;
    assert!(other.modified > first.modified);
    assert_eq!(kv.index(&key("a/1")), first.modified);
    assert_eq!(kv.index(&prefix("a/")), first.modified);
    assert_eq!(kv.index(&prefix("")), other.modified);
    // What is not keys moves none of them.
    let position = catalog.position().revision;
    let party = crate::model::Party::Any;
    let put = catalog.put_intention(party.clone(), party, Action::Deny, String::new(), [].into());
    put.await.unwrap();
    assert!(catalog.position().revision > position);
    assert_eq!(kv.index(&prefix("")), other.modified);
    // The same again is no change; other flags are.
    set(&kv, "b", "x").await;
    assert_eq!(kv.index(&key("b")), other.modified);
    one(&kv, "b", Operation::Set(Content { flags: 1, ..content("x") })).await.unwrap();
    assert!(kv.index(&key("b")) > other.modified);
    // Going is a change of the key and of every prefix.
    let before = kv.index(&prefix("a/"));
    one(&kv, "a/1", Operation::Delete).await.unwrap();
    let gone = kv.index(&key("a/1"));
    assert!(gone > before && kv.index(&prefix("a/")) == gone && kv.index(&prefix("")) == gone);
    assert!(set(&kv, "a/1", "y").await.created > gone);
}

#[tokio::test]
async fn keys_are_cut_at_the_separator() {
    let Fixture { kv, .. } = open().await;
    for name in ["/", "a", "a/", "a/b", "a/b/c", "a/b/d", "a::b", "é/ü"] {
        set(&kv, name, "").await;
    }
    for (prefix, separator, keys) in [
        ("", "", vec!["/", "a", "a/", "a/b", "a/b/c", "a/b/d", "a::b", "é/ü"]),
        ("", "/", vec!["/", "a", "a/", "a::b", "é/"]),
        ("a/", "/", vec!["a/", "a/b", "a/b/"]),
        ("a", "::", vec!["a", "a/", "a/b", "a/b/c", "a/b/d", "a::"]),
        ("é", "ü", vec!["é/ü"]),
        ("zz", "/", vec![]),
    ] {
        assert_eq!(kv.keys(prefix, separator), keys, "{prefix:?} {separator:?}");
    }
    let under: Vec<_> = kv.list("a/b").iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(under, ["a/b", "a/b/c", "a/b/d"]);
}

#[tokio::test]
async fn a_wait_hears_of_its_own_keys_only_and_leaves_nothing_behind() {
    let Fixture { kv, .. } = open().await;
    for subject in [key("a/1"), prefix("a/"), prefix("")] {
        let index = kv.index(&subject);
        let waiting = tokio::time::timeout(DEADLINE, kv.changed(&subject, index));
        let began = std::time::Instant::now();
        let next = index.to_string();
        let (woken, _) = tokio::join!(waiting, set(&kv, "a/1", &next));
        woken.expect("the write wakes");
        assert!(began.elapsed() < DEADLINE && kv.index(&subject) > index, "{subject:?}");
    }
    let subject = key("a/1");
    let index = kv.index(&subject);
    let waiting = tokio::time::timeout(Duration::from_millis(30), kv.changed(&subject, index));
    let (woken, _) = tokio::join!(waiting, set(&kv, "a/2", "x"));
    assert!(woken.is_err(), "another key wakes nobody");
    assert_eq!(kv.index(&subject), index);
    assert!(kv.waiting() <= 1, "the review waits for sessions, and nobody else for anything");
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing_and_one_commit() {
    let Fixture { kv, store, .. } = open().await;
    let before = set(&kv, "a", "1").await;
    let refused = kv.apply(vec![
        ("b".to_owned(), Operation::Set(content("2"))),
        ("a".to_owned(), Operation::Cas(content("3"), before.modified + 1)),
        ("c".to_owned(), Operation::Get),
    ]);
    let expected = vec![(1, Refusal::StaleSet("a".to_owned())), (2, Refusal::NoKey("c".to_owned()))];
    assert_eq!(refused.await.unwrap(), Err(expected));
    assert_eq!((value(&kv, "a").as_deref(), value(&kv, "b")), (Some("1"), None));

    let revision = store.load("").await.unwrap().revision;
    let done = kv.apply(vec![
        ("a".to_owned(), Operation::Cas(content("3"), before.modified)),
        ("a".to_owned(), Operation::Get),
        ("d/1".to_owned(), Operation::Set(content("4"))),
        ("d/".to_owned(), Operation::GetTree),
        ("d/".to_owned(), Operation::DeleteTree),
        ("d/1".to_owned(), Operation::CheckNotExists),
        ("e".to_owned(), Operation::GetOrEmpty),
    ]);
    let shown: Vec<_> = done.await.unwrap().unwrap().into_iter().map(|e| (e.key, e.modified)).collect();
    let now = revision + 1;
    let expected = [("a", now), ("a", now), ("d/1", now), ("d/1", now), ("e", 0)];
    assert_eq!(shown, expected.map(|(key, at)| (key.to_owned(), at)));
    assert_eq!(store.load("").await.unwrap().revision, now);
    assert_eq!((value(&kv, "a").as_deref(), value(&kv, "d/1")), (Some("3"), None));
}

#[tokio::test]
async fn many_writers_of_one_key_all_get_their_turn() {
    let Fixture { kv, .. } = open().await;
    set(&kv, "n", "0").await;
    let add = |kv: Kv| async move {
        loop {
            let held = kv.get("n").unwrap();
            let number: u32 = String::from_utf8(held.value.to_vec()).unwrap().parse().unwrap();
            let next = content(&(number + 1).to_string());
            if one(&kv, "n", Operation::Cas(next, held.modified)).await.is_ok() {
                return;
            }
        }
    };
    let writers: Vec<_> = (0..100).map(|_| tokio::spawn(add(kv.clone()))).collect();
    for writer in writers {
        tokio::time::timeout(DEADLINE, writer).await.expect("a writer starves").unwrap();
    }
    assert_eq!(value(&kv, "n").as_deref(), Some("100"));
    let blind: Vec<_> = (0..200)
        .map(|n| {
            let kv = kv.clone();
            tokio::spawn(async move { set(&kv, "n", &format!("b{n}")).await })
        })
        .collect();
    for writer in blind {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn limits_are_refused_and_lose_nothing() {
    let Fixture { kv, .. } = open().await;
    set(&kv, "a", "1").await;
    let long = "k".repeat(limits::MAX_KEY_BYTES + 1);
    let refused = kv.apply(vec![(long, Operation::Get)]).await;
    assert!(matches!(refused, Err(KvError::KeyTooLong(1001))), "{refused:?}");
    let large = Content { value: vec![0; limits::MAX_VALUE_BYTES + 1].into(), flags: 0 };
    let refused = kv.apply(vec![("a".to_owned(), Operation::Set(large))]).await;
    assert!(matches!(refused, Err(KvError::ValueTooLarge(_))), "{refused:?}");
    assert_eq!(value(&kv, "a").as_deref(), Some("1"));
    let longest = "é".repeat(limits::MAX_KEY_BYTES / 2);
    let largest = Content { value: vec![7; limits::MAX_VALUE_BYTES].into(), flags: u64::MAX };
    one(&kv, &longest, Operation::Set(largest.clone())).await.unwrap();
    assert_eq!(kv.get(&longest).unwrap().value, largest.value);
}

#[tokio::test]
async fn a_restart_keeps_everything_and_no_index_goes_backwards() {
    let first = open().await;
    let kept = set(&first.kv, "a/1", "x").await;
    set(&first.kv, "a/2", "x").await;
    one(&first.kv, "a/2", Operation::Delete).await.unwrap();
    let subjects = [key("a/1"), key("a/2"), key("never"), prefix("a/"), prefix(""), Subject::Sessions];
    let seen = subjects.each_ref().map(|subject| first.kv.index(subject));
    let store = Arc::clone(&first.store);
    drop(first);
    let second = open_on(store).await;
    assert_eq!(second.kv.get("a/1").unwrap().modified, kept.modified);
    assert_eq!(value(&second.kv, "a/2"), None);
    for (subject, seen) in subjects.iter().zip(seen) {
        assert!(second.kv.index(subject) >= seen, "{subject:?}");
    }
}

#[tokio::test]
async fn who_lost_track_catches_up_with_the_store() {
    use super::state::State;
    use crate::store::replica::Follow;
    use tokio::time::Instant;

    let Fixture { kv, store, .. } = open().await;
    for name in ["kept", "changed", "deleted"] {
        set(&kv, name, "1").await;
    }
    let before = store.load(record::PREFIX).await.unwrap();
    set(&kv, "changed", "2").await;
    set(&kv, "new", "1").await;
    one(&kv, "deleted", Operation::Delete).await.unwrap();
    let after = store.load(record::PREFIX).await.unwrap();

    let now = Instant::now();
    let mut state = State::load(&before, now).unwrap();
    let mut effects = state.catch_up(&after, now).unwrap();
    effects.keys.sort_unstable();
    assert_eq!(effects.keys, ["changed", "deleted", "new"]);
    assert_eq!(state.entries, State::load(&after, now).unwrap().entries);
    assert_eq!(state.key_index("deleted"), after.revision);
}
