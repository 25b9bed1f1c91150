//! What a leaf says about its holder, read strictly by the rules for X.509-SVIDs.
//!
//! Called by [`super::verify`] after the path to a root has been verified. Exactly one URI name counts;
//! the common name is never read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::reason::Rejection;
use super::verify::Role;
use crate::model::{SpiffeId, hex};

/// The facts of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) id: SpiffeId,
    /// Lower-case hex.
    pub(super) serial: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Reads a leaf whose holder acts in each of `roles`.
pub(super) fn read(der: &CertificateDer<'_>, roles: &[Role]) -> Result<Facts, Rejection> {
    let certificate = parse(der)?;
    check_basic_constraints(&certificate)?;
    check_key_usage(&certificate)?;
    check_extended_key_usage(&certificate, roles)?;
    check_key_type(certificate.public_key())?;
    let id = spiffe_id(&certificate)?;
    if id.path().is_empty() {
        return Err(Rejection::NoPath(id));
    }
    Ok(Facts {
        id,
        serial: hex::encode(certificate.raw_serial()),
        not_before: time(certificate.validity().not_before.timestamp()),
        not_after: time(certificate.validity().not_after.timestamp()),
    })
}

/// Parses a certificate that must fill `der` to the last byte.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Rejection> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Rejection::Malformed),
    }
}

/// Whether a certificate is valid now; chains are verified without a look at the dates of their roots.
pub(super) fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Rejection> {
    let (from, until) = (certificate.validity().not_before, certificate.validity().not_after);
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let since = |earlier: i64, later: i64| u64::try_from(later.saturating_sub(earlier)).unwrap_or(0);
    if now < from.timestamp() {
        return Err(Rejection::NotYetValid { seconds_ahead: since(now, from.timestamp()) });
    }
    if now > until.timestamp() {
        return Err(Rejection::Expired { seconds_ago: since(until.timestamp(), now) });
    }
    Ok(())
}

/// Whether a certificate may have others below it.
pub(super) fn may_issue(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.key_usage();
    certificate.is_ca() && usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// The one URI name, which must be a SPIFFE ID in its canonical spelling.
pub(super) fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Rejection> {
    let names = certificate.subject_alternative_name().map_err(|_| Rejection::Malformed)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) => {}
            _ => return Err(Rejection::OtherNames),
        }
    }
    let [uri] = uris[..] else {
        return Err(Rejection::UriNames(uris.len()));
    };
    let id = SpiffeId::parse(uri)?;
    if id.as_str() == uri { Ok(id) } else { Err(Rejection::Spelling) }
}

/// The identifier of the key that signed a certificate; empty when it does not say.
pub(super) fn authority_key_id<'a>(certificate: &'a X509Certificate<'_>) -> &'a [u8] {
    let id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
        _ => None,
    });
    id.map(|id| id.0).unwrap_or_default()
}

fn check_basic_constraints(certificate: &X509Certificate<'_>) -> Result<(), Rejection> {
    match certificate.basic_constraints().map_err(|_| Rejection::Malformed)? {
        Some(constraints) if constraints.value.ca => Err(Rejection::Authority),
        _ => Ok(()),
    }
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), Rejection> {
    let usage = certificate.key_usage().map_err(|_| Rejection::Malformed)?.ok_or(Rejection::KeyUsage)?;
    let usage = usage.value;
    if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() {
        Ok(())
    } else {
        Err(Rejection::KeyUsage)
    }
}

/// `webpki` lets a certificate without the extension pass; an SVID must have it.
fn check_extended_key_usage(certificate: &X509Certificate<'_>, roles: &[Role]) -> Result<(), Rejection> {
    let usage = certificate.extended_key_usage().map_err(|_| Rejection::Malformed)?;
    let usage = usage.ok_or(Rejection::ExtendedKeyUsage)?.value;
    let fits = |role: &Role| match role {
        Role::Server => usage.server_auth,
        Role::Client => usage.client_auth,
    };
    if roles.iter().all(fits) { Ok(()) } else { Err(Rejection::ExtendedKeyUsage) }
}

fn check_key_type(key: &SubjectPublicKeyInfo<'_>) -> Result<(), Rejection> {
    let algorithm = &key.algorithm;
    let allowed = if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
    } else {
        algorithm.algorithm == OID_SIG_ED25519
    };
    if allowed { Ok(()) } else { Err(Rejection::KeyType) }
}

/// Seconds since the Unix epoch. Validity was checked before; a time before 1970 would not have passed.
pub(super) fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
