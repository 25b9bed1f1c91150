//! The HTTPS port: the operator's certificate, and who among its callers is an operator.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::material::Material;
use crate::api::Tls;
use crate::app::AppError;
use crate::net::accept::TlsSource;
use crate::tls::files::{ClientAuthority, KeyFiles};
use crate::tls::{self, ALPN_HTTP1};

/// What a server is told of its HTTPS port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    pub address: SocketAddr,
    pub keys: KeyFiles,
    /// Who has a certificate of this authority is an operator. Where no token is required, everybody
    /// needs one.
    pub client_ca: Option<PathBuf>,
}

impl Https {
    pub(super) fn material(&self, tokens_required: bool) -> Result<Material, AppError> {
        let clients = match &self.client_ca {
            None => ClientAuthority::None,
            Some(path) if tokens_required => ClientAuthority::Optional(path.clone()),
            Some(path) => ClientAuthority::Required(path.clone()),
        };
        Material::load(&self.keys, clients, ALPN_HTTP1)
    }
}

/// TLS for the API with these settings.
pub(super) fn tls(settings: TlsSource) -> Tls {
    Tls {
        settings,
        name: tls::certificate_name,
        why: |fault| (tls::reason_of_io(fault), tls::rejection_of_io(fault).map(ToString::to_string)),
    }
}
