//! Cross-signing: the oldest root vouches for the key of the active one.
//!
//! Made by `authority` when a root takes over. The certificate has the name and the key of the new
//! root, so that every intermediate below that one also chains to the old root.

use std::time::{Duration, SystemTime};

use rcgen::string::{BmpString, UniversalString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyIdMethod,
    SubjectPublicKeyInfo,
};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

use super::CaError;
use super::issue::{Validity, authority_usages, params, uri};
use super::limits::CROSS_LIFETIME;
use super::root::{self, Root, Signer};
use crate::model::TrustDomain;

/// The key of `root` signed by `signer`, DER, for the trust domain `domain`. It lives for `horizon` at least, but never longer than
/// either of them.
pub(super) fn sign(
    signer: &Signer,
    root: &Root,
    domain: &TrustDomain,
    horizon: Duration,
    now: SystemTime,
) -> Result<Vec<u8>, CaError> {
    let parsed = root::parse(root.certificate()).map_err(CaError::Signing)?;
    let limit = signer.not_after.min(root.not_after());
    let validity = Validity::new(now, CROSS_LIFETIME.max(horizon), limit)?;
    let mut params: CertificateParams = params(&validity)?;
    params.distinguished_name = subject(parsed.subject()).ok_or_else(unusual)?;
    // As every issuer of the mesh, whatever the root itself is called.
    params.subject_alt_names = vec![uri(&domain.id())?];
    if let Some(id) = root::key_id(&parsed) {
        params.key_identifier_method = KeyIdMethod::PreSpecified(id.to_vec());
    }
    // One intermediate follows, and the leaf.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = authority_usages();
    let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?;
    let certificate = params.signed_by(&key, &signer.issuer)?.der().to_vec();
    let made = root::parse(&certificate).map_err(CaError::Signing)?;
    if made.subject().as_raw() != parsed.subject().as_raw() {
        return Err(unusual());
    }
    Ok(certificate)
}

fn unusual() -> CaError {
    CaError::Import("its subject has a form that cannot be repeated in another certificate".to_owned())
}

/// The same name, to the byte: chains are found by comparing them.
fn subject(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut copy = DistinguishedName::new();
    for part in name.iter() {
        let mut attributes = part.iter();
        let (attribute, None) = (attributes.next()?, attributes.next()) else { return None };
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let data = attribute.attr_value().data;
        let text = || std::str::from_utf8(data).ok();
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text()?.try_into().ok()?),
            Tag::Ia5String => DnValue::Ia5String(text()?.try_into().ok()?),
            Tag::T61String => DnValue::TeletexString(text()?.try_into().ok()?),
            Tag::BmpString => DnValue::BmpString(BmpString::from_utf16be(data.to_vec()).ok()?),
            Tag::UniversalString => {
                DnValue::UniversalString(UniversalString::from_utf32be(data.to_vec()).ok()?)
            }
            _ => return None,
        };
        copy.push(DnType::from_oid(&oid), value);
    }
    Some(copy)
}
