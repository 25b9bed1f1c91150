//! The authority over a store in memory.

mod custody;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::time::timeout;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::Authority;
use super::document::KEY;
use super::*;
use crate::store::{Image, MemoryStore, Op, Outcome, RedbStore, Revision, StoreFuture, Txn, Watch};
use crate::tls::testing::handshake;
use crate::tls::{self, Identity, KeyRequest};

/// Longest wait for something that is to happen at once.
const DEADLINE: Duration = Duration::from_secs(10);

/// A store in memory that yields in every call, so that racing tasks interleave, and that fails in
/// chosen ways.
#[derive(Default)]
struct UnreliableStore {
    inner: MemoryStore,
    /// Commits fail while it is set.
    broken: AtomicBool,
    /// The next load answers as if nothing had been written yet.
    stale: AtomicBool,
    /// The next watch is told that it comes too late.
    compacted: AtomicBool,
}

impl Store for UnreliableStore {
    fn load<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Image> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut image = self.inner.load(prefix).await?;
            if self.stale.swap(false, Ordering::Relaxed) {
                image.entries.clear();
            }
            Ok(image)
        })
    }

    fn commit(&self, txn: Txn) -> StoreFuture<'_, Outcome> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.broken.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped("no space".into()));
            }
            self.inner.commit(txn).await
        })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> StoreFuture<'a, Watch> {
        Box::pin(async move {
            if self.compacted.swap(false, Ordering::Relaxed) {
                return Err(StoreError::Compacted(after));
            }
            self.inner.watch(prefix, after).await
        })
    }
}

async fn holds(store: &UnreliableStore, text: &str) -> bool {
    let inside = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let entries = store.load("").await.unwrap().entries;
    assert!(!entries.is_empty());
    entries.iter().any(|entry| inside(entry.key.as_bytes()) || inside(&entry.value))
}

fn settings() -> Settings {
    Settings {
        datacenter: "dc1".into(),
        server_id: "server-1".into(),
        leaf_ttl: Duration::from_secs(60),
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

async fn open(store: &Arc<UnreliableStore>) -> Ca {
    Ca::open(Arc::clone(store) as Arc<dyn Store>, settings()).await.unwrap()
}

fn csr() -> Vec<u8> {
    KeyRequest::generate().unwrap().csr
}

fn public_key(leaf: &Leaf) -> Vec<u8> {
    let (_, parsed) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    parsed.public_key().raw.to_vec()
}

#[tokio::test]
async fn an_issued_leaf_makes_an_identity() {
    let ca = open(&Arc::default()).await;
    let request = KeyRequest::generate().unwrap();
    let id = ca.service_id(&name("Web")).unwrap();
    let leaf = ca.issue(&id, &request.csr).unwrap();
    let bundle = ca.bundle().borrow().clone();
    let identity = Identity::new(1, leaf.chain, &request.key, &bundle, SystemTime::now()).unwrap();
    assert_eq!(*identity.id(), id);
    assert_eq!(identity.serial(), leaf.serial);
    assert_eq!((identity.not_before(), identity.not_after()), (leaf.not_before, leaf.not_after));
}

#[tokio::test]
async fn a_sidecar_enrols_knowing_only_its_token() {
    let ca = open(&Arc::default()).await;
    let material = ca.server_material().unwrap();
    let bundle = ca.bundle().borrow().clone();
    let now = SystemTime::now();
    let server =
        tls::grpc_server_config(material.chain, &material.key, &bundle, &tls::BanList::default(), now)
            .unwrap();
    let token = ca.create_token(vec![name("web")], Duration::from_secs(60), 1).await.unwrap();
    let pin = Token::parse(&token).unwrap().pin().to_owned();
    assert_eq!(pin, ca.root_pin());
    assert!(handshake(&tls::bootstrap_config(Some(&pin)), &server).completed());
    assert!(handshake(&tls::bootstrap_config(None), &server).completed());
    let other = open(&Arc::default()).await.root_pin();
    assert!(!handshake(&tls::bootstrap_config(Some(&other)), &server).completed());

    let request = KeyRequest::generate().unwrap();
    let leaf = ca.enrol(&token, &name("web"), &request.csr).await.unwrap();
    let identity = Identity::new(1, leaf.chain, &request.key, &bundle, now).unwrap();
    assert!(handshake(&identity.control_config(), &server).completed());
}

#[tokio::test]
async fn ordinary_tls_clients_accept_the_server_on_loopback() {
    let ca = open(&Arc::default()).await;
    let material = ca.server_material().unwrap();
    let leaf = CertificateDer::from(material.chain[0].clone());
    let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
    for host in ["localhost", "127.0.0.1", "::1"] {
        let host = ServerName::try_from(host).unwrap();
        leaf.verify_is_valid_for_subject_name(&host).unwrap();
    }
    let id = tls::peer_id(Some(&[CertificateDer::from(material.chain[0].clone())])).unwrap();
    assert!(id.is_server() && id.is_member_of(ca.trust_domain()), "{id}");
}

#[tokio::test]
async fn servers_that_start_together_agree_on_one_root() {
    let store = Arc::<UnreliableStore>::default();
    let servers: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn({
                let store = Arc::clone(&store);
                async move { open(&store).await }
            })
        })
        .collect();
    let mut pins = BTreeSet::new();
    for server in servers {
        let ca = server.await.unwrap();
        pins.insert((ca.root_pin(), ca.trust_domain().clone()));
    }
    assert_eq!(pins.len(), 1);
    // Neither a later start nor one that was slow between reading and writing replaces it.
    for slow in [false, true] {
        if slow {
            store.stale.store(true, Ordering::Relaxed);
        }
        let ca = open(&store).await;
        assert!(pins.contains(&(ca.root_pin(), ca.trust_domain().clone())));
    }
}

