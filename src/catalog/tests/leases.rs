//! Leases: who goes when, and who stays.

use super::*;
use crate::store::RedbStore;

const TTL: Duration = Duration::from_secs(10);

fn known(catalog: &Catalog, id: &str) -> bool {
    catalog.instance(&n1(), &instance(id)).is_some()
}

async fn lease_with(catalog: &Catalog, id: &str) -> LeaseId {
    let lease = catalog.grant_lease(TTL).await.unwrap();
    catalog.register(expand(&meshed("web", id)), Owner::Lease(lease), Unlisted::Remove).await.unwrap();
    lease
}

#[tokio::test(start_paused = true)]
async fn an_instance_goes_with_its_lease_and_not_before() {
    let c = open().await;
    let lease = lease_with(&c, "web-1").await;
    add(&c, plain("web", "web-2")).await;
    for _ in 0..5 {
        tokio::time::sleep(TTL - Duration::from_millis(1)).await;
        assert!(known(&c, "web-1"));
        assert_eq!(c.keep_alive(lease).await.unwrap(), TTL);
    }
    let topic = Topic::Service(service("web"));
    let before = c.position().revision;
    c.wait(&topic, c.index(&topic), 2 * TTL).await;
    assert!(!known(&c, "web-1") && !known(&c, "web-1-sidecar-proxy") && known(&c, "web-2"));
    assert_eq!(c.position().revision, before + 1, "all in one transaction");
    let ids: Vec<_> = c.checks_on(&n1()).iter().map(|record| record.check.id.clone()).collect();
    assert_eq!(ids, ["serfHealth", "service:web-2"]);
    assert!(matches!(c.keep_alive(lease).await, Err(CatalogError::NoLease(_))));
    let late = c.register(expand(&plain("web", "web-3")), Owner::Lease(lease), Unlisted::Remove).await;
    assert!(matches!(late, Err(CatalogError::NoLease(_))));
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_takes_nothing_that_belongs_to_another() {
    let c = open().await;
    lease_with(&c, "web-1").await;
    lease_with(&c, "web-2").await;
    let index = c.index(&Topic::Services);
    let other = c.grant_lease(10 * TTL).await.unwrap();
    c.register(expand(&meshed("web", "web-1")), Owner::Lease(other), Unlisted::Remove).await.unwrap();
    c.register(expand(&meshed("web", "web-2")), Owner::Permanent, Unlisted::Remove).await.unwrap();
    assert_eq!(c.index(&Topic::Services), index, "a new owner is no change of the service");
    tokio::time::sleep(2 * TTL).await;
    assert!(known(&c, "web-1") && known(&c, "web-2"));
    c.revoke_lease(other).await.unwrap();
    assert!(!known(&c, "web-1") && known(&c, "web-2"));
    assert!(matches!(c.revoke_lease(other).await, Err(CatalogError::NoLease(_))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stood_still_ends_no_lease() {
    let c = open().await;
    let lease = lease_with(&c, "web-1").await;
    // Lets the task begin to sleep.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    tokio::time::advance(10 * TTL).await;
    tokio::time::sleep(TTL / 2).await;
    assert!(known(&c, "web-1"), "nobody could be heard while the process stood still");
    c.keep_alive(lease).await.unwrap();
    tokio::time::sleep(2 * TTL).await;
    assert!(!known(&c, "web-1"));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_lease_has_a_full_period() {
    let store = Arc::new(MemoryStore::new());
    let first = open_on(&store).await;
    lease_with(&first, "web-1").await;
    tokio::time::sleep(TTL - Duration::from_secs(1)).await;
    drop(first);
    tokio::time::sleep(5 * TTL).await;
    let second = open_on(&store).await;
    tokio::time::sleep(TTL - Duration::from_secs(1)).await;
    assert!(known(&second, "web-1"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!known(&second, "web-1"));
}

#[tokio::test]
async fn a_durable_store_keeps_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let interest = interest(&["web", "db"], &["web"]);
    let (before, position, intention) = {
        let store = Arc::new(RedbStore::open(&path).await.unwrap());
        let c = Catalog::open(Arc::clone(&store) as Arc<dyn Store>, settings()).await.unwrap();
        lease_with(&c, "web-1").await;
        add(&c, meshed("db", "db-1")).await;
        report(&c, "service:db-1", CheckStatus::Warning, "slow").await;
        let intention = allow(&c, "db", "web", Action::Deny).await;
        let seen = (fresh(&c, &interest), c.position(), intention);
        drop(c);
        tokio::time::timeout(DEADLINE, async {
            while Arc::strong_count(&store) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the tasks let go of the store");
        seen
    };
    let store = RedbStore::open(&path).await.unwrap();
    let c = Catalog::open(Arc::new(store), settings()).await.unwrap();
    assert_eq!(fresh(&c, &interest), before);
    assert_eq!(*c.intentions()[0].0, intention);
    let record = c.checks_on(&n1()).into_iter().find(|r| r.check.id == "service:db-1").unwrap();
    assert_eq!((record.check.status, record.check.output.as_str()), (CheckStatus::Warning, "slow"));
    let resumed = c.subscribe(interest).resume(position).expect("a current reader resumes");
    assert_eq!(resumed.changes.len(), 1, "and hears the default only: {:?}", resumed.changes);
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_of_an_ended_lease_goes_at_start() {
    let store = Arc::new(MemoryStore::new());
    let first = open_on(&store).await;
    let lease = lease_with(&first, "web-1").await;
    drop(first);
    let key = format!("catalog/lease/{lease:016x}");
    let txn = Txn { conditions: vec![], ops: vec![Op::Delete { key }] };
    store.commit(txn).await.unwrap();
    let second = open_on(&store).await;
    let topic = Topic::Service(service("web"));
    tokio::time::timeout(DEADLINE, async {
        while known(&second, "web-1") {
            second.wait(&topic, second.index(&topic), Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the orphan goes");
}

#[tokio::test]
async fn a_lease_has_bounds() {
    let c = open().await;
    for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(86_401)] {
        assert!(matches!(c.grant_lease(ttl).await, Err(CatalogError::Invalid(_))), "{ttl:?}");
    }
}
