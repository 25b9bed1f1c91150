//! What certificates say, how long they live, and which requests are refused.

use rcgen::CustomExtension;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::ca::authority::Authority;
use crate::model::ServiceName;

const DAY: Duration = Duration::from_secs(24 * 3600);
const TTL: Duration = Duration::from_secs(60);

struct Fixture {
    authority: Authority,
    intermediate: Intermediate,
    now: SystemTime,
}

impl Fixture {
    fn new() -> Self {
        let now = SystemTime::now();
        let authority = Authority::create(now).unwrap();
        let intermediate = Intermediate::new(authority.active(), &authority.domain, TTL, now).unwrap();
        Self { authority, intermediate, now }
    }

    fn id(&self) -> SpiffeId {
        SpiffeId::for_service(&self.authority.domain, "dc1", &ServiceName::new("web").unwrap()).unwrap()
    }

    fn leaf(&self, ttl: Duration, now: SystemTime) -> Result<Leaf, CaError> {
        let key = KeyPair::generate().unwrap();
        leaf(&self.intermediate, &self.id(), &key, Names::IdentityOnly, ttl, now)
    }
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => *uri,
        other => panic!("{other} is not a URI"),
    };
    names.value.general_names.iter().map(uri).collect()
}

fn key_ids(certificate: &X509Certificate<'_>) -> (Vec<u8>, Vec<u8>) {
    let (mut own, mut above) = (Vec::new(), Vec::new());
    for extension in certificate.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = id.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                above = id.key_identifier.as_ref().unwrap().0.to_vec();
            }
            _ => {}
        }
    }
    (own, above)
}

#[test]
fn a_leaf_is_an_svid_and_nothing_more() {
    let fixture = Fixture::new();
    let leaf = fixture.leaf(TTL, fixture.now).unwrap();
    let certificate = parse(&leaf.chain[0]);
    assert_eq!(uris(&certificate), [fixture.id().as_str()]);
    assert!(certificate.subject_alternative_name().unwrap().unwrap().critical);
    assert_eq!(certificate.subject().iter().count(), 0);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature only");
    let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && purposes.server_auth && !purposes.any && purposes.other.is_empty());
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let validity = certificate.validity();
    let now = whole_seconds(fixture.now).unwrap();
    assert_eq!((leaf.not_before, leaf.not_after), (now - BACKDATE, now + TTL));
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    assert_eq!(validity.not_before.timestamp(), seconds(leaf.not_before));
    assert_eq!(validity.not_after.timestamp(), seconds(leaf.not_after));
    assert_eq!(leaf.serial, hex::encode(certificate.raw_serial()));
    assert_eq!(certificate.raw_serial().len(), Serial::BYTES);
    let (own, above) = key_ids(&certificate);
    let intermediate = parse(&leaf.chain[1]);
    assert_eq!(above, key_ids(&intermediate).0);
    assert!(own.len() >= 20 && own != above);
    assert_ne!(leaf.serial, fixture.leaf(TTL, fixture.now).unwrap().serial);
}

#[test]
fn authorities_may_sign_and_say_so() {
    let fixture = Fixture::new();
    let root = parse(fixture.authority.active().certificate());
    let intermediate = parse(&fixture.intermediate.certificate);
    for (certificate, path_length) in [(&root, None), (&intermediate, Some(0))] {
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, path_length);
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert_eq!(uris(certificate), [fixture.authority.domain.id().as_str()]);
        certificate.verify_signature(Some(root.public_key())).unwrap();
    }
    let name = root.subject().iter_common_name().next().unwrap().as_str().unwrap();
    let cluster = &fixture.authority.domain.as_str()[..8];
    assert!(name.starts_with("pri-") && name.ends_with(&format!(".weft.ca.{cluster}.consul")), "{name}");
    let (own, above) = key_ids(&root);
    assert_eq!(own, above);
}

