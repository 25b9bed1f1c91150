//! rustls settings, built once per rotation, and the one SPIFFE verifier that both sides use.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};

use crate::model::{Bundle, Reason, ServiceName, SpiffeId};

/// ALPN name of the lane protocol.
pub const ALPN_LANE: &[u8] = b"weft/1";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    Material(String),
}

/// A leaf's private key and the request to have it signed.
pub struct KeyRequest {
    /// PKCS#8, DER.
    pub key: zeroize::Zeroizing<Vec<u8>>,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
}

impl KeyRequest {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, TlsError> {
        todo!()
    }
}

/// A proxy's certificate, key and trust, ready for handshakes. Immutable.
pub struct Identity {
    _private: (),
}

impl Identity {
    /// Checks that chain, key, bundle and validity fit each other before anyone may use them.
    /// `generation` grows with every rotation.
    pub fn new(
        _generation: u64,
        _chain: Vec<Vec<u8>>,
        _key: &[u8],
        _bundle: &Bundle,
        _now: SystemTime,
    ) -> Result<Self, TlsError> {
        todo!()
    }
    pub fn id(&self) -> &SpiffeId {
        todo!()
    }
    pub fn generation(&self) -> u64 {
        todo!()
    }
    pub fn not_before(&self) -> SystemTime {
        todo!()
    }
    pub fn not_after(&self) -> SystemTime {
        todo!()
    }
    /// Lower-case hex.
    pub fn serial(&self) -> &str {
        todo!()
    }
    /// For the inbound port: client certificate required, TLS 1.3 only, no tickets; ALPN `weft/1`, `h2`, `http/1.1`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        todo!()
    }
    /// For dialling the sidecar of `service`, whose exact identity is pinned. Cached.
    pub fn client_config(&self, _service: &ServiceName) -> Result<Arc<ClientConfig>, TlsError> {
        todo!()
    }
    /// For the control plane: any server identity of the trust domain; ALPN `h2`.
    pub fn control_config(&self) -> Arc<ClientConfig> {
        todo!()
    }
}

/// The SPIFFE ID of a peer whose handshake has finished.
pub fn peer_id(_certificates: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, TlsError> {
    todo!()
}

/// The reason word for a failed handshake.
pub fn reason_of(_error: &rustls::Error) -> Reason {
    todo!()
}