#[tokio::test]
async fn a_root_added_by_another_server_enters_the_bundle() {
    let store = Arc::<UnreliableStore>::default();
    let ca = open(&store).await;
    let mut bundle = ca.bundle();
    assert_eq!((bundle.borrow_and_update().version, ca.roots().len()), (1, 1));
    let authority = stored(&store).await;
    let prepared = with_prepared_root(&authority);
    put(&store, KEY, encoded(&prepared)).await;
    timeout(DEADLINE, bundle.changed()).await.unwrap().unwrap();
    let news = bundle.borrow_and_update().clone();
    assert_eq!((news.version, news.roots.len()), (2, 2));
    let roots = ca.roots();
    assert_eq!(roots.iter().map(|root| root.active).collect::<Vec<_>>(), [true, false]);
    assert_eq!(pem_to_der(&roots[1].pem), news.roots[1].as_ref());
    // Damage and foreign roots change nothing; the next good version counts again.
    let foreign = Authority { version: 9, ..Authority::create(SystemTime::now()).unwrap() };
    put(&store, KEY, "{}".into()).await;
    put(&store, KEY, encoded(&foreign)).await;
    let active = prepared.activate(SystemTime::now()).unwrap().unwrap();
    put(&store, KEY, encoded(&active)).await;
    timeout(DEADLINE, bundle.changed()).await.unwrap().unwrap();
    let news = bundle.borrow_and_update().clone();
    assert_eq!((&news.trust_domain, news.version, news.roots.len()), (ca.trust_domain(), 3, 2));
    let ids = |roots: &[RootInfo]| roots.iter().map(|root| root.id.clone()).collect::<Vec<_>>();
    let swapped: Vec<_> = ids(&roots).into_iter().rev().collect();
    assert_eq!(ids(&ca.roots()), swapped, "the root that signs comes first");
}

#[tokio::test]
async fn a_change_missed_while_the_log_was_cut_is_found_again() {
    let store = Arc::<UnreliableStore>::default();
    let ttl = settings().leaf_ttl;
    let (ring, now) = (Keyring::default(), SystemTime::now());
    let (authority, _) = document::load_or_create(&*store, &ring, ttl, now).await.unwrap();
    store.compacted.store(true, Ordering::Relaxed);
    let ca = open(&store).await;
    let mut bundle = ca.bundle();
    // The follower has not run yet; when it does, only the reload can show it this.
    let prepared = encoded(&with_prepared_root(&authority));
    let ops = vec![Op::Put { key: KEY.to_owned(), value: prepared }];
    store.inner.commit(Txn { conditions: Vec::new(), ops }).await.unwrap();
    timeout(DEADLINE, bundle.changed()).await.unwrap().unwrap();
    assert_eq!(bundle.borrow_and_update().version, 2);
    assert!(!store.compacted.load(Ordering::Relaxed));
}

