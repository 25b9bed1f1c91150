//! Sessions: how they begin, hold locks and end.

use tokio::time::{Instant, sleep};

use super::*;
use crate::catalog::{Owner, Unlisted};
use crate::model::{
    CheckDefinition, CheckKind, CheckReport, CheckStatus, Definition, InstanceId, ServiceName,
};

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn wish() -> Wish {
    Wish {
        name: "s".to_owned(),
        node: "n1".to_owned(),
        ttl: String::new(),
        lock_delay: Duration::ZERO,
        behavior: String::new(),
        node_checks: vec!["serfHealth".to_owned()],
        service_checks: Vec::new(),
    }
}

async fn begin(kv: &Kv, change: impl FnOnce(&mut Wish)) -> SessionId {
    let mut wish = wish();
    change(&mut wish);
    kv.create_session(wish).await.unwrap()
}

async fn lock(kv: &Kv, key: &str, session: &str) -> Outcome {
    one(kv, key, Operation::Lock(content("locked"), session.to_owned())).await
}

fn holder(kv: &Kv, key: &str) -> Option<SessionId> {
    kv.get(key).and_then(|entry| entry.session.clone())
}

/// Waits until a session is gone.
async fn ended(kv: &Kv, id: &str) {
    let gone = async {
        while kv.session(id).is_some() {
            kv.changed(&Subject::Sessions, kv.index(&Subject::Sessions)).await;
        }
    };
    tokio::time::timeout(200 * DEADLINE, gone).await.expect("the session does not end");
}

#[tokio::test]
async fn one_session_holds_a_lock_at_a_time() {
    let Fixture { kv, .. } = open().await;
    let (a, b) = (begin(&kv, |_| {}).await, begin(&kv, |_| {}).await);
    let taken = lock(&kv, "l", &a).await.unwrap().remove(0);
    assert_eq!((taken.lock_index, taken.session.as_ref()), (1, Some(&a)));
    assert_eq!(lock(&kv, "l", &b).await, Err(vec![(0, Refusal::Held("l".to_owned()))]));
    // Again by its holder: the value is new, the lock is not.
    let again = one(&kv, "l", Operation::Lock(content("2"), a.clone())).await.unwrap().remove(0);
    assert_eq!(again.lock_index, 1);
    // A plain write leaves the lock alone.
    let plain = set(&kv, "l", "3").await;
    assert_eq!((plain.session, plain.lock_index), (Some(a.clone()), 1));
    let foreign = one(&kv, "l", Operation::Unlock(content("4"), b.clone())).await;
    assert_eq!(foreign, Err(vec![(0, Refusal::NotHeld("l".to_owned()))]));
    let given = one(&kv, "l", Operation::Unlock(content("5"), a.clone())).await.unwrap().remove(0);
    assert_eq!((given.session, given.lock_index), (None, 1));
    assert_eq!(lock(&kv, "l", &b).await.unwrap()[0].lock_index, 2);
    for (session, refusal) in
        [("", Refusal::MissingSession), ("nobody", Refusal::InvalidSession("nobody".to_owned()))]
    {
        assert_eq!(lock(&kv, "m", session).await, Err(vec![(0, refusal)]));
    }
}

#[tokio::test]
async fn the_end_of_a_session_releases_or_deletes() {
    let Fixture { kv, .. } = open().await;
    let release = begin(&kv, |_| {}).await;
    let delete = begin(&kv, |wish| wish.behavior = "delete".to_owned()).await;
    lock(&kv, "r", &release).await.unwrap();
    lock(&kv, "d/1", &delete).await.unwrap();
    lock(&kv, "d/2", &delete).await.unwrap();
    let index = kv.index(&key("r"));
    kv.end_session(&release).await.unwrap();
    assert_eq!((holder(&kv, "r"), value(&kv, "r").as_deref()), (None, Some("locked")));
    assert!(kv.index(&key("r")) > index);
    kv.end_session(&delete).await.unwrap();
    assert!(kv.list("d/").is_empty());
    assert_eq!(kv.index(&key("d/1")), kv.index(&key("d/2")), "not in one commit");
    assert!(kv.sessions(None).is_empty() && kv.renew_session(&delete).is_none());
    kv.end_session("nobody").await.unwrap();
}

