//! Signing: the intermediate of a server, and the leaves it signs.
//!
//! Called by [`super::Ca`] and by `weft ca dev`. Everything here is a function of its arguments (and
//! of fresh random keys and signatures); the caller passes the clock. This is the only code that
//! writes the fields of a certificate, and nothing but the public key ever comes from a request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::root::{Keys, Root, Signer};
use super::{CaError, Leaf};
use crate::model::{EnrolmentId, Serial, SpiffeId, TrustDomain, hex};

/// Largest request that is parsed, in bytes. One with a P-384 key has about 400.
const MAX_REQUEST_BYTES: usize = 4096;
/// How far `NotBefore` lies in the past, so that a peer whose clock is five minutes behind accepts it.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Shortest lifetime of a new intermediate.
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Keys that a certificate may have.
pub(super) const ALLOWED_KEYS: [&rcgen::SignatureAlgorithm; 3] =
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];

/// An issuing certificate with its key, which never leaves the memory of this process.
pub(super) struct Intermediate {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
    /// The root's key as an older root has signed it, for peers that know no other.
    cross: Option<Vec<u8>>,
    not_after: SystemTime,
    root_not_after: SystemTime,
}

impl Intermediate {
    /// A new key and a certificate for it that may sign leaves only (path length 0). Below the root of
    /// an external authority it is the intermediate which that one has signed.
    ///
    /// It lives at least [`INTERMEDIATE_LIFETIME`] and twice `leaf_ttl`, but never longer than `root`.
    pub(super) fn new(
        root: &Root,
        domain: &TrustDomain,
        leaf_ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let signer = match root.keys() {
            Keys::Own(signer) => signer,
            Keys::External(signer) => return Self::given(signer, root),
        };
        let wanted = INTERMEDIATE_LIFETIME.max(leaf_ttl.saturating_mul(2));
        let validity = Validity::new(now, wanted, root.not_after())?;
        let mut params = params(&validity)?;
        params.distinguished_name = common_name(&authority_name("sec", domain)?);
        params.subject_alt_names = vec![uri(&domain.id())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = authority_usages();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &signer.issuer)?;
        Ok(Self {
            certificate: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
            cross: None,
            not_after: validity.not_after,
            root_not_after: root.not_after(),
        })
    }

    fn given(signer: &Signer, root: &Root) -> Result<Self, CaError> {
        let pair = KeyPair::try_from(signer.key.as_slice())?;
        let not_after = signer.not_after.min(root.not_after());
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&signer.certificate.as_slice().into(), pair)?,
            certificate: signer.certificate.clone(),
            cross: None,
            not_after,
            // A later one has to come from outside: there is nothing that could be made here.
            root_not_after: not_after,
        })
    }

    /// Sends a cross-signed certificate of the root along with every leaf.
    pub(super) fn with_cross(self, cross: Option<Vec<u8>>) -> Self {
        Self { cross, ..self }
    }

    /// Whether a leaf of `ttl` signed now would be cut short although a new intermediate could help.
    pub(super) fn is_too_short(&self, ttl: Duration, now: SystemTime) -> bool {
        let wanted = now.checked_add(ttl).unwrap_or(self.root_not_after);
        self.not_after < wanted && self.not_after < self.root_not_after
    }

    /// What follows a leaf in its chain.
    fn above(&self) -> impl Iterator<Item = Vec<u8>> {
        std::iter::once(&self.certificate).chain(&self.cross).cloned()
    }
}

/// A request to certify a public key, whose holder has proven to have the private key.
pub(super) struct Request {
    key: SubjectPublicKeyInfo,
}

impl Request {
    /// Parses a PKCS#10 request (DER) and verifies its signature.
    pub(super) fn parse(der: &[u8]) -> Result<Self, CaError> {
        let refuse = |why: &str| CaError::Request(why.to_owned());
        if der.len() > MAX_REQUEST_BYTES {
            let text = format!("it has {} bytes; at most {MAX_REQUEST_BYTES} are allowed", der.len());
            return Err(CaError::Request(text));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| refuse("it is not PKCS#10 in DER"))?;
        if !rest.is_empty() {
            return Err(refuse("bytes follow after its end"));
        }
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|_| refuse("its key is of an unknown type; use ECDSA P-256"))?;
        // The type is checked first: verifying with an odd key may be expensive.
        if !ALLOWED_KEYS.contains(&key.algorithm()) {
            return Err(refuse("its key must be ECDSA P-256, ECDSA P-384 or Ed25519"));
        }
        request.verify_signature().map_err(|_| refuse("its signature does not fit its key"))?;
        Ok(Self { key })
    }

    /// Lower-case hex of the SHA-256 of the key's `SubjectPublicKeyInfo`.
    pub(super) fn key_hash(&self) -> String {
        key_hash(&self.key)
    }

    pub(super) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