fn with_prepared_root(authority: &Authority) -> Authority {
    let now = SystemTime::now();
    let root = root::Root::create(&authority.domain, now).unwrap();
    authority.prepare(Arc::new(root), Duration::from_secs(3600), now).unwrap()
}

fn encoded(authority: &Authority) -> bytes::Bytes {
    document::encode(authority, &Keyring::default()).unwrap()
}

async fn stored(store: &UnreliableStore) -> Authority {
    let entries = store.load(KEY).await.unwrap().entries;
    document::decode(&entries[0].value, &Keyring::default()).unwrap()
}

async fn put(store: &UnreliableStore, key: &str, value: bytes::Bytes) {
    let ops = vec![Op::Put { key: key.to_owned(), value }];
    store.commit(Txn { conditions: Vec::new(), ops }).await.unwrap();
}

fn pem_to_der(text: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec()
}

#[tokio::test]
async fn damaged_roots_are_an_error_that_names_the_key() {
    for value in ["", "{}", r#"{"trust_domain":"a","version":1,"roots":[]}"#] {
        let store = Arc::<UnreliableStore>::default();
        put(&store, KEY, value.into()).await;
        let error = Ca::open(store, settings()).await.err().expect("damage was accepted");
        assert!(
            matches!(&error, CaError::Store(StoreError::Damaged { key, .. }) if key == KEY),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_token_admits_one_key_which_may_come_again() {
    let ca = open(&Arc::default()).await;
    let token =
        ca.create_token(vec![name("web"), name("db")], Duration::from_secs(60), 1).await.unwrap();
    let (first, second) = (csr(), csr());
    let for_other = ca.enrol(&token, &name("cache"), &first).await.unwrap_err();
    assert!(
        matches!(&for_other, CaError::TokenForOther { bound, .. } if bound == "web, db"),
        "{for_other}"
    );
    let leaf = ca.enrol(&token, &name("WEB"), &first).await.unwrap();
    assert_eq!(leaf.id, ca.service_id(&name("web")).unwrap());
    let again = ca.enrol(&token, &name("web"), &first).await.unwrap();
    assert_eq!(public_key(&again), public_key(&leaf));
    assert_ne!(again.serial, leaf.serial);
    assert!(matches!(ca.enrol(&token, &name("web"), &second).await, Err(CaError::TokenRefused)));
}

#[tokio::test]
async fn refusals_do_not_tell_why() {
    let ca = open(&Arc::default()).await;
    let token = ca.create_token(vec![name("web")], Duration::from_secs(60), 1).await.unwrap();
    let parsed = Token::parse(&token).unwrap();
    let wrong_secret = Token::new(parsed.id(), &"0".repeat(64), parsed.pin()).unwrap();
    let unknown = Token::new(&"0".repeat(16), parsed.secret(), parsed.pin()).unwrap();
    let mut texts = BTreeSet::new();
    for bad in [wrong_secret.to_text().as_str(), unknown.to_text().as_str(), "", "wt1", "wt2.a.b.c"] {
        let error = ca.enrol(bad, &name("web"), &csr()).await.unwrap_err();
        assert!(matches!(error, CaError::TokenRefused), "{bad}: {error}");
        texts.insert(error.to_string());
    }
    assert_eq!(texts.len(), 1);
    // None of that used it up.
    ca.enrol(&token, &name("web"), &csr()).await.unwrap();
}

#[tokio::test]
async fn a_broken_request_does_not_cost_a_use() {
    let ca = open(&Arc::default()).await;
    let token = ca.create_token(vec![name("web")], Duration::from_secs(60), 1).await.unwrap();
    let error = ca.enrol(&token, &name("web"), b"junk").await.unwrap_err();
    assert!(matches!(error, CaError::Request(_)), "{error}");
    assert_eq!(ca.tokens().await.unwrap()[0].uses_left, 1);
}

/// `claimants` with a key each try at once, over two servers; returns who got a certificate.
async fn race(uses: u32, claimants: usize) -> usize {
    let store = Arc::<UnreliableStore>::default();
    let servers = [open(&store).await, open(&store).await];
    let token = servers[0].create_token(vec![name("web")], Duration::from_secs(60), uses).await.unwrap();
    let tasks: Vec<_> = (0..claimants)
        .map(|number| {
            let (ca, token, csr) = (servers[number % 2].clone(), token.clone(), csr());
            tokio::spawn(async move { ca.enrol(&token, &name("web"), &csr).await })
        })
        .collect();
    let mut keys = BTreeSet::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(leaf) => assert!(keys.insert(public_key(&leaf))),
            Err(error) => assert!(matches!(error, CaError::TokenRefused), "{error}"),
        }
    }
    keys.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_claimants_share_out_exactly_the_uses() {
    assert_eq!(race(1, 200).await, 1);
    assert_eq!(race(7, 200).await, 7);
}

#[tokio::test]
async fn a_use_is_durable_before_its_leaf_and_survives_a_restart() {
    let store = Arc::<UnreliableStore>::default();
    let ca = open(&store).await;
    let token = ca.create_token(vec![name("web")], Duration::from_secs(60), 1).await.unwrap();
    store.broken.store(true, Ordering::Relaxed);
    let request = csr();
    let error = ca.enrol(&token, &name("web"), &request).await.unwrap_err();
    assert!(matches!(error, CaError::Store(StoreError::Stopped(_))), "{error}");
    store.broken.store(false, Ordering::Relaxed);
    ca.enrol(&token, &name("web"), &request).await.unwrap(); // the reply gets lost
    drop(ca);
    let restarted = open(&store).await;
    assert!(matches!(restarted.enrol(&token, &name("web"), &csr()).await, Err(CaError::TokenRefused)));
    restarted.enrol(&token, &name("web"), &request).await.unwrap();
}

#[tokio::test]
async fn roots_and_tokens_survive_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.redb");
    let (token, pin) = {
        let ca = Ca::open(Arc::new(RedbStore::open(&path).await.unwrap()), settings()).await.unwrap();
        let token = ca.create_token(vec![name("web")], Duration::from_secs(60), 1).await.unwrap();
        (token, ca.root_pin())
    };
    // The follower's handle is let go of shortly after the authority's.
    let reopened = timeout(DEADLINE, async {
        loop {
            match RedbStore::open(&path).await {
                Err(StoreError::Locked { .. }) => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    });
    let ca = Ca::open(Arc::new(reopened.await.unwrap()), settings()).await.unwrap();
    assert_eq!(ca.root_pin(), pin);
    ca.enrol(&token, &name("web"), &csr()).await.unwrap();
}

#[tokio::test]
async fn tokens_are_listed_without_secrets_and_can_be_revoked() {
    let store = Arc::<UnreliableStore>::default();
    let ca = open(&store).await;
    let token = ca.create_token(vec![name("web")], Duration::from_secs(60), 3).await.unwrap();
    let parsed = Token::parse(&token).unwrap();
    let listed = ca.tokens().await.unwrap();
    assert_eq!((listed[0].id.as_str(), listed[0].uses_left), (parsed.id(), 3));
    assert!(!format!("{listed:?}").contains(parsed.secret()));
    assert!(holds(&store, parsed.id()).await && !holds(&store, parsed.secret()).await);
    assert!(ca.revoke_token(parsed.id()).await.unwrap());
    assert!(!ca.revoke_token(parsed.id()).await.unwrap());
    assert!(matches!(ca.enrol(&token, &name("web"), &csr()).await, Err(CaError::TokenRefused)));
}

#[tokio::test]
async fn unreasonable_tokens_are_not_made() {
    let ca = open(&Arc::default()).await;
    let hour = Duration::from_secs(3600);
    for (services, ttl, uses) in [
        (vec![], hour, 1),
        (vec![name("a"); MAX_TOKEN_SERVICES + 1], hour, 1),
        (vec![name("a")], Duration::ZERO, 1),
        (vec![name("a")], MAX_TOKEN_TTL + hour, 1),
        (vec![name("a")], hour, 0),
        (vec![name("a")], hour, MAX_TOKEN_USES + 1),
    ] {
        let error = ca.create_token(services, ttl, uses).await.unwrap_err();
        assert!(matches!(error, CaError::TokenLimit(_)), "{error}");
    }
    let error = ca.create_token(vec![name("da\u{df}")], hour, 1).await.unwrap_err();
    assert!(matches!(error, CaError::Name { .. }), "{error}");
}

#[tokio::test]
async fn identities_of_other_trust_domains_are_not_signed() {
    let ca = open(&Arc::default()).await;
    for id in
        ["spiffe://other.consul/ns/default/dc/dc1/svc/web".parse().unwrap(), ca.trust_domain().id()]
    {
        assert!(matches!(ca.issue(&id, &csr()), Err(CaError::Signing(_))), "{id}");
    }
}
