//! PEM text (RFC 7468) of certificates and keys.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::CaError;

/// Columns of base64 in a line (RFC 7468, section 2).
const COLUMNS: usize = 64;

/// `der` as a PEM block with this label, ending in a newline.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(COLUMNS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

/// A P-256 key in PKCS#8 as a PEM block of SEC 1 (RFC 5915), which applications of Consul read.
pub(super) fn sec1(pkcs8: &[u8]) -> Result<Zeroizing<String>, CaError> {
    let unreadable = |_| CaError::Signing("the new key cannot be written".to_owned());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
        .map_err(|error| CaError::Signing(error.to_string()))?;
    let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().map_err(unreadable)?;
    Ok(Zeroizing::new(encode("EC PRIVATE KEY", der.as_ref())))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn another_parser_reads_it_back() {
        for length in [1, 47, 48, 49, 96, 500] {
            let der = vec![0xa5; length];
            let text = super::encode("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }
}