fn key_hash(key: &impl PublicKeyData) -> String {
    hex::encode(digest::digest(&digest::SHA256, &key.subject_public_key_info()).as_ref())
}

/// The serial number of a certificate for a key that renews none. Named after the key, so that a request
/// which is repeated because the answer was lost makes no second enrolment.
pub(super) fn first_serial(key: &impl PublicKeyData) -> Serial {
    let hash = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    let mut name = [0; 8];
    name.copy_from_slice(&hash.as_ref()[..8]);
    Serial { enrolment: EnrolmentId::new(name), generation: 0 }
}

/// What a leaf is good for besides its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// The SPIFFE ID only.
    IdentityOnly,
    /// Also `localhost`, 127.0.0.1 and `::1`, so that ordinary TLS clients accept a server there.
    Loopback,
}

/// Signs a leaf for `id` over `key`. It lives for `ttl`, or as long as its issuer if that is less. It
/// cannot be renewed: its generation is 0.
pub(super) fn leaf(
    intermediate: &Intermediate,
    id: &SpiffeId,
    key: &impl PublicKeyData,
    names: Names,
    ttl: Duration,
    now: SystemTime,
) -> Result<Leaf, CaError> {
    numbered_leaf(intermediate, id, key, first_serial(key), names, ttl, now)
}

/// The same with a serial number of the caller's choice, but for its random part.
pub(super) fn numbered_leaf(
    intermediate: &Intermediate,
    id: &SpiffeId,
    key: &impl PublicKeyData,
    serial: Serial,
    names: Names,
    ttl: Duration,
    now: SystemTime,
) -> Result<Leaf, CaError> {
    if id.path().is_empty() {
        return Err(CaError::Signing(format!("{id} is a signing authority, not a workload")));
    }
    let validity = Validity::new(now, ttl, intermediate.not_after)?;
    let mut params = params(&validity)?;
    let serial = serial.to_bytes(random()?);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    // An empty subject makes the names critical (RFC 5280, 4.2.1.6): nobody may look elsewhere.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = alternative_names(id, names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(key, &intermediate.issuer)?;
    Ok(Leaf {
        chain: std::iter::once(certificate.der().to_vec()).chain(intermediate.above()).collect(),
        id: id.clone(),
        serial: hex::encode(&serial),
        not_before: validity.not_before,
        not_after: validity.not_after,
    })
}

/// From when until when, in whole seconds as certificates have them.
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

impl Validity {
    /// From a little before `now` for `ttl`, but not beyond `limit`.
    pub(super) fn new(now: SystemTime, ttl: Duration, limit: SystemTime) -> Result<Self, CaError> {
        let now = whole_seconds(now)?;
        let not_after = now.checked_add(ttl).map_or(limit, |end| end.min(limit));
        if not_after <= now {
            return Err(CaError::Signing("the issuing certificate has expired".into()));
        }
        let not_before = now.checked_sub(BACKDATE).unwrap_or(UNIX_EPOCH);
        Ok(Self { not_before, not_after: whole_seconds(not_after)? })
    }
}

fn whole_seconds(time: SystemTime) -> Result<SystemTime, CaError> {
    let since = time
        .duration_since(UNIX_EPOCH)
        .map_err(|_| CaError::Signing("the clock stands before 1970; set it".into()))?;
    Ok(UNIX_EPOCH + Duration::from_secs(since.as_secs()))
}

/// What all certificates of this authority have in common.
pub(super) fn params(validity: &Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(super) fn authority_usages() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

/// A name in Consul's form, such as `pri-1a2b3c4d.weft.ca.9f3c01d2.consul`. Only for people to read.
pub(super) fn authority_name(kind: &str, domain: &TrustDomain) -> Result<String, CaError> {
    let label = hex::encode(&random::<4>()?);
    let (cluster, rest) = domain.as_str().split_once('.').unwrap_or((domain.as_str(), "consul"));
    let short: String = cluster.chars().take(8).collect();
    Ok(format!("{kind}-{label}.weft.ca.{short}.{rest}"))
}

pub(super) fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

pub(super) fn uri(id: &SpiffeId) -> Result<SanType, CaError> {
    Ok(SanType::URI(id.as_str().try_into()?))
}

fn alternative_names(id: &SpiffeId, names: Names) -> Result<Vec<SanType>, CaError> {
    let mut all = vec![uri(id)?];
    if names == Names::Loopback {
        all.push(SanType::DnsName("localhost".try_into()?));
        all.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        all.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
    Ok(all)
}

/// 126 random bits in 16 bytes: positive, and never with a leading zero byte.
fn random_serial() -> Result<[u8; 16], CaError> {
    let mut bytes = random::<16>()?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(bytes)
}

/// Fresh random bytes from the system's generator.
pub(super) fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| CaError::Signing("the system gives no random bytes".into()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
