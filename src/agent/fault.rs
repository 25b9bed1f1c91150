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
    #[error("TLS with control plane {server} failed ({reason}): {source}{}", advice(*.reason))]
    Tls { server: String, reason: Reason, source: io::Error },
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
    #[error("it is for {found} instead of service {expected}")]
    Other { found: String, expected: String },
}

fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::ClockSkew => "; the clock of this machine or of the server is wrong",
        Reason::CertExpired => "; renew it, or set the clock of this machine if that is ahead",
        _ => "",
    }
}

impl Fault {
    /// What a call came to. A status without a message from the server is a broken connection.
    pub(super) fn of_call(server: &str, status: Status) -> Self {
        let server = server.to_owned();
        if let Some(tls) = tls_error(&status) {
            let reason = tls::reason_of(tls);
            return Self::Tls { server, reason, source: io::Error::other(tls.clone()) };
        }
        if status.source().is_some() {
            return Self::Broken { server, cause: status.message().to_owned() };
        }
        Self::Refused { server, status }
    }

    /// An enrolment that no retry can mend.
    pub(super) fn ends_enrolment(&self) -> bool {
        let codes = [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument];
        matches!(self, Self::Token(_) | Self::TokenNeeded { .. }) || self.is_one_of(&codes)
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
fn tls_error(status: &Status) -> Option<&rustls::Error> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(tls);
        }
        cause = error.source();
    }
    None
}
