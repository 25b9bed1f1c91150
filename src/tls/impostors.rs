//! Impostors: peers that must not pass for the sidecar of `db`, as a table.
//!
//! Every row is run through the verifier in both roles, and through real handshakes in both
//! directions. A verifier that checked chains only would let a good part of them pass, which a test
//! proves, so that the table cannot be satisfied by one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Eku,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose as Usage, NameConstraints, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::testing::{
    Forge, Presented, Signer, authority, handshake, leaf_params, raw_names, uri, valid,
};
use super::verify::{Expected, Role, Trust};
use super::{BanList, peer_id, reason_of};
use crate::model::{Reason, ServiceName};

const DOMAIN: &str = "9f3c01d2.consul";
const DB: &str = "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db";
const WEB: &str = "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/web";
const MINUTE: Duration = Duration::from_secs(60);

/// The mesh under attack, and what attackers have.
pub(crate) struct World {
    pub(crate) mesh: Forge,
    /// Another authority that claims the same trust domain.
    twin: Forge,
    /// Another mesh.
    foreign: Forge,
}

/// What must become of a row in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Want {
    Refused(Reason),
    /// Not an impostor in this direction: it passes, but for what it really is.
    PassesAs(&'static str),
}

use Reason::{CertExpired, ClockSkew, IdentityMismatch, TlsHandshake};
use Want::{PassesAs, Refused};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) make: fn(&World) -> Presented,
    /// When it serves and we expect `db`.
    pub(crate) serving: Want,
    /// When it dials us.
    pub(crate) dialling: Want,
}

const fn case(name: &'static str, reason: Reason, make: fn(&World) -> Presented) -> Case {
    Case { name, make, serving: Refused(reason), dialling: Refused(reason) }
}

const fn split(
    name: &'static str,
    serving: Want,
    dialling: Want,
    make: fn(&World) -> Presented,
) -> Case {
    Case { name, make, serving, dialling }
}

/// A row whose URI name is off.
macro_rules! named {
    ($name:literal, $uri:expr) => {
        case($name, TlsHandshake, |world| world.mesh.sign(&leaf_params($uri)))
    };
}

/// A proper certificate of `db` but for one change.
fn changed(world: &World, change: impl FnOnce(&mut CertificateParams)) -> Presented {
    let mut params = world.mesh.params("db");
    change(&mut params);
    world.mesh.sign(&params)
}