#[tokio::test]
async fn large_locked_values_are_released_in_steps() {
    let Fixture { kv, .. } = open().await;
    let session = begin(&kv, |_| {}).await;
    for number in 0..40 {
        let large = Content { value: vec![1; limits::MAX_VALUE_BYTES].into(), flags: 0 };
        one(&kv, &format!("l/{number}"), Operation::Lock(large, session.clone())).await.unwrap();
    }
    kv.end_session(&session).await.unwrap();
    let entries = kv.list("l/");
    assert_eq!(entries.len(), 40);
    assert!(entries.iter().all(|entry| entry.session.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_is_free_only_after_its_delay() {
    let Fixture { kv, .. } = open().await;
    let (a, b) = (begin(&kv, |wish| wish.lock_delay = 15 * SECOND).await, begin(&kv, |_| {}).await);
    lock(&kv, "lost", &a).await.unwrap();
    lock(&kv, "given", &a).await.unwrap();
    one(&kv, "given", Operation::Unlock(content(""), a.clone())).await.unwrap();
    kv.end_session(&a).await.unwrap();
    lock(&kv, "given", &b).await.expect("what was given back is free at once");
    let refused = || async { lock(&kv, "lost", &b).await };
    assert_eq!(refused().await, Err(vec![(0, Refusal::Delayed("lost".to_owned()))]));
    set(&kv, "lost", "a plain write needs no lock").await;
    sleep(15 * SECOND - Duration::from_millis(1)).await;
    assert!(refused().await.is_err());
    sleep(Duration::from_millis(1)).await;
    assert!(refused().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_it_is_not_renewed_and_not_before() {
    let Fixture { kv, .. } = open().await;
    let session = begin(&kv, |wish| wish.ttl = "10s".to_owned()).await;
    let forever = begin(&kv, |_| {}).await;
    lock(&kv, "l", &session).await.unwrap();
    for _ in 0..5 {
        sleep(TTL - Duration::from_millis(1)).await;
        assert_eq!(kv.renew_session(&session).unwrap().id, session);
    }
    let last = Instant::now();
    ended(&kv, &session).await;
    assert!(last.elapsed() >= TTL && last.elapsed() <= TTL + SECOND, "{:?}", last.elapsed());
    assert_eq!(holder(&kv, "l"), None);
    assert!(kv.renew_session(&session).is_none() && kv.renew_session(&forever).is_some());
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_session_has_a_full_period() {
    let first = open().await;
    let session = begin(&first.kv, |wish| wish.ttl = "10s".to_owned()).await;
    lock(&first.kv, "l", &session).await.unwrap();
    sleep(TTL - SECOND).await;
    let store = Arc::clone(&first.store);
    drop(first);
    sleep(5 * TTL).await;
    let Fixture { kv, .. } = open_on(store).await;
    sleep(TTL - SECOND).await;
    assert_eq!(holder(&kv, "l"), Some(session.clone()));
    ended(&kv, &session).await;
    assert_eq!(holder(&kv, "l"), None);
}

async fn service_with_check(catalog: &Catalog) {
    let mut definition = Definition::new(ServiceName::new("web").unwrap(), 80).unwrap();
    let kind = CheckKind::Ttl { ttl: Duration::from_secs(60) };
    definition.checks.push(CheckDefinition {
        initial: CheckStatus::Passing,
        ..CheckDefinition::new("service:web".to_owned(), "alive".to_owned(), kind)
    });
    for node in ["n1", "n2"] {
        let registrations = definition.expand(&NodeName::new(node).unwrap(), 0).unwrap();
        catalog.register(registrations, Owner::Permanent, Unlisted::Remove).await.unwrap();
    }
}

async fn report(catalog: &Catalog, status: CheckStatus) {
    let report = CheckReport { id: "service:web".to_owned(), status, output: String::new() };
    catalog.report_checks(&catalog.settings().node, vec![report]).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_with_what_it_depends_on() {
    let Fixture { kv, catalog, .. } = open().await;
    service_with_check(&catalog).await;
    let web = |wish: &mut Wish| wish.service_checks = vec!["service:web".to_owned()];
    let (checked, other) = (begin(&kv, web).await, begin(&kv, |_| {}).await);
    let on_n2 = begin(&kv, |wish| wish.node = "n2".to_owned()).await;
    lock(&kv, "l", &checked).await.unwrap();
    report(&catalog, CheckStatus::Warning).await;
    assert!(kv.session(&checked).is_some());
    report(&catalog, CheckStatus::Critical).await;
    ended(&kv, &checked).await;
    assert_eq!(holder(&kv, "l"), None);
    let refused = kv.create_session(Wish { service_checks: vec!["service:web".to_owned()], ..wish() });
    let refused = refused.await.unwrap_err().to_string();
    assert_eq!(refused, "Check 'service:web' is in critical state");

    report(&catalog, CheckStatus::Passing).await;
    let checked = begin(&kv, web).await;
    let web = InstanceId::new("web").unwrap();
    catalog.deregister(&catalog.settings().node, &web).await.unwrap();
    ended(&kv, &checked).await;
    assert!(kv.session(&other).is_some() && kv.session(&on_n2).is_some());
    // The last thing on the other node, and so the node.
    catalog.deregister(&NodeName::new("n2").unwrap(), &web).await.unwrap();
    ended(&kv, &on_n2).await;
    assert!(kv.session(&other).is_some());
    let refused = kv.create_session(Wish { node: "n2".to_owned(), ..wish() }).await.unwrap_err();
    assert_eq!(refused.to_string(), "Missing node registration");
}
