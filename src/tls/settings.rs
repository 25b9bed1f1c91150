//! rustls settings in one place: TLS 1.3, no resumption in either direction, no SNI.
//!
//! A resumed session would take over the peer's certificate without looking at it again, even when it
//! has expired meanwhile, so servers hand out no tickets and clients keep none.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use super::TlsError;
use super::provider::{VERSIONS, provider};
use super::verify::ServerVerifier;

/// Why rustls cannot refuse the settings: it only checks that suites and groups exist for each version.
pub(super) const FITS: &str = "the provider has suites and groups for TLS 1.3";

/// A chain and its key (PKCS#8), which must fit its leaf.
pub(super) fn certified_key(chain: Vec<Vec<u8>>, key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    if chain.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    let key = any_supported_type(&key).map_err(|_| TlsError::Key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| TlsError::KeyMismatch)?;
    Ok(Arc::new(certified))
}

/// A server that presents `key` and lets `verifier` judge its clients.
pub(super) fn server(
    key: Arc<CertifiedKey>,
    verifier: Arc<dyn ClientCertVerifier>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)
        .expect(FITS)
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A client that lets `verifier` judge the server, and presents `key` if it has one.
pub(super) fn client(
    key: Option<Arc<CertifiedKey>>,
    verifier: ServerVerifier,
    alpn: &[u8],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)
        .expect(FITS)
        .dangerous() // the name of rustls for any verifier but its own
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match key {
        Some(key) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(key));
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}
