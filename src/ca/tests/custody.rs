//! Keys at rest, roots from outside, and that nothing outlives what is above it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    DnValue, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;

use crate::ca::authority::Authority;
use crate::ca::document::{self, KEY};
use crate::ca::issue::{self, Intermediate, Names};
use crate::ca::root::Root;
use crate::ca::rotation::Step;
use crate::ca::seal::{Keyring, SealError};
use crate::ca::{Ca, CaError, Custody, Settings};
use crate::model::{Bundle, ServiceName, SpiffeId, TrustDomain};
use crate::store::{MemoryStore, Store, StoreError};
use crate::tls::{self, Identity, KeyRequest};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn ring(keys: &[u8]) -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let lines: String = keys.iter().map(|byte| format!("{byte:02x}").repeat(32) + "\n").collect();
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Keyring::read(&path).unwrap()
}

async fn open(store: &Arc<MemoryStore>, keyring: Keyring) -> Result<Ca, CaError> {
    let settings = Settings {
        datacenter: "dc1".into(),
        server_id: "server-1".into(),
        leaf_ttl: Duration::from_secs(3600),
    };
    let custody = Custody { keyring, settle: Duration::ZERO };
    Ca::open_in(Arc::clone(store) as Arc<dyn Store>, settings, custody).await
}

async fn stored(store: &MemoryStore) -> String {
    let entries = store.load(KEY).await.unwrap().entries;
    String::from_utf8(entries[0].value.to_vec()).unwrap()
}

