//! Why a peer's certificate was refused, as values, and the reason word for a failed handshake.
//!
//! A [`Rejection`] travels inside `rustls::Error`, so nobody reads error text to decide anything. The
//! peer itself only gets the alert `certificate_unknown`.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, OtherError};

use crate::model::spiffe::SpiffeError;
use crate::model::{Reason, SpiffeId, TrustDomain};

/// Why a certificate chain was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the chain has {certificates} certificates and {bytes} bytes, which is more than allowed")]
    ChainTooLarge { certificates: usize, bytes: usize },
    #[error("an issuer in the chain is not one of the trust domain {0}: it does not name it")]
    Issuer(TrustDomain),
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the chain does not lead to a root of the trust domain: {0:?}")]
    Untrusted(webpki::Error),
    #[error("a certificate of the chain expired {seconds_ago} s ago; check its renewal and the clocks")]
    Expired { seconds_ago: u64 },
    #[error("a certificate of the chain is valid only in {seconds_ahead} s; check the clocks")]
    NotYetValid { seconds_ahead: u64 },
    #[error("the certificate is an authority's, not a workload's")]
    Authority,
    #[error("the key usage of the certificate does not fit a workload")]
    KeyUsage,
    #[error("the extended key usage of the certificate does not fit its role")]
    ExtendedKeyUsage,
    #[error("the key of the certificate is not ECDSA P-256, ECDSA P-384 or Ed25519")]
    KeyType,
    #[error("the certificate names something besides one URI, DNS names and IP addresses")]
    OtherNames,
    #[error("the certificate has {0} URI names instead of one")]
    UriNames(usize),
    #[error("the URI name is not a SPIFFE ID: {0}")]
    Spiffe(#[from] SpiffeError),
    #[error("the SPIFFE ID has upper-case letters where identities of a mesh have none")]
    Spelling,
    #[error("{0} is a trust domain, not a workload")]
    NoPath(SpiffeId),
    #[error("{id} does not belong to the trust domain {domain}")]
    ForeignDomain { id: SpiffeId, domain: TrustDomain },
    #[error("the peer is {found} instead of {expected}")]
    Unexpected { found: SpiffeId, expected: SpiffeId },
    #[error("it is the certificate of a workload, which is never an operator's")]
    Workload,
    #[error("{0} is not a service")]
    NotService(SpiffeId),
    #[error("{0} is not a control plane server")]
    NotServer(SpiffeId),
    #[error("{id} with serial number {serial} is banned by its {by}; `weft ban list` says why")]
    Banned { id: SpiffeId, serial: String, by: &'static str },
    #[error("the server does not present an authority with the pinned key; is the token of this mesh?")]
    Pin,
    #[error("the authority that the server presents is not usable as one")]
    Root,
}

impl Rejection {
    /// The word for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Expired { .. } => Reason::CertExpired,
            Self::NotYetValid { .. } => Reason::ClockSkew,
            Self::Banned { .. } => Reason::Denied,
            Self::ForeignDomain { .. }
            | Self::Unexpected { .. }
            | Self::NotService(_)
            | Self::Workload
            | Self::NotServer(_)
            | Self::Pin => Reason::IdentityMismatch,
            Self::ChainTooLarge { .. }
            | Self::Malformed
            | Self::Untrusted(_)
            | Self::Issuer(_)
            | Self::Authority
            | Self::KeyUsage
            | Self::ExtendedKeyUsage
            | Self::KeyType
            | Self::OtherNames
            | Self::UriNames(_)
            | Self::Spiffe(_)
            | Self::Spelling
            | Self::NoPath(_)
            | Self::Root => Reason::TlsHandshake,
        }
    }
}

impl From<webpki::Error> for Rejection {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { time, not_after } => {
                Self::Expired { seconds_ago: time.as_secs().saturating_sub(not_after.as_secs()) }
            }
            webpki::Error::CertNotValidYet { time, not_before } => {
                Self::NotYetValid { seconds_ahead: not_before.as_secs().saturating_sub(time.as_secs()) }
            }
            webpki::Error::CaUsedAsEndEntity => Self::Authority,
            webpki::Error::RequiredEkuNotFoundContext(_) => Self::ExtendedKeyUsage,
            other => Self::Untrusted(other),
        }
    }
}

impl From<Rejection> for rustls::Error {
    fn from(rejection: Rejection) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejection))))
    }
}

/// Why this side refused the peer's certificate, if that is what failed.
#[must_use]
pub fn rejection_of(error: &rustls::Error) -> Option<&Rejection> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// The reason word for a failed handshake.
#[must_use]
pub fn reason_of(error: &rustls::Error) -> Reason {
    if let Some(rejection) = rejection_of(error) {
        return rejection.reason();
    }
    match error {
        // Peers other than ours tell more in their alerts.
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Reason::CertExpired,
        _ => Reason::TlsHandshake,
    }
}

/// Why this side refused the peer's certificate on a stream, if that is what failed.
#[must_use]
pub fn rejection_of_io(error: &io::Error) -> Option<&Rejection> {
    error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(rejection_of)
}

/// The reason word for a handshake that failed on a stream, which wraps the TLS error if there is one.
#[must_use]
pub fn reason_of_io(error: &io::Error) -> Reason {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or(Reason::TlsHandshake, reason_of)
}
