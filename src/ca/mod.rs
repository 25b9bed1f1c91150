//! The certificate authority: the only place that signs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::model::{Bundle, ServiceName, SpiffeId, TrustDomain};
use crate::store::{Store, StoreError};

#[derive(Debug, Clone)]
pub struct Settings {
    pub datacenter: String,
    /// Names this server in its own certificate.
    pub server_id: String,
    pub leaf_ttl: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    #[error("signing failed: {0}")]
    Signing(String),
    #[error("the token is unknown, used up or expired; create one with `weft token create`")]
    TokenRefused,
    #[error("the token is not for service {service}; it is bound to {bound}")]
    TokenForOther { service: String, bound: String },
}

/// A signed leaf.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// DER, leaf first, then the intermediate.
    pub chain: Vec<Vec<u8>>,
    pub id: SpiffeId,
    /// Lower-case hex.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// The server's own certificate and key, for the gRPC port.
pub struct ServerMaterial {
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: zeroize::Zeroizing<Vec<u8>>,
    pub not_after: SystemTime,
}

/// A public view of a token.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    pub id: String,
    pub services: Vec<ServiceName>,
    pub uses_left: u32,
    pub expires: SystemTime,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Ca {
    _private: Arc<()>,
}

impl Ca {
    /// Loads the roots from the store, makes the first one when there is none, and makes this server's intermediate.
    pub async fn open(_store: Arc<dyn Store>, _settings: Settings) -> Result<Self, CaError> {
        todo!()
    }
    pub fn settings(&self) -> &Settings {
        todo!()
    }
    pub fn trust_domain(&self) -> &TrustDomain {
        todo!()
    }
    /// The current bundle and its changes.
    pub fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        todo!()
    }
    /// The identity of a service in this trust domain and datacenter.
    pub fn service_id(&self, _service: &ServiceName) -> Result<SpiffeId, CaError> {
        todo!()
    }
    /// Signs a leaf for `id` over the public key of a PKCS#10 request (DER), whose own signature must
    /// hold. Nothing else is taken from the request.
    pub fn issue(&self, _id: &SpiffeId, _csr: &[u8]) -> Result<Leaf, CaError> {
        todo!()
    }
    /// A fresh key and certificate for the gRPC port.
    pub fn server_material(&self) -> Result<ServerMaterial, CaError> {
        todo!()
    }
    /// Makes an enrolment token `wt1.<id>.<secret>.<pin>`; only its hash is stored.
    pub async fn create_token(
        &self,
        _services: Vec<ServiceName>,
        _ttl: Duration,
        _uses: u32,
    ) -> Result<String, CaError> {
        todo!()
    }
    /// Uses a token for `service` and the public key of `csr`: compare-and-set before signing; the
    /// same token may come again with the same key only.
    pub async fn enrol(
        &self,
        _token: &str,
        _service: &ServiceName,
        _csr: &[u8],
    ) -> Result<Leaf, CaError> {
        todo!()
    }
}
