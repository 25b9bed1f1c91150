//! What the process of a sidecar leaves to its successor when it is upgraded in place.
//!
//! `app` carries it from one process to the other over a private socket. It holds a private key: it is
//! never logged, and wiped when dropped.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedMutexGuard, watch};
use zeroize::Zeroizing;

use super::keeper::{Keeper, Parts};
use super::shared::{Results, Role};
use crate::model::{Bundle, CheckReport};

/// See the module.
pub struct Estate {
    /// The name under which the control plane knows the process: whoever says it takes over.
    pub process: Vec<u8>,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    pub bundle: Bundle,
    /// The latest results of the checks, so that a healthy instance stays healthy.
    pub results: Vec<CheckReport>,
}

impl fmt::Debug for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Estate").finish_non_exhaustive()
    }
}

/// See [`Succession::estate`].
pub struct Rest {
    _renewing: OwnedMutexGuard<()>,
}

/// Hands an agent's instance from process to process. Cheap to clone.
#[derive(Clone)]
pub struct Succession {
    pub(super) process: Vec<u8>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) results: watch::Receiver<Results>,
    pub(super) role: watch::Sender<Role>,
}

impl Succession {
    /// What a successor needs to be this sidecar; `None` before the first certificate. As long as the
    /// rest is kept, this process does not renew the certificate, which would leave the successor with
    /// one that was renewed before: the mark of a copied key.
    pub async fn estate(&self) -> Option<(Estate, Rest)> {
        let rest = Rest { _renewing: Arc::clone(&self.keeper.renewing).lock_owned().await };
        let Parts { chain, key, bundle } = self.keeper.parts()?;
        let results = self.results.borrow().values().cloned().collect();
        Some((Estate { process: self.process.clone(), chain, key, bundle, results }, rest))
    }

    /// From now on this process holds the instance: it takes it over from the one before.
    pub fn claim(&self) {
        self.role.send_replace(Role::Holder);
    }

    /// From now on a successor holds the instance. This process keeps it until the successor is there,
    /// then only follows the configuration, and deregisters nothing at its end.
    pub fn cede(&self) {
        self.role.send_replace(Role::Observer);
    }
}