pub(crate) const CASES: &[Case] = &[
    // Valid chains, wrong identities.
    split("another service", Refused(IdentityMismatch), PassesAs(WEB), |w| {
        w.mesh.sign(&w.mesh.params("web"))
    }),
    split(
        "the service in another datacenter",
        Refused(IdentityMismatch),
        PassesAs("spiffe://9f3c01d2.consul/ns/default/dc/dc2/svc/db"),
        |w| w.mesh.sign(&leaf_params("spiffe://9f3c01d2.consul/ns/default/dc/dc2/svc/db")),
    ),
    case("another trust domain, our authority", IdentityMismatch, |w| {
        w.mesh.sign(&leaf_params("spiffe://other.consul/ns/default/dc/dc1/svc/db"))
    }),
    case("a trust domain that ours is a prefix of", IdentityMismatch, |w| {
        w.mesh.sign(&leaf_params("spiffe://9f3c01d2.consul.evil/ns/default/dc/dc1/svc/db"))
    }),
    case("a server instead of a service", IdentityMismatch, |w| w.mesh.server()),
    case("another namespace", IdentityMismatch, |w| {
        w.mesh.sign(&leaf_params("spiffe://9f3c01d2.consul/ns/prod/dc/dc1/svc/db"))
    }),
    case("a longer path", IdentityMismatch, |w| {
        w.mesh.sign(&leaf_params("spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db/x"))
    }),
    named!("the trust domain itself", "spiffe://9f3c01d2.consul"),
    case("two URI names, ours first", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names.push(uri(WEB)))
    }),
    case("two URI names, ours last", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names.insert(0, uri(WEB)))
    }),
    case("our URI name twice", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names.push(uri(DB)))
    }),
    case("ten URI names", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names = vec![uri(DB); 10])
    }),
    case("a second URI name of another scheme", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names.push(uri("https://db.example")))
    }),
    case("no name at all", TlsHandshake, |w| changed(w, |params| params.subject_alt_names.clear())),
    case("the ID as a DNS name", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names = vec![SanType::DnsName(DB.try_into().unwrap())])
    }),
    case("a DNS name only", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names = vec![SanType::DnsName("db".try_into().unwrap())])
    }),
    case("the ID as an e-mail name", TlsHandshake, |w| {
        changed(w, |params| params.subject_alt_names = vec![SanType::Rfc822Name(DB.try_into().unwrap())])
    }),
    case("an e-mail name beside the ID", TlsHandshake, |w| {
        changed(w, |p| p.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap())))
    }),
    case("the ID as another name", TlsHandshake, |w| {
        let other = SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], DB.into()));
        changed(w, |params| params.subject_alt_names = vec![other])
    }),
    case("the ID as common name only", TlsHandshake, |w| {
        changed(w, |params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, DB);
        })
    }),
    // Spellings.
    named!("a NUL in the ID", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db\0"),
    named!("a NUL and more", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db\0.evil"),
    named!("a slash at the end", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db/"),
    named!("a space at the end", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db "),
    named!("a dot segment", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/./svc/db"),
    named!("a dot-dot segment", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/web/../db"),
    named!("a double slash", "spiffe://9f3c01d2.consul/ns/default/dc/dc1//svc/db"),
    named!("percent-encoding", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/%64b"),
    named!("a query", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db?a=b"),
    named!("a fragment", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/db#a"),
    named!("a port", "spiffe://9f3c01d2.consul:443/ns/default/dc/dc1/svc/db"),
    named!("user information", "spiffe://db@9f3c01d2.consul/ns/default/dc/dc1/svc/db"),
    named!("an upper-case scheme", "SPIFFE://9f3c01d2.consul/ns/default/dc/dc1/svc/db"),
    named!("an upper-case trust domain", "spiffe://9F3C01D2.consul/ns/default/dc/dc1/svc/db"),
    named!("an upper-case service", "spiffe://9f3c01d2.consul/ns/default/dc/dc1/svc/DB"),
    named!("another scheme", "https://9f3c01d2.consul/ns/default/dc/dc1/svc/db"),
    case("an ID of 2,049 bytes", TlsHandshake, |w| {
        w.mesh.sign(&leaf_params(&format!("{DB}{}", "x".repeat(2049 - DB.len()))))
    }),
    case("a letter that only looks like ours", TlsHandshake, |w| {
        let name = DB.replace("/db", "/\u{501}b"); // Cyrillic
        changed(w, |params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(raw_names(&[(6, name.as_bytes())]));
        })
    }),
    case("an ID that is not UTF-8", TlsHandshake, |w| {
        changed(w, |params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(raw_names(&[(6, b"spiffe://9f3c01d2.consul/\xff")]));
        })
    }),
    case("an unreadable second URI name", TlsHandshake, |w| {
        changed(w, |params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(raw_names(&[(6, DB.as_bytes()), (6, b"\xff")]));
        })
    }),
    case("names in two extensions", TlsHandshake, |w| {
        changed(w, |params| params.custom_extensions.push(raw_names(&[(6, WEB.as_bytes())])))
    }),
    // Purposes and keys.
    split("for clients only", Refused(TlsHandshake), PassesAs(DB), |w| {
        changed(w, |params| params.extended_key_usages = vec![Eku::ClientAuth])
    }),
    split("for another purpose", Refused(TlsHandshake), Refused(TlsHandshake), |w| {
        changed(w, |params| params.extended_key_usages = vec![Eku::CodeSigning])
    }),
    split("for servers only, dialling", PassesAs(DB), Refused(TlsHandshake), |w| {
        changed(w, |params| params.extended_key_usages = vec![Eku::ServerAuth])
    }),
    case("for any purpose", TlsHandshake, |w| {
        changed(w, |params| params.extended_key_usages = vec![Eku::Any])
    }),
    case("without purposes", TlsHandshake, |w| changed(w, |params| params.extended_key_usages.clear())),
    case("without key usage", TlsHandshake, |w| changed(w, |params| params.key_usages.clear())),
    case("a key that may sign certificates", TlsHandshake, |w| {
        changed(w, |params| params.key_usages.push(Usage::KeyCertSign))
    }),
    case("a key that may sign revocations", TlsHandshake, |w| {
        changed(w, |params| params.key_usages.push(Usage::CrlSign))
    }),
    case("a key that may not sign", TlsHandshake, |w| {
        changed(w, |params| params.key_usages = vec![Usage::KeyAgreement])
    }),
    case("an authority's certificate as leaf", TlsHandshake, |w| {
        changed(w, |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0)))
    }),
    case("an unknown critical extension", TlsHandshake, |w| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![5, 0]);
        extension.set_criticality(true);
        changed(w, |params| params.custom_extensions.push(extension))
    }),
    case("a P-521 key", TlsHandshake, |w| {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        w.mesh.sign_key(&w.mesh.params("db"), key)
    }),
    case("an RSA key", TlsHandshake, |w| {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        w.mesh.sign_key(&w.mesh.params("db"), key)
    }),
    // Validity.
    case("expired", CertExpired, |w| {
        let params = w.mesh.params("db");
        w.mesh.sign(&valid(params, SystemTime::now() - 3 * MINUTE, 2 * MINUTE))
    }),
    case("not valid yet", ClockSkew, |w| {
        let params = w.mesh.params("db");
        w.mesh.sign(&valid(params, SystemTime::now() + 3 * MINUTE, 2 * MINUTE))
    }),
    case("under an expired intermediate", CertExpired, |w| {
        let params = valid(authority(&w.mesh.domain, "old"), SystemTime::now() - 3 * MINUTE, 2 * MINUTE);
        under(&Signer::under(&w.mesh.root, params), w)
    }),
    // Chains.
    case("another authority that claims our trust domain", TlsHandshake, |w| {
        w.twin.sign(&w.twin.params("db"))
    }),
    case("that one's root in the chain", TlsHandshake, |w| {
        let mut presented = w.twin.sign(&w.twin.params("db"));
        presented.chain.push(w.twin.root.der.clone());
        presented
    }),
    case("our root in a foreign chain", TlsHandshake, |w| {
        let mut presented = w.twin.sign(&w.twin.params("db"));
        presented.chain.push(w.mesh.root.der.clone());
        presented
    }),
    case("a member of another mesh", TlsHandshake, |w| w.foreign.sign(&w.foreign.params("db"))),
    case("self-signed", TlsHandshake, |w| {
        let key = KeyPair::generate().unwrap();
        let leaf = w.mesh.params("db").self_signed(&key).unwrap().der().to_vec();
        Presented { chain: vec![leaf], key }
    }),
    case("signed by a leaf", TlsHandshake, |w| {
        let mut params = w.mesh.params("web");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "web");
        let web = Signer::under(&w.mesh.intermediate, params);
        let mut presented = under(&web, w);
        presented.chain.push(w.mesh.intermediate.der.clone());
        presented
    }),
    case("under an intermediate of an intermediate", TlsHandshake, |w| {
        let second = Signer::under(&w.mesh.intermediate, authority(&w.mesh.domain, "second"));
        let mut presented = under(&second, w);
        presented.chain.push(w.mesh.intermediate.der.clone());
        presented
    }),
    case("under an intermediate that may not sign", TlsHandshake, |w| {
        let mut params = authority(&w.mesh.domain, "weak");
        params.key_usages = vec![Usage::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        under(&Signer::under(&w.mesh.root, params), w)
    }),
    case("under an intermediate of another trust domain", TlsHandshake, |w| {
        // As the root of an external authority may have.
        under(&Signer::under(&w.mesh.root, authority(&w.foreign.domain, "theirs")), w)
    }),
    case("under an intermediate of nobody's", TlsHandshake, |w| {
        let mut params = authority(&w.mesh.domain, "nameless");
        params.subject_alt_names.clear();
        under(&Signer::under(&w.mesh.root, params), w)
    }),
    case("our intermediate, certified by a foreign root only", TlsHandshake, |w| {
        let ours = w.mesh.intermediate.issuer.key();
        let params = authority(&w.mesh.domain, "intermediate");
        let crossed = params.signed_by(ours, &w.twin.root.issuer).unwrap().der().to_vec();
        let mut presented = w.mesh.sign(&w.mesh.params("db"));
        presented.chain[1] = crossed;
        presented
    }),
    case("under an intermediate for other names", TlsHandshake, |w| {
        let mut params = authority(&w.mesh.domain, "narrow");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let signer = Signer::under(&w.mesh.root, params);
        let mut leaf = w.mesh.params("db");
        leaf.subject_alt_names.push(SanType::DnsName("db.example".try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &signer.issuer).unwrap().der().to_vec();
        Presented { chain: vec![leaf, signer.der], key }
    }),
    case("without its intermediate", TlsHandshake, |w| {
        let mut presented = w.mesh.sign(&w.mesh.params("db"));
        presented.chain.truncate(1);
        presented
    }),
    case("a chain of six", TlsHandshake, |w| {
        let mut presented = w.mesh.sign(&w.mesh.params("db"));
        presented.chain.resize(6, w.mesh.root.der.clone());
        presented
    }),
    case("a chain of 17 KiB", TlsHandshake, |w| {
        let padding =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![0x30; 17 * 1024]);
        changed(w, |params| params.custom_extensions.push(padding))
    }),
    case("a byte after the leaf", TlsHandshake, |w| {
        let mut presented = w.mesh.sign(&w.mesh.params("db"));
        presented.chain[0].push(0);
        presented
    }),
    case("a flipped bit in the signature", TlsHandshake, |w| {
        let mut presented = w.mesh.sign(&w.mesh.params("db"));
        *presented.chain[0].last_mut().unwrap() ^= 1;
        presented
    }),
    case("bytes that are no certificate", TlsHandshake, |w| {
        let mut presented = w.mesh.sign(&w.mesh.params("db"));
        presented.chain[0] = vec![0x30, 3, 1, 2, 3];
        presented
    }),
];

/// A leaf of `db` signed by `signer`.
fn under(signer: &Signer, world: &World) -> Presented {
    let key = KeyPair::generate().unwrap();
    let leaf = world.mesh.params("db").signed_by(&key, &signer.issuer).unwrap().der().to_vec();
    Presented { chain: vec![leaf, signer.der.clone()], key }
}

pub(crate) fn world() -> World {
    World { mesh: Forge::new(DOMAIN), twin: Forge::new(DOMAIN), foreign: Forge::new("aaaa0000.consul") }
}

pub(crate) fn ders(presented: &Presented) -> Vec<CertificateDer<'static>> {
    presented.chain.iter().cloned().map(CertificateDer::from).collect()
}

