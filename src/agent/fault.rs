//! Why an exchange with the control plane failed, and whether it is worth another try.

use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::{Code, Status};

use crate::model::Reason;
use crate::model::token::TokenError;
use crate::tls::{self, TlsError};

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("control plane {server} cannot be reached: {source}")]
    Unreachable { server: String, source: io::Error },
    #[error("control plane {server} did not answer within {limit:?}")]
    Timeout { server: String, limit: Duration },
    #[error("TLS with control plane {server} failed, {reason}: {cause}{}", advice(*.reason))]
    Tls { server: String, reason: Reason, cause: String },
    #[error("the connection to control plane {server} broke: {cause}")]
    Broken { server: String, cause: String },
    #[error("control plane {server} refused: {}", .status.message())]
    Refused { server: String, status: Status },
    #[error(
        "control plane {server} is not on this machine, and there is no token; create one with `weft token create`"
    )]
    TokenNeeded { server: String },
    #[error("the enrolment token is malformed: {0}")]
    Token(#[from] TokenError),
    #[error("the certificate from control plane {server} is not usable: {source}")]
    Certificate { server: String, source: CertificateFault },
    #[error("no key pair can be made: {0}")]
    Key(TlsError),
    #[error("control plane {server} breaks the protocol: {what}")]
    Protocol { server: String, what: String },
    #[error(
        "control plane {server} is behind what is known here: it offers revision {offered}, {held} is in use"
    )]
    Behind { server: String, offered: u64, held: u64 },
}

/// What is wrong with a certificate that was just signed for us.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateFault {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("there is none to renew")]
    None,
    #[error("it has no trust bundle")]
    NoBundle,
    #[error("its trust bundle is malformed: {0}")]
    Bundle(String),
    #[error("it is for {found} instead of {expected}")]
    Other { found: String, expected: String },
}

fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::ClockSkew => "; this machine's clock is behind the server's (clock_skew)",
        Reason::CertExpired => "; unless it was not renewed, this machine's clock is ahead (clock_skew)",
        _ => "",
    }
}

impl Fault {
    /// What a call came to. A status that the server did not send is a broken connection.
    pub(super) fn of_call(server: &str, status: Status) -> Self {
        if let Some(error) = tls_error(status.source()) {
            return Self::of_tls(server, error);
        }
        let server = server.to_owned();
        if status.source().is_some() {
            return Self::Broken { server, cause: status.message().to_owned() };
        }
        Self::Refused { server, status }
    }

    /// What a handshake came to.
    pub(super) fn of_handshake(server: &str, error: io::Error) -> Self {
        match tls_error(Some(&error)) {
            Some(error) => Self::of_tls(server, error),
            None => Self::Unreachable { server: server.to_owned(), source: error },
        }
    }

    fn of_tls(server: &str, error: &rustls::Error) -> Self {
        let cause = tls::rejection_of(error).map_or_else(|| error.to_string(), ToString::to_string);
        Self::Tls { server: server.to_owned(), reason: tls::reason_of(error), cause }
    }

    /// An enrolment that no retry can mend.
    pub(super) fn ends_enrolment(&self) -> bool {
        let codes = [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument];
        matches!(self, Self::Token(_) | Self::TokenNeeded { .. }) || self.is_one_of(&codes)
    }

    /// The server belongs to another mesh than the token.
    pub(super) fn is_of_another_mesh(&self) -> bool {
        matches!(self, Self::Tls { reason: Reason::IdentityMismatch, .. })
    }

    /// A registration that no retry can mend.
    pub(super) fn ends_registration(&self) -> bool {
        self.is_one_of(&[Code::AlreadyExists, Code::PermissionDenied, Code::InvalidArgument])
    }

    fn is_one_of(&self, codes: &[Code]) -> bool {
        matches!(self, Self::Refused { status, .. } if codes.contains(&status.code()))
    }
}

/// The TLS error at the bottom of a transport error, such as a refused client certificate.
fn tls_error<'a>(mut cause: Option<&'a (dyn Error + 'static)>) -> Option<&'a rustls::Error> {
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref());
        if let Some(found) = error.downcast_ref().or(inner) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Rejection;

    fn handshake(rejection: Rejection) -> Fault {
        Fault::of_handshake("s:1", io::Error::other(rustls::Error::from(rejection)))
    }

    #[test]
    fn a_wrong_clock_is_named() {
        let behind = handshake(Rejection::NotYetValid { seconds_ahead: 600 }).to_string();
        assert!(behind.contains("clock_skew") && behind.contains("600 s"), "{behind}");
        let ahead = handshake(Rejection::Expired { seconds_ago: 9 }).to_string();
        assert!(ahead.contains("cert_expired") && ahead.contains("clock is ahead"), "{ahead}");
        let pin = handshake(Rejection::Pin).to_string();
        assert!(pin.contains("pinned key") && !pin.contains("clock"), "{pin}");
    }

    #[test]
    fn only_refusals_by_the_server_are_final() {
        let refused = |code| Fault::of_call("s:1", Status::new(code, "no"));
        assert!(refused(Code::Unauthenticated).ends_enrolment());
        assert!(!refused(Code::Unauthenticated).ends_registration());
        assert!(refused(Code::AlreadyExists).ends_registration());
        assert!(!refused(Code::AlreadyExists).ends_enrolment());
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Internal, Code::Aborted] {
            assert!(!refused(code).ends_enrolment() && !refused(code).ends_registration());
        }
        let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert!(matches!(Fault::of_call("s:1", broken), Fault::Broken { .. }));
    }
}
