//! What the authority hands out and tells: certificates with or without keys, and public views.

use std::fmt;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::model::{ServiceName, SpiffeId};

/// A signed leaf.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// DER, leaf first, then the intermediate, then (for a while after a rotation) the root's key as an
    /// older root has signed it.
    pub chain: Vec<Vec<u8>>,
    pub id: SpiffeId,
    /// Lower-case hex.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// The server's own certificate and key, for the gRPC port.
pub struct ServerMaterial {
    /// DER: that of a leaf, and the active and the oldest root. They are sent along so that a sidecar
    /// that has nothing but a token can find the key that the token pins.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    pub not_after: SystemTime,
}

impl fmt::Debug for ServerMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMaterial").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// A leaf together with its key, for an application that speaks Connect itself.
pub struct ServiceMaterial {
    pub leaf: Leaf,
    /// Certificates, leaf first, as PEM.
    pub chain_pem: String,
    /// SEC 1, as PEM, which is what Consul hands out.
    pub key_pem: Zeroizing<String>,
}

/// A public view of a token.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    pub id: String,
    pub services: Vec<ServiceName>,
    pub uses_left: u32,
    pub expires: SystemTime,
}

/// A public view of a root certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootInfo {
    /// SHA-1 of the certificate in hex with colons, which is how Consul names roots.
    pub id: String,
    /// The subject's common name.
    pub name: String,
    /// Lower-case hex.
    pub serial: String,
    /// Subject key identifier in hex with colons.
    pub key_id: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub pem: String,
    /// Whether this root signs; the others are only trusted.
    pub active: bool,
    /// Its key is with an external authority.
    pub is_external: bool,
    /// Its key as an older root has signed it.
    pub cross_pem: Option<String>,
    /// When it leaves the bundle; `None` before it has stopped to sign.
    pub leaves_at: Option<SystemTime>,
}

/// What a listener hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A leaf was asked for by a service, and whether it was signed.
    Leaf {
        granted: bool,
    },
    TokenCreated,
    TokenUsed,
    TokenRefused,
    TokenRevoked,
    /// A renewal was granted or refused, in one word.
    Renewal(&'static str),
}
