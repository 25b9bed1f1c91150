//! One root: its certificate, what signs below it, and what is shown of it.
//!
//! A root of our own has its key here. One of an external authority has none; instead it has an
//! intermediate that the external authority signed for a key of ours. `authority` keeps the roots.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::issue::{ALLOWED_KEYS, Validity, authority_name, authority_usages, common_name, params, uri};
use super::{CaError, RootInfo, pem};
use crate::model::{TrustDomain, hex};

/// Lifetime of a root: 10 years, as in Consul.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate with the key that signs below it.
pub(super) struct Signer {
    pub(super) certificate: Vec<u8>,
    /// As it is stored.
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) not_after: SystemTime,
}

/// See the module.
pub(super) struct Root {
    certificate: Vec<u8>,
    keys: Keys,
    not_after: SystemTime,
    info: RootInfo,
    pin: String,
}

/// Where the key below a root is.
pub(super) enum Keys {
    /// The root's own key.
    Own(Signer),
    /// The key of an intermediate that an external authority has signed.
    External(Signer),
}

impl Signer {
    /// Fits a key to a certificate that may sign.
    pub(super) fn new(certificate: Vec<u8>, key: Zeroizing<Vec<u8>>) -> Result<Self, String> {
        let pair = KeyPair::try_from(key.as_slice())
            .map_err(|_| "its key is not a private key in PKCS#8 or SEC 1".to_owned())?;
        if !ALLOWED_KEYS.contains(&pair.algorithm()) {
            return Err("its key must be ECDSA P-256, ECDSA P-384 or Ed25519".to_owned());
        }
        let parsed = parse(&certificate)?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&pair) {
            return Err("its key does not fit its certificate".to_owned());
        }
        check_authority(&parsed)?;
        let not_after = time(parsed.validity().not_after.timestamp())?;
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), pair)
            .map_err(|error| error.to_string())?;
        Ok(Self { certificate, key, issuer, not_after })
    }
}

impl Root {
    /// A new root with a new key.
    pub(super) fn create(domain: &TrustDomain, now: SystemTime) -> Result<Self, CaError> {
        Self::create_for(&KeyPair::generate()?, domain, now)
    }

    /// A new root for a key that there is already.
    pub(super) fn create_for(
        key: &KeyPair,
        domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let limit = now + ROOT_LIFETIME;
        let mut params = params(&Validity::new(now, ROOT_LIFETIME, limit)?)?;
        params.distinguished_name = common_name(&authority_name("pri", domain)?);
        params.subject_alt_names = vec![uri(&domain.id())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = authority_usages();
        let certificate = params.self_signed(key)?.der().to_vec();
        let stored = Zeroizing::new(key.serialize_der());
        Self::own(certificate, stored, domain).map_err(CaError::Signing)
    }

    /// A root whose key is here. Its only name is that of the trust domain.
    pub(super) fn own(
        certificate: Vec<u8>,
        key: Zeroizing<Vec<u8>>,
        domain: &TrustDomain,
    ) -> Result<Self, String> {
        let signer = Signer::new(certificate.clone(), key)?;
        let parsed = parse(&certificate)?;
        if names(&parsed) != [domain.id().as_str()] {
            return Err(format!("its only alternative name must be URI:{}", domain.id()));
        }
        if parsed.verify_signature(None).is_err() {
            return Err("it is not signed by its own key; for a certificate that somebody else signed \
                        use `weft ca csr` and `weft ca install`"
                .to_owned());
        }
        let pin = pin(&parsed);
        Self::new(&certificate, Keys::Own(signer), pin)
    }

    /// The root of an external authority, and the intermediate that it signed for us.
    pub(super) fn external(
        certificate: Vec<u8>,
        intermediate: Vec<u8>,
        key: Zeroizing<Vec<u8>>,
        domain: &TrustDomain,
    ) -> Result<Self, String> {
        let parsed = parse(&certificate)?;
        check_authority(&parsed)?;
        let below = parse(&intermediate)?;
        let id = domain.id();
        if names(&below) != [id.as_str()] {
            return Err(format!(
                "the only alternative name of the intermediate must be URI:{id}, as requested"
            ));
        }
        if below.verify_signature(Some(parsed.public_key())).is_err()
            || below.issuer().as_raw() != parsed.subject().as_raw()
        {
            return Err("the intermediate is not signed by the certificate after it".to_owned());
        }
        // Enrolment tokens pin the intermediate: the key above it may serve other domains too.
        let pin = pin(&below);
        let signer = Signer::new(intermediate, key).map_err(|why| format!("the intermediate: {why}"))?;
        Self::new(&certificate, Keys::External(signer), pin)
    }

    fn new(certificate: &[u8], keys: Keys, pin: String) -> Result<Self, String> {
        let (info, not_after) = describe(certificate, matches!(keys, Keys::External(_)))?;
        Ok(Self { certificate: certificate.to_vec(), keys, not_after, info, pin })
    }

    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The root's own key; `None` for that of an external authority.
    pub(super) fn signer(&self) -> Option<&Signer> {
        match &self.keys {
            Keys::Own(signer) => Some(signer),
            Keys::External(_) => None,
        }
    }

    pub(super) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What tokens pin: lower-case hex of the SHA-256 of the root's `SubjectPublicKeyInfo`, or of that
    /// of the intermediate below the root of an external authority.
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    pub(super) fn id(&self) -> &str {
        &self.info.id
    }

    pub(super) fn info(&self) -> &RootInfo {
        &self.info
    }

    pub(super) fn pem(&self) -> &str {
        &self.info.pem
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("id", &self.info.id).finish_non_exhaustive()
    }
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err("it is not a certificate".to_owned()),
    }
}

/// Whether a certificate may have an intermediate, or a leaf, below it.
fn check_authority(certificate: &X509Certificate<'_>) -> Result<(), String> {
    if !certificate.is_ca() {
        return Err("it is not the certificate of an authority (basicConstraints CA:TRUE)".to_owned());
    }
    let usage = certificate.key_usage().map_err(|error| error.to_string())?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("its key usage does not allow it to sign certificates (keyCertSign)".to_owned());
    }
    Ok(())
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'a>| match name {
        GeneralName::URI(uri) => *uri,
        _ => "",
    };
    names.value.general_names.iter().map(text).collect()
}

fn pin(certificate: &X509Certificate<'_>) -> String {
    hex::encode(digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref())
}

/// The subject key identifier.
pub(super) fn key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

fn describe(der: &[u8], is_external: bool) -> Result<(RootInfo, SystemTime), String> {
    let parsed = parse(der)?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    let not_after = time(parsed.validity().not_after.timestamp())?;
    let info = RootInfo {
        id: hex::encode_with_colons(sha1.as_ref()),
        name: name.unwrap_or_default().to_owned(),
        serial: hex::encode(parsed.raw_serial()),
        key_id: hex::encode_with_colons(key_id(&parsed).unwrap_or_default()),
        not_before: time(parsed.validity().not_before.timestamp())?,
        not_after,
        pem: pem::encode("CERTIFICATE", der),
        active: false,
        is_external,
        cross_pem: None,
        leaves_at: None,
    };
    Ok((info, not_after))
}

pub(super) fn time(seconds: i64) -> Result<SystemTime, String> {
    let seconds = u64::try_from(seconds).map_err(|_| "it is dated before 1970".to_owned())?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}
