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
    let ring = Keyring::default();
    let maintain = |at| maintain(&store, &ring, at);
    let (one, two) = tokio::join!(maintain(start()), maintain(start()));
    assert_eq!(ids(&one.unwrap().0), ids(&two.unwrap().0));
    let late = start() + 29 * DAY;
    let (one, two) = tokio::join!(maintain(late), maintain(late));
    let (one, two) = (one.unwrap().0, two.unwrap().0);
    assert_eq!((ids(&one), one.keys.len()), (ids(&two), 2));
    let image = store.load(KEY).await.unwrap();
    let (again, is_current) = Keys::decode(&image.entries[0].value, &ring).unwrap();
    assert_eq!((again.version, ids(&again), is_current), (one.version, ids(&one), true));
}

#[tokio::test]
async fn keys_are_sealed_once_there_is_something_to_seal_with() {
    let store = MemoryStore::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "ab".repeat(32)).unwrap();
    let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, only_ours).unwrap();
    let sealing = Keyring::read(&file).unwrap();
    let (plain, _) = maintain(&store, &Keyring::default(), start()).await.unwrap();
    let (sealed, _) = maintain(&store, &sealing, start()).await.unwrap();
    assert_eq!(ids(&plain), ids(&sealed), "the same key, written anew");
    let image = store.load(KEY).await.unwrap();
    let text = std::str::from_utf8(&image.entries[0].value).unwrap();
    assert!(text.contains("sealed:"), "{text}");
    assert!(Keys::decode(text.as_bytes(), &Keyring::default()).is_err());
    // Under another's name it does not open.
    let renamed = text.replace(&ids(&sealed)[0], &"0".repeat(32));
    assert!(Keys::decode(renamed.as_bytes(), &sealing).is_err());
}

#[test]
fn a_damaged_document_is_not_taken() {
    let ring = Keyring::default();
    let good = Keys::create(start()).unwrap().encode(&ring).unwrap();
    assert!(Keys::decode(&good, &ring).is_ok());
    let many = r#"{"version":1,"keys":[]}"#;
    let wrong = r#"{"version":1,"keys":[{"id":"k","key":"AAAA","signs_from":1}]}"#;
    for text in ["", "{}", many, wrong] {
        assert!(Keys::decode(text.as_bytes(), &ring).is_err(), "{text}");
    }
}
