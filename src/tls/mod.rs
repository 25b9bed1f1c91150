//! rustls settings, built once per rotation, and the one SPIFFE verifier that both sides use.
//!
//! `agent`, `tunnel`, `proxy` and `control` call it. Invariants: TLS 1.3 only; every peer certificate
//! goes through `verify`; nothing is ever resumed; an [`Identity`] exists only if its parts fit.

mod aes;
mod bans;
pub mod files;
mod identity;
mod key;
mod leaf;
mod operators;
mod provider;
mod reason;
mod settings;
mod verify;

#[cfg(test)]
pub(crate) mod impostors;
#[cfg(test)]
mod pinned;
#[cfg(test)]
mod refusals;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};

pub use self::bans::BanList;
pub use self::identity::Identity;
pub use self::key::KeyRequest;
pub use self::operators::certificate_name;
pub use self::reason::{Rejection, reason_of, reason_of_io, rejection_of, rejection_of_io};

use self::verify::{ClientVerifier, Expected, Role, ServerVerifier, Trust, TrustSource};
use crate::model::spiffe::SpiffeError;
use crate::model::{Bundle, SpiffeId, TrustDomain, hex};

/// ALPN name of the lane protocol.
pub const ALPN_LANE: &[u8] = b"weft/1";
/// ALPN name of HTTP/2, which the control plane speaks.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1, in which people and tools call.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    Material(String),
    #[error("there is no certificate")]
    NoCertificate,
    #[error("the private key is not a usable PKCS#8 key")]
    Key,
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    #[error("root {index} of the trust bundle is malformed: {detail}")]
    Root { index: usize, detail: String },
    #[error("the trust bundle of {domain} has {roots} roots, which is none or too many")]
    Roots { domain: TrustDomain, roots: usize },
    #[error("the own certificate would be refused: {0}")]
    Own(Rejection),
    #[error("the certificate is for {0}, which is not a service")]
    NotService(SpiffeId),
    #[error("`{name}` cannot be part of an identity: {source}")]
    Service { name: String, source: SpiffeError },
    #[error("the peer has no usable identity: {0}")]
    Peer(Rejection),
    #[error("the peer presented no certificate")]
    Anonymous,
}

/// For the gRPC port of a control plane server: client certificates are optional, and verified when
/// presented; ALPN `h2`; TLS 1.3 only; no tickets.
///
/// `chain` is leaf, intermediate and root, DER, and `key` PKCS#8. The root has to be in the chain: a
/// sidecar that enrols knows no more than the hash of its key.
///
/// # Errors
/// Which of the parts does not fit the others, and why.
pub fn grpc_server_config(
    chain: Vec<Vec<u8>>,
    key: &[u8],
    bundle: &Bundle,
    bans: &BanList,
    now: SystemTime,
) -> Result<Arc<ServerConfig>, TlsError> {
    let key = settings::certified_key(chain, key)?;
    let trust = Arc::new(Trust::new(bundle, bans)?);
    identity::check_own(&trust, &key, &[Role::Server], now)?;
    let clients = ClientVerifier { trust, expected: Expected::AnyMember, mandatory: false };
    Ok(settings::server(key, Arc::new(clients), &[ALPN_H2]))
}

/// For a port whose readers need no certificate: the server's SVID, ALPN `http/1.1`; TLS 1.3 only; no
/// tickets. The arguments are those of [`grpc_server_config`].
///
/// # Errors
/// As there.
pub fn open_server_config(
    chain: Vec<Vec<u8>>,
    key: &[u8],
    bundle: &Bundle,
    bans: &BanList,
    now: SystemTime,
) -> Result<Arc<ServerConfig>, TlsError> {
    let key = settings::certified_key(chain, key)?;
    identity::check_own(&Trust::new(bundle, bans)?, &key, &[Role::Server], now)?;
    Ok(settings::server(key, WebPkiClientVerifier::no_client_auth(), &[ALPN_HTTP1]))
}

/// For enrolment, without a certificate: any server identity of the trust domain whose root has the
/// pinned key (lower-case hex of the SHA-256 of its `SubjectPublicKeyInfo`); ALPN `h2`.
///
/// Without a pin the root that the server presents is believed, so pass `None` only toward a server in
/// dev mode on loopback.
#[must_use]
pub fn bootstrap_config(pin: Option<&str>) -> Arc<ClientConfig> {
    let trust = TrustSource::Presented { pin: pin.map(str::to_ascii_lowercase) };
    settings::client(None, ServerVerifier { trust, expected: Expected::AnyServer }, ALPN_H2)
}

/// What to pass to rustls as the name of a peer: identities are checked instead of names, and SNI is
/// off, so this goes nowhere.
#[must_use]
pub fn no_server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
}

/// The SPIFFE ID of a peer whose handshake has finished.
///
/// # Errors
/// When the peer presented no certificate, or (which a finished handshake rules out) one without
/// exactly one SPIFFE ID.
pub fn peer_id(certificates: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, TlsError> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(TlsError::Anonymous)?;
    let certificate = leaf::parse(leaf).map_err(TlsError::Peer)?;
    leaf::spiffe_id(&certificate).map_err(TlsError::Peer)
}

/// The key id of the root above a verified chain, in hex with colons; empty when the certificate after
/// the leaf does not tell.
#[must_use]
pub fn root_key_id(chain: &[CertificateDer<'_>]) -> String {
    let issuer = chain.get(1).and_then(|der| leaf::parse(der).ok());
    issuer.map(|issuer| hex::encode_with_colons(leaf::authority_key_id(&issuer))).unwrap_or_default()
}

/// What the verified certificate of a peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: SpiffeId,
    /// Lower-case hex.
    pub serial: Arc<str>,
    pub not_after: SystemTime,
    /// Key id of the root that its issuer is from, see [`root_key_id`].
    pub root_key_id: String,
}

/// What is known of a peer whose handshake has finished.
///
/// # Errors
/// As [`peer_id`].
pub fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Result<Peer, TlsError> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(TlsError::Anonymous)?;
    let certificate = leaf::parse(leaf).map_err(TlsError::Peer)?;
    Ok(Peer {
        id: leaf::spiffe_id(&certificate).map_err(TlsError::Peer)?,
        serial: hex::encode(certificate.raw_serial()).into(),
        not_after: leaf::time(certificate.validity().not_after.timestamp()),
        root_key_id: root_key_id(certificates.unwrap_or_default()),
    })
}
