//! The cryptography of every TLS connection: TLS 1.3 only, chosen here and never taken from a
//! process-wide default.

use std::sync::{Arc, LazyLock};

use rustls::SignatureScheme;
use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use webpki::aws_lc_rs as algorithm;

use super::aes;

/// The only protocol version offered and accepted.
pub(super) const VERSIONS: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// Signatures accepted, in certificates and in handshakes: no RSA, no SHA-1, no curve but P-256,
/// P-384 and Ed25519.
pub(super) static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        algorithm::ECDSA_P256_SHA256,
        algorithm::ECDSA_P256_SHA384,
        algorithm::ECDSA_P384_SHA256,
        algorithm::ECDSA_P384_SHA384,
        algorithm::ED25519,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[algorithm::ECDSA_P256_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[algorithm::ECDSA_P384_SHA384]),
        (SignatureScheme::ED25519, &[algorithm::ED25519]),
    ],
};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: [&aes::suites()[..], &[cipher_suite::TLS13_CHACHA20_POLY1305_SHA256]].concat(),
        // The hybrid first: what is recorded today shall not be readable by a later quantum computer.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        signature_verification_algorithms: SIGNATURES,
        ..default_provider()
    })
});

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