#[test]
fn the_verifier_refuses_every_impostor_with_its_reason() {
    let world = world();
    let trust = Trust::new(&world.mesh.bundle(), &BanList::default()).unwrap();
    let db = Expected::Exactly(world.mesh.service_id("db"));
    for case in CASES {
        let chain = ders(&(case.make)(&world));
        for (role, expected, want) in
            [(Role::Server, &db, case.serving), (Role::Client, &Expected::AnyService, case.dialling)]
        {
            let result = trust.verify(&chain[0], &chain[1..], role, expected, UnixTime::now());
            match (want, result) {
                (Refused(reason), Err(rejection)) => {
                    assert_eq!(rejection.reason(), reason, "{} as {role:?}: {rejection}", case.name);
                }
                (PassesAs(id), Ok(facts)) => assert_eq!(facts.id.as_str(), id, "{}", case.name),
                (want, result) => panic!("{} as {role:?}: wanted {want:?}, got {result:?}", case.name),
            }
        }
    }
}

#[test]
fn no_handshake_completes_with_an_impostor_that_serves() {
    let world = world();
    let honest = world.mesh.identity("web").client_config(&ServiceName::new("db").unwrap()).unwrap();
    for case in CASES {
        let mut server = Arc::unwrap_or_clone((case.make)(&world).careless_server());
        server.alpn_protocols = vec![super::ALPN_LANE.to_vec()];
        let pair = handshake(&honest, &Arc::new(server));
        match case.serving {
            Refused(reason) => {
                let error = pair.client_error.as_ref().unwrap_or_else(|| panic!("{} passed", case.name));
                assert_eq!(reason_of(error), reason, "{}: {error}", case.name);
                assert!(pair.client.is_handshaking(), "{}", case.name);
            }
            PassesAs(id) => {
                assert!(pair.completed(), "{}: {:?}", case.name, pair.client_error);
                assert_eq!(peer_id(pair.client.peer_certificates()).unwrap().as_str(), id);
            }
        }
    }
}

