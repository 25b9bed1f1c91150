//! Certificates and keys as PEM text.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use zeroize::Zeroizing;

use super::CaError;
pub(super) use crate::model::pem::encode;

/// A P-256 key in PKCS#8 as a PEM block of SEC 1 (RFC 5915), which applications of Consul read.
pub(super) fn sec1(pkcs8: &[u8]) -> Result<Zeroizing<String>, CaError> {
    let unreadable = |_| CaError::Signing("the new key cannot be written".to_owned());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
        .map_err(|error| CaError::Signing(error.to_string()))?;
    let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().map_err(unreadable)?;
    Ok(Zeroizing::new(encode("EC PRIVATE KEY", der.as_ref())))
}
