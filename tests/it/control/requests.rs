//! Hostile requests for certificates, thirty of them: whatever they say, a certificate is for the service
//! of the token and nothing else, and a request that is refused has used nothing up.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tonic::Code;
use weft::control::Settings;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::tls::Identity;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::enrol::anonymous;
use super::{Options, Plane, name};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Want {
    Refused,
    /// A certificate that says nothing of what the request asked for.
    Ignored,
}

use Want::{Ignored, Refused};

/// A request and, where it is one, its key.
type Asked = (Vec<u8>, Option<KeyPair>);

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn signed(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A request that asks for more than it may have.
fn greedy(change: impl FnOnce(&mut CertificateParams)) -> Asked {
    let (mut params, key) = (CertificateParams::default(), key());
    change(&mut params);
    (signed(&params, &key), Some(key))
}

fn bytes(der: Vec<u8>) -> Asked {
    (der, None)
}

fn of(algorithm: &'static rcgen::SignatureAlgorithm) -> Asked {
    let key = KeyPair::generate_for(algorithm).unwrap();
    (signed(&CertificateParams::default(), &key), Some(key))
}

fn good() -> Vec<u8> {
    signed(&CertificateParams::default(), &key())
}

fn changed(at: impl FnOnce(&mut Vec<u8>)) -> Asked {
    let mut der = good();
    at(&mut der);
    bytes(der)
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

type Case = (&'static str, Want, Asked);

const OID: [u64; 8] = [1, 3, 6, 1, 4, 1, 1, 1];

/// What is no request, or one for a key that nobody gets certified.
fn unusable() -> Vec<Case> {
    let huge = CustomExtension::from_oid_content(&OID, vec![0; 16_000]);
    let large = CustomExtension::from_oid_content(&OID, vec![0; 5000]);
    vec![
        ("nothing", Refused, bytes(Vec::new())),
        ("a byte", Refused, bytes(vec![0x30])),
        ("text", Refused, bytes(b"-----BEGIN CERTIFICATE REQUEST-----".to_vec())),
        ("zeroes", Refused, bytes(vec![0; 300])),
        ("a deep nest", Refused, bytes(vec![0x30; 4000])),
        ("a cut", Refused, changed(|der| der.truncate(der.len() - 1))),
        ("a byte more", Refused, changed(|der| der.push(0))),
        ("another request behind it", Refused, changed(|der| der.extend(good()))),
        ("a flipped bit of the signature", Refused, changed(|der| *der.last_mut().unwrap() ^= 1)),
        ("a flipped bit of the version", Refused, changed(|der| der[8] ^= 1)),
        ("a length that lies", Refused, changed(|der| der[1] = 0x84)),
        ("an indefinite length", Refused, changed(|der| der[1] = 0x80)),
        (
            "no signature",
            Refused,
            changed(|der| {
                let end = der.len() - 70;
                der.truncate(end);
            }),
        ),
        ("9,000 bytes", Refused, bytes(vec![0x30; 9000])),
        ("a large extension", Refused, greedy(|p| p.custom_extensions = vec![large])),
        ("a huge extension", Refused, greedy(|p| p.custom_extensions = vec![huge])),
        ("P-521", Refused, of(&rcgen::PKCS_ECDSA_P521_SHA512)),
        ("RSA", Refused, of(&rcgen::PKCS_RSA_SHA256)),
    ]
}

/// Requests that want more than the public key certified.
fn greedy_ones(other: &str) -> Vec<Case> {
    let mut critical = CustomExtension::from_oid_content(&OID, vec![5, 0]);
    critical.set_criticality(true);
    vec![
        ("P-384", Ignored, of(&rcgen::PKCS_ECDSA_P384_SHA384)),
        ("Ed25519", Ignored, of(&rcgen::PKCS_ED25519)),
        (
            "to be an authority",
            Ignored,
            greedy(|p| {
                p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
        ),
        (
            "to sign certificates",
            Ignored,
            greedy(|p| {
                p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            }),
        ),
        (
            "to sign code",
            Ignored,
            greedy(|p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
            }),
        ),
        ("another service", Ignored, greedy(|p| p.subject_alt_names = vec![uri(other)])),
        ("two services", Ignored, greedy(|p| p.subject_alt_names = vec![uri(other), uri(other)])),
        (
            "a server's identity",
            Ignored,
            greedy(|p| {
                p.subject_alt_names =
                    vec![uri(&other.replace("/ns/default/dc/dc1/svc/db", "/agent/server/dc/dc1/id/s1"))];
            }),
        ),
        (
            "the trust domain itself",
            Ignored,
            greedy(|p| {
                p.subject_alt_names = vec![uri(&other.replace("/ns/default/dc/dc1/svc/db", ""))];
            }),
        ),
        (
            "a DNS name",
            Ignored,
            greedy(|p| {
                p.subject_alt_names = vec![SanType::DnsName("bank.example".try_into().unwrap())];
            }),
        ),
        (
            "an e-mail name",
            Ignored,
            greedy(|p| {
                p.subject_alt_names = vec![SanType::Rfc822Name("a@b.example".try_into().unwrap())];
            }),
        ),
        (
            "a common name",
            Ignored,
            greedy(|p| {
                p.distinguished_name.push(DnType::CommonName, other);
            }),
        ),
        ("an unknown critical extension", Ignored, greedy(|p| p.custom_extensions = vec![critical])),
        ("a long life", Ignored, greedy(|p| p.not_after = rcgen::date_time_ymd(4000, 1, 1))),
    ]
}

#[tokio::test]
async fn a_certificate_says_what_the_token_says() {
    let plane = Plane::with(Options { control: Settings::default(), ..Options::default() }).await;
    let (web, db) = (plane.ca.service_id(&name("web")), plane.ca.service_id(&name("db")).unwrap());
    let (web, mut cases) = (web.unwrap(), unusable());
    cases.extend(greedy_ones(db.as_str()));
    assert!(cases.len() >= 30, "{}", cases.len());
    let mut client = IdentityClient::new(anonymous(&plane).await);
    let create = || plane.ca.create_token(vec![name("web")], Duration::from_secs(600), 1);
    let mut token = create().await.unwrap();
    let bundle = plane.ca.bundle().borrow().clone();
    for (what, want, (csr, key)) in cases {
        let service = "web".to_owned();
        let request = pb::EnrolRequest { token: token.clone(), service, csr };
        let answer = client.enrol(request).await;
        match (want, answer) {
            (Refused, Err(status)) => {
                assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
                assert!(status.message().starts_with("csr: "), "{what}: {status}");
            }
            (Ignored, Ok(certificate)) => {
                let certificate = certificate.into_inner();
                assert_eq!(certificate.spiffe_id, web.as_str(), "{what}");
                let (_, leaf) = X509Certificate::from_der(&certificate.chain[0]).unwrap();
                assert!(!leaf.is_ca() && leaf.subject().iter().count() == 0, "{what}");
                assert_eq!(leaf.extensions().len(), 6, "{what}: nothing was taken over");
                let names = leaf.subject_alternative_name().unwrap().unwrap();
                assert_eq!(names.value.general_names.len(), 1, "{what}");
                // The strict reading of a peer agrees, for the key of the request.
                let (key, now) = (key.unwrap().serialize_der(), SystemTime::now());
                let identity = Identity::new(1, certificate.chain, &key, &bundle, now).unwrap();
                assert_eq!(*identity.id(), web, "{what}");
                assert!(identity.not_after() <= now + Duration::from_secs(3601), "{what}");
                token = create().await.unwrap();
            }
            (want, answer) => panic!("{what}: wanted {want:?}, got {answer:?}"),
        }
    }
    let last = pb::EnrolRequest { token, service: "web".to_owned(), csr: good() };
    client.enrol(last).await.expect("what was refused has used no token up");
}

#[tokio::test]
async fn broken_handshakes_end_and_hold_up_nobody() {
    let plane = Plane::start().await;
    for (what, wire) in crate::crowds::broken_handshakes() {
        crate::crowds::speaks_in_vain(plane.address, what, &wire).await;
    }
    plane.agent("web", &[]).await;
}
