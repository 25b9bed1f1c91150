//! Random transactions against a model that knows nothing of drafts, indexes by commit or the store.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a client can tell of a key.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    value: String,
    flags: u64,
    lock_index: u64,
    session: Option<SessionId>,
    modified: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Set(u64),
    Cas(bool),
    Lock(usize),
    Unlock(usize),
    Get,
    CheckIndex(bool),
    CheckNotExists,
    Delete,
    DeleteCas(bool),
    DeleteTree,
}

type Model = BTreeMap<String, Known>;

/// Carries out one step; false when it does not hold.
fn step(
    model: &mut Model,
    key: &str,
    step: &Step,
    value: &str,
    sessions: &[SessionId],
    now: u64,
) -> bool {
    let held = model.get(key).cloned();
    let index = held.as_ref().map_or(0, |held| held.modified);
    let mut put = |flags: u64, lock: Option<Option<SessionId>>| {
        let old = held.clone();
        let (mut lock_index, mut session) =
            old.as_ref().map_or((0, None), |old| (old.lock_index, old.session.clone()));
        if let Some(lock) = lock {
            lock_index += u64::from(lock.is_some() && session.is_none());
            session = lock;
        }
        let modified = now;
        let mut new = Known { value: value.to_owned(), flags, lock_index, session, modified };
        if let Some(old) = old
            && (Known { modified: old.modified, ..new.clone() }) == old
        {
            new = old;
        }
        model.insert(key.to_owned(), new);
        true
    };
    let holder = held.as_ref().and_then(|held| held.session.clone());
    match step {
        Step::Set(flags) => put(*flags, None),
        Step::Cas(right) => *right && put(0, None),
        Step::Lock(session) => {
            let session = &sessions[*session];
            holder.is_none_or(|holder| holder == *session) && put(0, Some(Some(session.clone())))
        }
        Step::Unlock(session) => holder.as_ref() == Some(&sessions[*session]) && put(0, Some(None)),
        Step::Get => held.is_some(),
        Step::CheckIndex(right) => *right && index > 0,
        Step::CheckNotExists => held.is_none(),
        Step::Delete => {
            model.remove(key);
            true
        }
        Step::DeleteCas(right) => {
            let holds = held.is_none() || *right;
            if holds {
                model.remove(key);
            }
            holds
        }
        Step::DeleteTree => {
            model.retain(|name, _| !name.starts_with(key));
            true
        }
    }
}

/// The same step for the real one. `seen` is the index the model has before the transaction.
fn operation(step: &Step, value: &str, sessions: &[SessionId], seen: u64) -> Operation {
    let with = |flags| Content { flags, ..content(value) };
    let index = |right: bool| if right { seen } else { seen + 1_000_000 };
    match step {
        Step::Set(flags) => Operation::Set(with(*flags)),
        Step::Cas(right) => Operation::Cas(with(0), index(*right)),
        Step::Lock(session) => Operation::Lock(with(0), sessions[*session].clone()),
        Step::Unlock(session) => Operation::Unlock(with(0), sessions[*session].clone()),
        Step::Get => Operation::Get,
        Step::CheckIndex(right) => Operation::CheckIndex(index(*right)),
        Step::CheckNotExists => Operation::CheckNotExists,
        Step::Delete => Operation::Delete,
        Step::DeleteCas(right) => Operation::DeleteCas(index(*right)),
        Step::DeleteTree => Operation::DeleteTree,
    }
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step, u8)>> {
    let one = prop_oneof![
        3 => (0..2u64).prop_map(Step::Set),
        2 => any::<bool>().prop_map(Step::Cas),
        3 => (0..2usize).prop_map(Step::Lock),
        2 => (0..2usize).prop_map(Step::Unlock),
        1 => Just(Step::Get),
        1 => any::<bool>().prop_map(Step::CheckIndex),
        1 => Just(Step::CheckNotExists),
        1 => Just(Step::Delete),
        1 => any::<bool>().prop_map(Step::DeleteCas),
        1 => Just(Step::DeleteTree),
    ];
    // A key comes once in a transaction: the index of what it wrote itself is not known to its client.
    proptest::collection::vec((0..KEYS.len(), one, 0..3u8), 1..4).prop_filter("keys repeat", |steps| {
        let mut keys: Vec<_> = steps.iter().map(|(key, ..)| KEYS[*key]).collect();
        keys.sort_unstable();
        keys.windows(2).all(|pair| !pair[1].starts_with(pair[0]))
    })
}

const KEYS: [&str; 5] = ["a", "a/b", "a/c", "b", "é"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_transactions_do_what_the_model_does(all in proptest::collection::vec(steps(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let Fixture { kv, store, .. } = open().await;
            let mut sessions = Vec::new();
            for _ in 0..2 {
                let wish = Wish {
                    name: String::new(),
                    node: "n1".to_owned(),
                    ttl: String::new(),
                    lock_delay: Duration::ZERO,
                    behavior: String::new(),
                    node_checks: Vec::new(),
                    service_checks: Vec::new(),
                };
                sessions.push(kv.create_session(wish).await.unwrap());
            }
            let mut model = Model::new();
            for steps in &all {
                let now = store.load("").await.unwrap().revision + 1;
                let mut after = model.clone();
                let mut held = true;
                let mut operations = Vec::new();
                for (key, what, value) in steps {
                    let (key, value) = (KEYS[*key], value.to_string());
                    let seen = model.get(key).map_or(0, |known| known.modified);
                    operations.push((key.to_owned(), operation(what, &value, &sessions, seen)));
                    held &= step(&mut after, key, what, &value, &sessions, now);
                }
                let before = KEYS.map(|name| (kv.index(&key(name)), kv.index(&prefix(name))));
                let outcome = kv.apply(operations.clone()).await.unwrap();
                assert_eq!(outcome.is_ok(), held, "{operations:?} on {model:?}: {outcome:?}");
                if held {
                    model = after;
                }
                let shown: Model = kv.list("").iter().map(|entry| (entry.key.clone(), known(entry))).collect();
                assert_eq!(shown, model, "after {operations:?}");
                for (name, (of_key, of_prefix)) in KEYS.iter().zip(before) {
                    assert!(kv.index(&key(name)) >= of_key && kv.index(&prefix(name)) >= of_prefix);
                }
            }
            // What is kept reads back as the same.
            let again = open_on(store).await.kv;
            let shown: Model = again.list("").iter().map(|entry| (entry.key.clone(), known(entry))).collect();
            assert_eq!(shown, model, "after a restart");
        });
    }
}

fn known(entry: &Entry) -> Known {
    Known {
        value: String::from_utf8(entry.value.to_vec()).unwrap(),
        flags: entry.flags,
        lock_index: entry.lock_index,
        session: entry.session.clone(),
        modified: entry.modified,
    }
}
