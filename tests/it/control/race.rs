//! One token and two hundred who want it: exactly one public key is ever certified, whatever happens to
//! the server in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use weft::ca::{self, Ca, CaError};
use weft::control::Settings;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::store::{Image, MemoryStore, Revision, Store, StoreFuture, Txn, Watch};
use weft::tls::KeyRequest;

use super::enrol::anonymous;
use super::{Options, Plane, name, within};

const CLAIMANTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_claimants_one_gets_the_certificate() {
    let plane = Plane::with(Options { control: Settings::default(), ..Options::default() }).await;
    let token = plane.ca.create_token(vec![name("web")], Duration::from_secs(600), 1).await.unwrap();
    let keys: Vec<_> = (0..CLAIMANTS).map(|_| KeyRequest::generate().unwrap()).collect();
    let channels = join_all((0..4).map(|_| anonymous(&plane))).await;
    let claim = |number: usize| {
        let mut client = IdentityClient::new(channels[number % channels.len()].clone());
        let (token, service) = (token.clone(), "web".to_owned());
        let request = pb::EnrolRequest { token, service, csr: keys[number].csr.clone() };
        async move {
            loop {
                match client.enrol(request.clone()).await {
                    Ok(_) => return true,
                    // Too many at once is no answer to the question.
                    Err(status) if status.message().contains("at once") => {}
                    Err(_) => return false,
                }
            }
        }
    };
    let granted = within("the race", join_all((0..CLAIMANTS).map(claim))).await;
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1);
    let winner = granted.iter().position(|granted| *granted).unwrap();
    assert!(claim(winner).await, "its answer may have been lost");
    assert!(!claim((winner + 1) % CLAIMANTS).await);
}

/// A store whose commits succeed and are never heard of: the machine dies right after the write.
struct Dying {
    inner: Arc<MemoryStore>,
    armed: AtomicBool,
    died: Notify,
}

impl Store for Dying {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image> {
        self.inner.load(prefix)
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, weft::store::Outcome> {
        Box::pin(async move {
            let outcome = self.inner.commit(txn).await;
            if self.armed.load(Ordering::SeqCst) {
                self.died.notify_one();
                std::future::pending::<()>().await;
            }
            outcome
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        self.inner.watch(prefix, after)
    }
}

async fn open(store: Arc<dyn Store>) -> Ca {
    let settings = ca::Settings {
        datacenter: "dc1".to_owned(),
        server_id: "s1".to_owned(),
        leaf_ttl: Duration::from_secs(3600),
    };
    Ca::open(store, settings).await.unwrap()
}

/// Dies between the use of the token and the answer; the one whose use was written comes again.
#[tokio::test]
async fn a_server_that_dies_between_use_and_answer_certifies_no_second_key() {
    let inner = Arc::new(MemoryStore::new());
    let dying = Arc::new(Dying {
        inner: Arc::clone(&inner),
        armed: AtomicBool::new(false),
        died: Notify::new(),
    });
    let server = open(Arc::clone(&dying) as _).await;
    let token = server.create_token(vec![name("web")], Duration::from_secs(600), 1).await.unwrap();
    let keys: Vec<_> = (0..CLAIMANTS).map(|_| KeyRequest::generate().unwrap()).collect();
    dying.armed.store(true, Ordering::SeqCst);
    let service = name("web");
    {
        let claims = keys.iter().map(|key| server.enrol(&token, &service, &key.csr));
        let race = join_all(claims);
        tokio::select! {
            _ = race => panic!("somebody was answered by the dead"),
            () = dying.died.notified() => {}
        }
    }
    drop(server);
    let server = open(inner).await;
    let claims = keys.iter().map(|key| server.enrol(&token, &service, &key.csr));
    let granted = join_all(claims).await;
    assert_eq!(granted.iter().filter(|leaf| leaf.is_ok()).count(), 1);
    let refused = granted.iter().filter(|leaf| matches!(leaf, Err(CaError::TokenRefused)));
    assert_eq!(refused.count(), CLAIMANTS - 1);
}

/// The same for a renewal: the rightful holder is not locked out, and nobody else gets in.
#[tokio::test]
async fn a_server_that_dies_between_generation_and_answer_locks_nobody_out() {
    let inner = Arc::new(MemoryStore::new());
    let dying = Arc::new(Dying {
        inner: Arc::clone(&inner),
        armed: AtomicBool::new(false),
        died: Notify::new(),
    });
    let server = open(Arc::clone(&dying) as _).await;
    let key = || KeyRequest::generate().unwrap().csr;
    let first = server.admit(&name("web"), &key()).await.unwrap();
    dying.armed.store(true, Ordering::SeqCst);
    let (next, other) = (key(), key());
    tokio::select! {
        _ = server.renew(&first.id, &first.serial, &next) => panic!("answered by the dead"),
        () = dying.died.notified() => {}
    }
    drop(server);
    let server = open(inner).await;
    let refused = server.renew(&first.id, &first.serial, &other).await.unwrap_err();
    assert!(matches!(refused, CaError::NotRenewed { .. }), "{refused}");
    let second = server.renew(&first.id, &first.serial, &next).await.unwrap();
    server.renew(&second.id, &second.serial, &key()).await.unwrap();
}
