//! A new key and the request to have it signed.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use zeroize::{Zeroize, Zeroizing};

use super::TlsError;

/// A leaf's private key and the request to have it signed.
pub struct KeyRequest {
    /// PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// PKCS#10, DER. It names nothing: the server decides what the certificate says.
    pub csr: Vec<u8>,
}

impl KeyRequest {
    /// A new ECDSA P-256 key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Material(format!("no key can be made: {error}"));
        let mut pair = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&pair).map_err(failed)?.der().to_vec();
        let key = Zeroizing::new(pair.serialize_der());
        pair.zeroize();
        Ok(Self { key, csr })
    }
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}
