//! The HTTPS port: the operator's certificate, taken anew from its files when they change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use crate::api::TlsSource;
use crate::app::AppError;
use crate::tls;
use crate::tls::files::{self, ClientAuthority, KeyFiles};

/// What a server is told of its HTTPS port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    pub address: SocketAddr,
    pub keys: KeyFiles,
    /// Who has a certificate of this authority is an operator. Where no token is required, everybody
    /// needs one.
    pub client_ca: Option<PathBuf>,
}

/// The settings of the moment, and the files they come from.
pub(super) struct Material {
    keys: KeyFiles,
    clients: ClientAuthority,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Material {
    /// # Errors
    /// When one of the files cannot be used.
    pub(super) fn load(https: &Https, tokens_required: bool) -> Result<Self, AppError> {
        let clients = match &https.client_ca {
            None => ClientAuthority::None,
            Some(path) if tokens_required => ClientAuthority::Optional(path.clone()),
            Some(path) => ClientAuthority::Required(path.clone()),
        };
        let config = files::server_config(&https.keys, &clients)?;
        let current = Arc::new(ArcSwap::new(config));
        Ok(Self { keys: https.keys.clone(), clients, current })
    }

    /// Reads the files again; on a fault the old settings go on.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub(super) fn refresh(&self) -> Result<(), AppError> {
        self.current.store(files::server_config(&self.keys, &self.clients)?);
        Ok(())
    }

    pub(super) fn source(&self) -> TlsSource {
        let current = Arc::clone(&self.current);
        source(move || current.load_full())
    }
}

/// TLS for the API with these settings.
pub(super) fn source(settings: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static) -> TlsSource {
    TlsSource {
        settings: Arc::new(settings),
        name: tls::certificate_name,
        why: |fault| (tls::reason_of_io(fault), tls::rejection_of_io(fault).map(ToString::to_string)),
    }
}
