//! The catalog over a store, as its callers use it.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::model::{
    Check, CheckDefinition, CheckKind, CheckReport, Definition, InstanceId, Intention, Party, Position,
    Registration, Sidecar, Snapshot,
};
use crate::store::{Image, MemoryStore, Op, Outcome, StoreFuture, Txn, Watch};

mod indexes;
mod leases;
mod races;
mod random;
mod registrations;
mod sidecars;

/// Longest wait for something that has to happen. Never waited for in full.
const DEADLINE: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings {
        datacenter: "dc1".to_owned(),
        node: n1(),
        node_address: "10.0.0.1".to_owned(),
        default_action: Action::Allow,
    }
}

async fn open() -> Catalog {
    open_on(&Arc::new(MemoryStore::new())).await
}

async fn open_on(store: &Arc<MemoryStore>) -> Catalog {
    Catalog::open(Arc::clone(store) as Arc<dyn Store>, settings()).await.unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn instance(id: &str) -> InstanceId {
    InstanceId::new(id).unwrap()
}

fn n1() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn party(name: &str) -> Party {
    Party::parse(name).unwrap()
}

fn check(id: &str, initial: CheckStatus) -> CheckDefinition {
    CheckDefinition {
        id: id.to_owned(),
        name: id.to_owned(),
        notes: String::new(),
        kind: CheckKind::Ttl { ttl: Duration::from_secs(10) },
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        initial,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }
}

/// A service with one passing check of its own id.
fn plain(name: &str, id: &str) -> Definition {
    let mut definition = Definition::new(service(name), 5000).unwrap();
    definition.id = instance(id);
    definition.checks = vec![check(&format!("service:{id}"), CheckStatus::Passing)];
    definition
}

/// The same with a sidecar that has one passing check.
fn meshed(name: &str, id: &str) -> Definition {
    let mut definition = plain(name, id);
    let checks = vec![check(&format!("service:{id}-sidecar-proxy"), CheckStatus::Passing)];
    definition.sidecar = Some(Sidecar { checks, ..Sidecar::default() });
    definition
}

fn expand(definition: &Definition) -> Vec<Registration> {
    definition.expand(&n1(), 21000).unwrap()
}

async fn add(catalog: &Catalog, definition: impl Borrow<Definition>) -> Revision {
    catalog.register(expand(definition.borrow()), Owner::Permanent, Unlisted::Remove).await.unwrap()
}

async fn remove(catalog: &Catalog, id: &str) -> bool {
    catalog.deregister(&n1(), &instance(id)).await.unwrap()
}

async fn report(catalog: &Catalog, id: &str, status: CheckStatus, output: &str) {
    let report = CheckReport { id: id.to_owned(), status, output: output.to_owned() };
    catalog.report_checks(&n1(), vec![report]).await.unwrap();
}

async fn allow(catalog: &Catalog, source: &str, destination: &str, action: Action) -> Intention {
    let meta = BTreeMap::new();
    let put = catalog.put_intention(party(source), party(destination), action, String::new(), meta);
    put.await.unwrap()
}

fn interest(services: &[&str], destinations: &[&str]) -> Interest {
    let set = |names: &[&str]| names.iter().map(|name| service(name)).collect();
    Interest { services: set(services), destinations: set(destinations) }
}

fn apply(snapshot: &mut Snapshot, batch: Batch) {
    if batch.snapshot {
        *snapshot = Snapshot::default();
    }
    snapshot.position = batch.position;
    for change in batch.changes {
        snapshot.apply(change);
    }
}

/// What a new reader of this interest sees.
fn fresh(catalog: &Catalog, interest: &Interest) -> Snapshot {
    let mut snapshot = Snapshot::default();
    apply(&mut snapshot, catalog.subscribe(interest.clone()).snapshot());
    snapshot
}

#[tokio::test]
async fn a_server_registers_its_node_once() {
    let store = Arc::new(MemoryStore::new());
    let first = open_on(&store).await.nodes();
    let second = open_on(&store).await;
    assert_eq!(second.nodes()[0].id, first[0].id);
    assert_eq!(second.position().revision, 1, "nothing was written the second time");
    assert_eq!(second.nodes()[0].address, "10.0.0.1");
    let checks = second.checks_on(&n1());
    assert_eq!((checks.len(), checks[0].check.id.as_str()), (1, "serfHealth"));
    assert_eq!(checks[0].check.status, CheckStatus::Passing);
}

#[tokio::test]
async fn two_servers_on_one_store_see_each_others_writes() {
    let store = Arc::new(MemoryStore::new());
    let (one, two) = (open_on(&store).await, open_on(&store).await);
    let topic = Topic::Service(service("db"));
    let index = two.index(&topic);
    let (_, seen) = tokio::join!(add(&one, meshed("db", "db-1")), two.wait(&topic, index, DEADLINE));
    assert!(seen > index);
    assert_eq!(two.health(&service("db")).len(), 1);
    // Writers that do not know of each other yet.
    for _ in 0..20 {
        let flip = |catalog: Catalog, status| async move {
            report(&catalog, "service:db-1", status, "").await;
        };
        tokio::join!(
            flip(one.clone(), CheckStatus::Critical),
            flip(two.clone(), CheckStatus::Warning),
            flip(one.clone(), CheckStatus::Passing),
        );
    }
    let revision = one.position().revision.max(two.position().revision);
    let caught_up = async {
        while one.position().revision.min(two.position().revision) < revision {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, caught_up).await.expect("both catch up");
    let both = interest(&["db"], &[]);
    assert_eq!(fresh(&one, &both), fresh(&two, &both));
}

#[tokio::test]
async fn tasks_end_with_the_last_handle() {
    let store = Arc::new(MemoryStore::new());
    let catalog = open_on(&store).await;
    let subscription = catalog.subscribe(Interest::default());
    drop(catalog);
    tokio::task::yield_now().await;
    assert!(Arc::strong_count(&store) > 1, "a subscription keeps the catalog alive");
    drop(subscription);
    tokio::time::timeout(DEADLINE, async {
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the tasks let go of the store");
}

/// Commits directly, without letting any task run.
fn commit_at_once(store: &MemoryStore, ops: Vec<Op>) {
    let txn = Txn { conditions: Vec::new(), ops };
    let outcome = store.commit(txn).now_or_never().expect("a memory store never waits").unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
}

#[tokio::test]
async fn a_catalog_that_fell_behind_the_log_of_the_store_lists_anew() {
    let store = Arc::new(MemoryStore::new());
    let c = open_on(&store).await;
    add(&c, meshed("db", "db-1")).await;
    let mut reader = c.subscribe(interest(&["db"], &[]));
    let mut snapshot = Snapshot::default();
    apply(&mut snapshot, reader.snapshot());
    let gone = |key: &str| Op::Delete { key: format!("catalog/{key}") };
    commit_at_once(&store, vec![gone("inst/n1/db-1"), gone("check/n1/service:db-1")]);
    let other: Vec<_> =
        (0..60_000).map(|n| Op::Put { key: format!("other/{n}"), value: Bytes::new() }).collect();
    commit_at_once(&store, other.clone());
    commit_at_once(&store, other);
    assert!(matches!(store.watch("", 3).await, Err(StoreError::Compacted(3))));
    add(&c, meshed("db", "db-2")).await;
    assert!(c.health(&service("db")).iter().all(|entry| entry.instance.instance.id != instance("db-1")));
    apply(&mut snapshot, reader.take());
    assert_eq!(snapshot, fresh(&c, &interest(&["db"], &[])));
}

#[tokio::test]
async fn a_damaged_record_is_an_error_at_start_and_is_left_out_later() {
    let store = Arc::new(MemoryStore::new());
    let c = open_on(&store).await;
    let damaged = Op::Put { key: "catalog/inst/n1/web".to_owned(), value: Bytes::from_static(b"{}") };
    commit_at_once(&store, vec![damaged]);
    let again = Catalog::open(Arc::clone(&store) as Arc<dyn Store>, settings()).await;
    let error = again.err().expect("it cannot be read").to_string();
    assert!(error.contains("catalog/inst/n1/web"), "{error}");
    add(&c, plain("web", "web")).await;
    assert_eq!(c.health(&service("web")).len(), 1, "and it can be replaced");
}

/// A store whose disk fails.
struct Failing {
    inner: MemoryStore,
    failed: std::sync::atomic::AtomicBool,
}

impl Store for Failing {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image> {
        self.inner.load(prefix)
    }
    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome> {
        if self.failed.load(std::sync::atomic::Ordering::SeqCst) {
            return Box::pin(async { Err(StoreError::Stopped("the disk is broken".to_owned())) });
        }
        self.inner.commit(txn)
    }
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        self.inner.watch(prefix, after)
    }
}

#[tokio::test]
async fn without_its_store_the_catalog_still_reads() {
    let store = Arc::new(Failing { inner: MemoryStore::new(), failed: false.into() });
    let c = Catalog::open(Arc::clone(&store) as Arc<dyn Store>, settings()).await.unwrap();
    add(&c, meshed("db", "db-1")).await;
    store.failed.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = c.register(expand(&plain("db", "db-2")), Owner::Permanent, Unlisted::Remove).await;
    assert!(matches!(refused, Err(CatalogError::Store(StoreError::Stopped(_)))), "{refused:?}");
    assert_eq!(c.health(&service("db")).len(), 1);
    assert_eq!(fresh(&c, &interest(&["db"], &[])).services[&service("db")].endpoints.len(), 1);
}