#[test]
fn trust_domains_are_random_uuids_under_consul() {
    let now = SystemTime::now();
    let domain = Authority::create(now).unwrap().domain;
    let (uuid, rest) = domain.as_str().split_once('.').unwrap();
    assert_eq!(rest, "consul");
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert!(uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
    assert_ne!(domain, Authority::create(now).unwrap().domain);
}

#[test]
fn nothing_outlives_what_signed_it() {
    let fixture = Fixture::new();
    let end = fixture.intermediate.not_after;
    assert_eq!(end, whole_seconds(fixture.now).unwrap() + 30 * DAY);
    let long = fixture.leaf(60 * DAY, fixture.now).unwrap();
    assert_eq!(long.not_after, end);
    let last = fixture.leaf(TTL, end - Duration::from_secs(5)).unwrap();
    assert_eq!(last.not_after, end);
    assert!(fixture.leaf(TTL, end).is_err());
    let root = fixture.authority.active();
    let late = root.not_after() - DAY;
    let short = Intermediate::new(root, &fixture.authority.domain, TTL, late).unwrap();
    assert_eq!(short.not_after, root.not_after());
    assert!(Intermediate::new(root, &fixture.authority.domain, TTL, root.not_after()).is_err());
}

#[test]
fn an_intermediate_is_renewed_while_a_new_one_would_help() {
    let fixture = Fixture::new();
    let (now, end) = (fixture.now, fixture.intermediate.not_after);
    assert!(!fixture.intermediate.is_too_short(TTL, now));
    assert!(!fixture.intermediate.is_too_short(TTL, end - TTL));
    assert!(fixture.intermediate.is_too_short(TTL, end - TTL + Duration::from_secs(1)));
    let root = fixture.authority.active();
    let long = Intermediate::new(root, &fixture.authority.domain, 30 * DAY, now).unwrap();
    assert!(!long.is_too_short(30 * DAY, now), "the longest leaf must fit at once");
    // At the end of the root nothing helps, and trying each time would only cost.
    let last = Intermediate::new(root, &fixture.authority.domain, TTL, root.not_after() - DAY).unwrap();
    assert!(!last.is_too_short(TTL, root.not_after()));
}

fn request(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn allowed_keys_are_certified_whatever_else_a_request_says() {
    let fixture = Fixture::new();
    for algorithm in ALLOWED_KEYS {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut greedy = CertificateParams::default();
        greedy.subject_alt_names = vec![
            SanType::URI("spiffe://evil/svc/db".try_into().unwrap()),
            SanType::DnsName("bank.example".try_into().unwrap()),
        ];
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.key_usages = authority_usages();
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        greedy.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![5, 0])];
        let request = Request::parse(&request(&greedy, &key)).unwrap();
        let id = fixture.id();
        let names = Names::IdentityOnly;
        let leaf = leaf(&fixture.intermediate, &id, request.key(), names, TTL, fixture.now).unwrap();
        let certificate = parse(&leaf.chain[0]);
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert_eq!(uris(&certificate), [id.as_str()]);
        assert!(!certificate.is_ca() && certificate.extensions().len() == 6);
    }
}

#[test]
fn hostile_requests_are_refused() {
    let params = CertificateParams::default();
    let good = request(&params, &KeyPair::generate().unwrap());
    Request::parse(&good).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut trailing = good.clone();
    trailing.push(0);
    // The key of one request under the signature of another.
    let mut swapped = request(&params, &KeyPair::generate().unwrap());
    let own = Request::parse(&swapped).unwrap().key.der_bytes().to_vec();
    let other = Request::parse(&good).unwrap().key.der_bytes().to_vec();
    let at = swapped.windows(own.len()).position(|window| window == own).unwrap();
    swapped[at..at + own.len()].copy_from_slice(&other);
    let mut huge = CertificateParams::default();
    huge.custom_extensions =
        vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![0; MAX_REQUEST_BYTES])];
    let of = |algorithm| request(&params, &KeyPair::generate_for(algorithm).unwrap());
    let certificate = Authority::create(SystemTime::now()).unwrap().active().certificate().to_vec();
    for (case, der, word) in [
        ("nothing", Vec::new(), "not PKCS#10"),
        ("text", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), "not PKCS#10"),
        ("a cut", good[..good.len() - 1].to_vec(), "not PKCS#10"),
        ("a certificate", certificate, "not PKCS#10"),
        ("a deep nest", vec![0x30; 4000], "not PKCS#10"),
        ("a huge one", request(&huge, &KeyPair::generate().unwrap()), "at most 4096"),
        (
            "a length that lies",
            [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], good.as_slice()].concat(),
            "not PKCS#10",
        ),
        ("a byte more", trailing, "bytes follow"),
        ("a flipped bit", flipped, "signature"),
        ("another's key", swapped, "signature"),
        ("RSA", of(&rcgen::PKCS_RSA_SHA256), "must be ECDSA"),
        ("P-521", of(&rcgen::PKCS_ECDSA_P521_SHA512), "must be ECDSA"),
    ] {
        match Request::parse(&der) {
            Err(CaError::Request(text)) => assert!(text.contains(word), "{case}: {text}"),
            other => panic!("{case}: {:?}", other.err()),
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_parsing_panic(bytes: Vec<u8>, at: usize, change: u8) {
        let _either = Request::parse(&bytes);
        let key = KeyPair::generate().unwrap();
        let mut der = request(&CertificateParams::default(), &key);
        let at = at % der.len();
        der[at] ^= change;
        // A changed request either fails or still certifies the key that signed it.
        if let Ok(parsed) = Request::parse(&der) {
            proptest::prop_assert_eq!(parsed.key.der_bytes(), key.der_bytes());
        }
    }
}