/// The keys as they lie in the store.
fn keys(document: &str) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let roots = document["roots"].as_array().unwrap().iter();
    roots.map(|root| root["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn encryption_is_turned_on_for_what_is_there_and_keys_can_be_changed() {
    let store = Arc::<MemoryStore>::default();
    let pin = open(&store, Keyring::default()).await.unwrap().root_pin();
    let plain = keys(&stored(&store).await).remove(0);
    let ca = open(&store, ring(&[1])).await.unwrap();
    assert_eq!((ca.root_pin(), ca.overview().sealed), (pin.clone(), true));
    let sealed = stored(&store).await;
    assert!(!sealed.contains(&plain) && keys(&sealed)[0].starts_with("sealed:1:"), "{sealed}");
    // What comes later is sealed too.
    let new = ca.rotate(Duration::ZERO).await.unwrap();
    assert!(ca.activated(&new, DAY).await);
    assert!(keys(&stored(&store).await).iter().all(|key| key.starts_with("sealed:1:")));
    drop(ca);
    let without = open(&store, Keyring::default()).await.err().unwrap();
    assert!(matches!(without, CaError::Seal(SealError::NeedsKey { .. })), "{without}");
    let wrong = open(&store, ring(&[2])).await.err().unwrap();
    assert!(matches!(wrong, CaError::Seal(SealError::WrongKey { .. })), "{wrong}");
    // A new key before the old one: everything is written anew, and the old one is not needed any more.
    open(&store, ring(&[2, 1])).await.unwrap();
    assert_eq!(open(&store, ring(&[2])).await.unwrap().active_root(), new);
    open(&store, ring(&[1])).await.err().expect("the old key still opens it");
}

#[tokio::test]
async fn a_sealed_key_does_not_open_in_place_of_another() {
    let store = Arc::<MemoryStore>::default();
    let ca = open(&store, ring(&[1])).await.unwrap();
    let new = ca.rotate(Duration::ZERO).await.unwrap();
    assert!(ca.activated(&new, DAY).await);
    let mut document: serde_json::Value = serde_json::from_str(&stored(&store).await).unwrap();
    let first = document["roots"][0]["key"].take();
    document["roots"][0]["key"] = document["roots"][1]["key"].take();
    document["roots"][1]["key"] = first;
    let swapped = document.to_string();
    let error = document::decode(swapped.as_bytes(), &ring(&[1])).err().unwrap();
    assert!(matches!(error, CaError::Seal(SealError::Damaged)), "{error}");
}

#[tokio::test]
async fn documents_of_before_rotations_are_read() {
    let store = Arc::<MemoryStore>::default();
    let ca = open(&store, Keyring::default()).await.unwrap();
    let new: serde_json::Value = serde_json::from_str(&stored(&store).await).unwrap();
    let old = serde_json::json!({
        "trust_domain": new["trust_domain"],
        "version": 7,
        "roots": [{
            "certificate": new["roots"][0]["certificate"],
            "key": new["roots"][0]["key"],
            "active": true,
        }],
    });
    let read = document::decode(old.to_string().as_bytes(), &Keyring::default()).unwrap();
    assert_eq!((read.version, read.bundle_version), (7, 7));
    assert_eq!(read.active().id(), ca.active_root());
}

fn imported(domain: Option<&TrustDomain>, name: &str) -> (CertifiedIssuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let organization = DnValue::PrintableString("Example Corp".try_into().unwrap());
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let uri = |domain: &TrustDomain| SanType::URI(domain.id().as_str().try_into().unwrap());
    params.subject_alt_names = domain.map(uri).into_iter().collect();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let text = key.serialize_pem();
    (CertifiedIssuer::self_signed(params, key).unwrap(), text)
}

/// Whether a leaf that is signed now is accepted by whoever trusts `roots`.
fn accepted_by(ca: &Ca, roots: &[Arc<[u8]>]) -> bool {
    let key = KeyRequest::generate().unwrap();
    let id = ca.service_id(&ServiceName::new("web").unwrap()).unwrap();
    let leaf = ca.issue(&id, &key.csr).unwrap();
    let trust_domain = ca.trust_domain().clone();
    let bundle = Bundle { trust_domain, version: 1, roots: roots.to_vec() };
    Identity::new(1, leaf.chain, &key.key, &bundle, SystemTime::now()).is_ok()
}

#[tokio::test]
async fn a_root_of_ones_own_takes_over_and_is_vouched_for() {
    let store = Arc::<MemoryStore>::default();
    let ca = open(&store, Keyring::default()).await.unwrap();
    let first = ca.bundle().borrow().roots.clone();
    let (root, key) = imported(Some(ca.trust_domain()), "Own Root");
    let (foreign, foreign_key) = imported(Some(&TrustDomain::new("other.consul").unwrap()), "Other");
    let (nameless, nameless_key) = imported(None, "Nameless");
    for (certificate, key, why) in [
        (foreign.pem(), foreign_key.as_str(), "alternative name"),
        (nameless.pem(), nameless_key.as_str(), "alternative name"),
        (root.pem(), foreign_key.as_str(), "does not fit"),
        ("zz-secret".to_owned(), key.as_str(), "exactly one certificate"),
        (root.pem(), "zz-secret", "no private key"),
        (root.pem() + &root.pem(), key.as_str(), "exactly one certificate"),
    ] {
        let error = ca.import(Some(&certificate), key, DAY).await.unwrap_err();
        assert!(matches!(&error, CaError::Import(text) if text.contains(why)), "{why}: {error}");
        assert!(!error.to_string().contains("zz-secret"));
    }
    let new = ca.import(Some(&root.pem()), &key, Duration::ZERO).await.unwrap();
    assert!(ca.activated(&new, DAY).await);
    assert_eq!(ca.roots()[0].name, "Own Root");
    let own = Arc::from(root.der().as_ref());
    assert!(accepted_by(&ca, &[own]) && accepted_by(&ca, &first), "old and new alone are enough");
    // The same again changes nothing.
    assert_eq!(ca.import(Some(&root.pem()), &key, DAY).await.unwrap(), new);
    assert_eq!(ca.overview().rotation.unwrap().to, new);
}

#[tokio::test]
async fn an_external_authority_signs_the_intermediate() {
    let store = Arc::<MemoryStore>::default();
    let ca = open(&store, ring(&[1])).await.unwrap();
    let first = ca.bundle().borrow().roots.clone();
    let (corporate, _) = imported(None, "Corporate Root");
    let nothing = ca.install(&corporate.pem(), DAY).await.unwrap_err();
    assert!(matches!(nothing, CaError::Import(_)), "{nothing}");
    let chain = |csr: &str| {
        let csr = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let mut csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
        csr.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        csr.params.not_after = (SystemTime::now() + DAY).into();
        csr.params.not_before = (SystemTime::now() - DAY).into();
        let issuer: &Issuer<'_, KeyPair> = &corporate;
        csr.signed_by(issuer).unwrap().pem() + &corporate.pem()
    };
    let stale = ca.request().await.unwrap();
    let csr = ca.request().await.unwrap();
    let error = ca.install(&chain(&stale), DAY).await.unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    let new = ca.install(&chain(&csr), Duration::ZERO).await.unwrap();
    assert!(ca.activated(&new, DAY).await);
    let overview = ca.overview();
    assert!(overview.roots[0].is_external && !overview.requested);
    assert!(overview.roots[0].cross_pem.is_some());
    let outside = Arc::from(corporate.der().as_ref());
    assert!(accepted_by(&ca, &[outside]) && accepted_by(&ca, &first));

    // A sidecar enrols against the intermediate's key, and knows the trust domain by it.
    let web = || ServiceName::new("web").unwrap();
    let token = ca.create_token(vec![web()], DAY, 1).await.unwrap();
    let pin = crate::model::Token::parse(&token).unwrap().pin().to_owned();
    assert_eq!(pin, ca.root_pin());
    // It survives a restart, and another intermediate needs no rotation.
    drop(ca);
    let ca = open(&store, ring(&[1])).await.unwrap();
    assert_eq!(ca.active_root(), new);
    let bundle = ca.bundle().borrow().version;
    let next = chain(&ca.request().await.unwrap());
    assert_eq!(ca.install(&next, DAY).await.unwrap(), new);
    assert_ne!(ca.root_pin(), pin);
    assert_eq!(ca.bundle().borrow().version, bundle);
}

#[tokio::test]
async fn a_token_made_before_a_rotation_is_good_after_it() {
    let store = Arc::<MemoryStore>::default();
    let ca = open(&store, Keyring::default()).await.unwrap();
    let web = || vec![ServiceName::new("web").unwrap()];
    let hour = Duration::from_secs(60);
    let mut tokens = vec![ca.create_token(web(), hour, 1).await.unwrap()];
    for _ in 0..3 {
        let new = ca.rotate(Duration::ZERO).await.unwrap();
        assert!(ca.activated(&new, DAY).await);
        let waited = async {
            let mut version = ca.version();
            while ca.overview().rotation.unwrap().step != Step::Retire {
                version.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DAY, waited).await.unwrap();
        tokens.push(ca.create_token(web(), hour, 1).await.unwrap());
    }
    let material = ca.server_material().unwrap();
    let bundle = ca.bundle().borrow().clone();
    let now = SystemTime::now();
    let server =
        tls::grpc_server_config(material.chain, &material.key, &bundle, &tls::BanList::default(), now)
            .unwrap();
    for token in tokens {
        let pin = crate::model::Token::parse(&token).unwrap().pin().to_owned();
        let client = tls::bootstrap_config(Some(&pin));
        assert!(tls::testing::handshake(&client, &server).completed(), "pin {pin}");
    }
}

#[test]
fn a_bundle_is_never_too_large() {
    let now = SystemTime::now();
    let mut authority = Authority::create(now).unwrap();
    let refused = loop {
        let root = Root::create(&authority.domain, now).unwrap();
        match authority.prepare(Arc::new(root), DAY, now) {
            Ok(next) => authority = next.activate(now).unwrap().unwrap(),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, CaError::Rotating(_)), "{refused}");
    assert_eq!(authority.members.len(), crate::ca::limits::MAX_ROOTS);
    let later = now + 400 * DAY;
    let rest = authority.retire(later).unwrap().unwrap();
    assert_eq!((rest.members.len(), rest.active, rest.cross()), (1, 0, None));
    assert_eq!(rest.active().id(), authority.active().id());
    assert!(rest.retire(later).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the lifetimes and whenever it is asked for: a leaf ends no later than its intermediate,
    /// that no later than its root, the cross-signed certificate no later than either root, and none
    /// of them is handed out after its end.
    #[test]
    fn nothing_outlives_what_is_above_it(
        ttl_s in 1_u64..40_000_000, age_s in 0_u64..400_000_000, late_s in 0_u64..400_000_000,
    ) {
        let made = SystemTime::now();
        let domain = TrustDomain::new("t.consul").unwrap();
        let root = Root::create(&domain, made).unwrap();
        let (at, ttl) = (made + Duration::from_secs(age_s), Duration::from_secs(ttl_s));
        let Ok(intermediate) = Intermediate::new(&root, &domain, ttl, at) else {
            prop_assert!(at + Duration::from_secs(1) >= root.not_after());
            return Ok(());
        };
        let id = SpiffeId::for_service(&domain, "dc1", &ServiceName::new("web").unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let later = at + Duration::from_secs(late_s);
        let end = |der: &[u8]| {
            let parsed = crate::ca::root::parse(der).unwrap();
            crate::ca::root::time(parsed.validity().not_after.timestamp()).unwrap()
        };
        if let Ok(leaf) = issue::leaf(&intermediate, &id, &key, Names::IdentityOnly, ttl, later) {
            prop_assert!(leaf.not_after > later - Duration::from_secs(1));
            prop_assert!(leaf.not_after <= later + ttl);
            prop_assert_eq!(leaf.not_after, end(&leaf.chain[0]));
            prop_assert!(leaf.not_after <= end(&leaf.chain[1]));
            prop_assert!(end(&leaf.chain[1]) <= root.not_after());
        }
        let next = Root::create(&domain, at).unwrap();
        if let Ok(cross) = crate::ca::cross::sign(root.signer().unwrap(), &next, &domain, ttl, at) {
            prop_assert!(end(&cross) <= root.not_after().min(next.not_after()) && end(&cross) > at);
        }
    }
}

#[tokio::test]
async fn damage_is_named() {
    let store = Arc::<MemoryStore>::default();
    open(&store, Keyring::default()).await.unwrap();
    let good: serde_json::Value = serde_json::from_str(&stored(&store).await).unwrap();
    for (at, value) in [
        ("/roots/0/key", serde_json::Value::Null),
        ("/roots/0/certificate", "AAAA".into()),
        ("/roots/0/active", false.into()),
        ("/roots/0/cross", "not base64!".into()),
    ] {
        let mut document = good.clone();
        *document.pointer_mut(at).unwrap_or(&mut serde_json::Value::Null) = value.clone();
        if at == "/roots/0/cross" {
            document["roots"][0]["cross"] = value;
        }
        let error = document::decode(document.to_string().as_bytes(), &Keyring::default()).err();
        let error = error.unwrap_or_else(|| panic!("{at} was accepted"));
        assert!(matches!(error, CaError::Store(StoreError::Damaged { .. })), "{at}: {error}");
    }
}
