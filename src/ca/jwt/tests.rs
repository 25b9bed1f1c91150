//! When keys come and go, and that several servers agree on them.

use super::keeper::maintain;
use super::*;
use crate::store::{MemoryStore, Store as _};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn start() -> SystemTime {
    UNIX_EPOCH + 20_000 * DAY
}

fn ids(keys: &Keys) -> Vec<String> {
    keys.keys.iter().map(|key| key.public.id().to_owned()).collect()
}

#[test]
fn a_key_is_known_before_it_signs_and_after_it_has_signed() {
    let first = Keys::create(start()).unwrap();
    let old = ids(&first)[0].clone();
    assert!(first.step(start()).unwrap().is_none());
    assert!(first.step(start() + 28 * DAY).unwrap().is_none());
    let both = first.step(start() + 29 * DAY).unwrap().expect("a successor is published");
    assert_eq!((both.version, both.keys.len()), (2, 2));
    assert!(both.step(start() + 29 * DAY).unwrap().is_none(), "once");
    let signs = |keys: &Keys, at| keys.active(at).unwrap().public.id().to_owned();
    assert_eq!(signs(&both, start() + 29 * DAY + 23 * HOUR), old, "not before it is known");
    assert_eq!(signs(&both, start() + 30 * DAY), ids(&both)[1]);
    assert!(both.step(start() + 30 * DAY + HOUR).unwrap().is_none(), "its last token lives");
    let one = both.step(start() + 30 * DAY + HOUR + SLACK).unwrap().expect("the old one goes");
    assert_eq!((one.version, ids(&one)), (3, ids(&both)[1..].to_vec()));
    // A clock that went back signs on.
    assert_eq!(signs(&one, start() - 5 * DAY), ids(&one)[0]);
}

#[test]
fn a_long_sleep_is_made_up_for() {
    let first = Keys::create(start()).unwrap();
    let late = start() + 400 * DAY;
    let both = first.step(late).unwrap().unwrap();
    assert_eq!(both.active(late).unwrap().public.id(), ids(&first)[0], "the new one is not known yet");
    let later = late + DAY + 2 * HOUR;
    assert_eq!(ids(&both.step(later).unwrap().unwrap()), ids(&both)[1..]);
}

#[tokio::test]
async fn servers_agree_on_the_keys_and_keep_them() {
    let store = MemoryStore::new();
    let (one, two) = tokio::join!(maintain(&store, start()), maintain(&store, start()));
    assert_eq!(ids(&one.unwrap().0), ids(&two.unwrap().0));
    let late = start() + 29 * DAY;
    let (one, two) = tokio::join!(maintain(&store, late), maintain(&store, late));
    let (one, two) = (one.unwrap().0, two.unwrap().0);
    assert_eq!((ids(&one), one.keys.len()), (ids(&two), 2));
    let image = store.load(KEY).await.unwrap();
    let again = Keys::decode(&image.entries[0].value).unwrap();
    assert_eq!((again.version, ids(&again)), (one.version, ids(&one)));
}

#[test]
fn a_damaged_document_is_not_taken() {
    let good = Keys::create(start()).unwrap().encode().unwrap();
    assert!(Keys::decode(&good).is_ok());
    let many = r#"{"version":1,"keys":[]}"#;
    let wrong = r#"{"version":1,"keys":[{"key":"AAAA","signs_from":1}]}"#;
    for text in ["", "{}", many, wrong] {
        assert!(Keys::decode(text.as_bytes()).is_err(), "{text}");
    }
}