#[test]
fn no_handshake_completes_with_an_impostor_that_dials() {
    let world = world();
    let honest = world.mesh.identity("db").server_config();
    for case in CASES {
        let pair = handshake(&(case.make)(&world).careless_client(), &honest);
        match case.dialling {
            Refused(reason) => {
                assert!(pair.server.is_handshaking(), "{} passed", case.name);
                // A client may find out by itself that nothing it has is wanted here.
                if let Some(error) = &pair.server_error {
                    assert_eq!(reason_of(error), reason, "{}: {error}", case.name);
                } else {
                    assert!(pair.client_error.is_some(), "{} hangs", case.name);
                }
            }
            PassesAs(id) => {
                assert!(pair.completed(), "{}: {:?}", case.name, pair.server_error);
                assert_eq!(peer_id(pair.server.peer_certificates()).unwrap().as_str(), id);
            }
        }
    }
}

#[test]
fn the_honest_service_passes_in_both_directions() {
    let world = world();
    let (web, db) = (world.mesh.identity("web"), world.mesh.identity("db"));
    let pair =
        handshake(&web.client_config(&ServiceName::new("DB").unwrap()).unwrap(), &db.server_config());
    assert!(pair.completed(), "{:?} {:?}", pair.client_error, pair.server_error);
    assert_eq!(peer_id(pair.client.peer_certificates()).unwrap(), *db.id());
    assert_eq!(peer_id(pair.server.peer_certificates()).unwrap(), *web.id());
}
