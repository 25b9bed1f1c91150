//! The server's own certificate and TLS settings, rebuilt before they expire and when the bundle or
//! what signs changes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::sleep;

use super::ControlError;
use super::limits::MATERIAL_RETRY;
use crate::ca::Ca;
use crate::model::{Bans, Bundle};
use crate::tls::{BanList, TlsError};

/// Longest sleep: the certificate's clock is the wall clock, which may jump while we sleep.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// What makes TLS settings of a chain, its key and the bundle.
type Build =
    fn(Vec<Vec<u8>>, &[u8], &Bundle, &BanList, SystemTime) -> Result<Arc<ServerConfig>, TlsError>;

/// TLS settings and when to replace them.
pub(super) struct Material {
    pub config: Arc<ServerConfig>,
    build: Build,
    renew_at: SystemTime,
}

impl Material {
    /// New key, new certificate, current bundle.
    pub(super) fn make(ca: &Ca, bans: &BanList, build: Build) -> Result<Self, ControlError> {
        let now = SystemTime::now();
        let own = ca.server_material()?;
        let bundle = ca.bundle().borrow().clone();
        let config = build(own.chain, &own.key, &bundle, bans, now)?;
        let left = own.not_after.duration_since(now).unwrap_or_default();
        Ok(Self { config, build, renew_at: now + left / 2 })
    }
}

/// Keeps the settings in `sink` fresh, for ever. When that fails the old ones stay.
pub(super) async fn keep_fresh(
    ca: Ca,
    bans: BanList,
    first: Material,
    sink: watch::Sender<Arc<ServerConfig>>,
) {
    let (mut bundle, mut authority) = (ca.bundle(), ca.version());
    let Material { build, mut renew_at, .. } = first;
    // What was current when `first` was made is not news.
    bundle.mark_unchanged();
    authority.mark_unchanged();
    loop {
        let left = renew_at.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = sleep(left.min(MAX_SLEEP)) => if left > MAX_SLEEP { continue },
            Ok(()) = bundle.changed() => {}
            // Another intermediate below the same external root is what new tokens pin.
            Ok(()) = authority.changed() => {}
        }
        match Material::make(&ca, &bans, build) {
            Ok(made) => {
                renew_at = made.renew_at;
                sink.send_replace(made.config);
            }
            Err(error) => {
                tracing::error!(%error, "the server's certificate was not renewed; the old one stays in use");
                renew_at = SystemTime::now() + MATERIAL_RETRY;
            }
        }
    }
}

/// Keeps the list that handshakes are judged by current, for as long as there is a catalog.
pub(super) async fn follow_bans(mut bans: watch::Receiver<Arc<Bans>>, list: BanList) {
    loop {
        list.replace(Arc::clone(&bans.borrow_and_update()));
        if bans.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
