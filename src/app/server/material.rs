//! TLS settings made of the operator's files, and made anew when the files change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use crate::app::AppError;
use crate::net::accept::TlsSource;
use crate::tls::files::{self, ClientAuthority, KeyFiles};

/// The settings of the moment, and the files they come from.
pub(super) struct Material {
    keys: KeyFiles,
    clients: ClientAuthority,
    protocol: &'static [u8],
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Material {
    /// # Errors
    /// When one of the files cannot be used.
    pub(super) fn load(
        keys: &KeyFiles,
        clients: ClientAuthority,
        protocol: &'static [u8],
    ) -> Result<Self, AppError> {
        let config = files::server_config(keys, &clients, protocol)?;
        let current = Arc::new(ArcSwap::new(config));
        Ok(Self { keys: keys.clone(), clients, protocol, current })
    }

    /// Reads the files again; on a fault the old settings go on.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub(super) fn refresh(&self) -> Result<(), AppError> {
        self.current.store(files::server_config(&self.keys, &self.clients, self.protocol)?);
        Ok(())
    }

    pub(super) fn source(&self) -> TlsSource {
        let current = Arc::clone(&self.current);
        Arc::new(move || current.load_full())
    }
}
