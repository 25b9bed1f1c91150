//! The closed list of reasons why a connection ended or never began.
//!
//! One list serves metrics, access log, tunnel frames and API, so that the same word means the same
//! thing everywhere. The number of each reason is part of the tunnel's wire format: never reuse one.

use std::fmt;

/// Why a connection ended, or why it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Both directions ended cleanly.
    Ok = 0,
    /// An intention (or the default policy) forbids source to destination.
    Denied = 1,
    /// The catalog has no such service, or this sidecar does not serve it.
    NoService = 2,
    /// The service exists but has no healthy endpoint.
    NoHealthyEndpoint = 3,
    /// The endpoint's sidecar refused the TCP connection.
    ConnectRefused = 4,
    /// The endpoint's sidecar did not answer in time.
    ConnectTimeout = 5,
    /// The TLS handshake failed or did not finish in time.
    TlsHandshake = 6,
    /// The peer proved another identity than the expected one.
    IdentityMismatch = 7,
    /// A certificate on the path has expired.
    CertExpired = 8,
    /// A certificate is not valid yet: the clocks disagree.
    ClockSkew = 9,
    /// The destination application refused the connection or could not be reached by its sidecar.
    AppRefused = 10,
    /// An application reset the connection.
    AppReset = 11,
    /// The peer sidecar vanished or broke the connection off.
    PeerReset = 12,
    /// A sidecar was shutting down and the grace period ran out.
    Drained = 13,
    /// Nothing moved for longer than the limit.
    IdleTimeout = 14,
    /// A limit was reached.
    Overloaded = 15,
    /// The sidecar has no configuration recent enough to decide.
    ConfigStale = 16,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Denied,
        Self::NoService,
        Self::NoHealthyEndpoint,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::TlsHandshake,
        Self::IdentityMismatch,
        Self::CertExpired,
        Self::ClockSkew,
        Self::AppRefused,
        Self::AppReset,
        Self::PeerReset,
        Self::Drained,
        Self::IdleTimeout,
        Self::Overloaded,
        Self::ConfigStale,
    ];

    /// The word used in logs, metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::NoService => "no_service",
            Self::NoHealthyEndpoint => "no_healthy_endpoint",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsHandshake => "tls_handshake",
            Self::IdentityMismatch => "identity_mismatch",
            Self::CertExpired => "cert_expired",
            Self::ClockSkew => "clock_skew",
            Self::AppRefused => "app_refused",
            Self::AppReset => "app_reset",
            Self::PeerReset => "peer_reset",
            Self::Drained => "drained",
            Self::IdleTimeout => "idle_timeout",
            Self::Overloaded => "overloaded",
            Self::ConfigStale => "config_stale",
        }
    }

    /// The number used in tunnel frames.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_words_are_distinct() {
        let mut words = std::collections::BTreeSet::new();
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(reason.code()), number);
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
            assert!(words.insert(reason.as_str()));
        }
        assert_eq!(Reason::from_code(17), None);
    }
}
