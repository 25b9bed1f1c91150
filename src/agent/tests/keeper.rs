//! What is published as the identity, and what is not.

use std::time::Duration;

use super::*;
use crate::ca::{self, Ca};
use crate::store::MemoryStore;
use crate::tls::KeyRequest;

async fn authority() -> Ca {
    let leaf_ttl = Duration::from_secs(3600);
    let settings = ca::Settings { datacenter: "dc1".to_owned(), server_id: "s1".to_owned(), leaf_ttl };
    Ca::open(Arc::new(MemoryStore::new()), settings).await.unwrap()
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

/// A certificate for `service`, installed for `web`.
fn install(keeper: &Keeper, ca: &Ca, service: &str) -> Result<Arc<Identity>, CertificateFault> {
    let key = KeyRequest::generate().unwrap();
    let id = ca.service_id(&ServiceName::new(service).unwrap()).unwrap();
    let leaf = ca.issue(&id, &key.csr).unwrap();
    let bundle = ca.bundle().borrow().as_ref().clone();
    keeper.install(leaf.chain, key.key, bundle, SystemTime::now())
}

fn version(bundle: &Bundle, version: u64) -> Bundle {
    Bundle { version, ..bundle.clone() }
}

#[tokio::test]
async fn only_what_fits_is_published() {
    let (ca, other) = (authority().await, authority().await);
    let (sink, published) = watch::channel(None);
    let keeper = Keeper::new(web(), sink);
    assert!(matches!(install(&keeper, &ca, "db"), Err(CertificateFault::Other { .. })));
    assert!(published.borrow().is_none());
    let first = install(&keeper, &ca, "web").unwrap();

    let key = KeyRequest::generate().unwrap();
    let leaf = other.issue(&other.service_id(&web()).unwrap(), &key.csr).unwrap();
    let ours = ca.bundle().borrow().as_ref().clone();
    keeper.install(leaf.chain, key.key, ours, SystemTime::now()).unwrap_err();
    assert_eq!(published.borrow().as_ref().unwrap().serial(), first.serial(), "the good one stays");

    let second = install(&keeper, &ca, "WEB").unwrap();
    assert_eq!(second.generation(), first.generation() + 1);
}

#[tokio::test]
async fn a_new_bundle_keeps_the_certificate() {
    let (ca, other) = (authority().await, authority().await);
    let (sink, published) = watch::channel(None);
    let keeper = Keeper::new(web(), sink);
    let first = install(&keeper, &ca, "web").unwrap();
    let bundle = ca.bundle().borrow().as_ref().clone();
    let now = SystemTime::now();

    keeper.accept_bundle(&bundle, now).unwrap();
    let current = || published.borrow().clone().unwrap();
    assert_eq!(current().generation(), first.generation(), "nothing is new");

    let mut grown = version(&bundle, bundle.version + 1);
    grown.roots.extend(other.bundle().borrow().roots.iter().cloned());
    keeper.accept_bundle(&grown, now).unwrap();
    assert_eq!(current().generation(), first.generation() + 1);
    assert_eq!(current().serial(), first.serial());
    assert_eq!(keeper.bundle_version(), bundle.version + 1);
    keeper.accept_bundle(&bundle, now).unwrap();
    assert_eq!(keeper.bundle_version(), bundle.version + 1, "an older one is not news");

    // The root of the own certificate is gone: refused, and another certificate is asked for.
    let mut retired = version(&bundle, bundle.version + 2);
    retired.roots.clone_from(&other.bundle().borrow().roots);
    keeper.accept_bundle(&retired, now).unwrap_err();
    assert_eq!(keeper.bundle_version(), bundle.version + 1);
    tokio::time::timeout(Duration::from_secs(1), keeper.renew_now.notified()).await.unwrap();
}
