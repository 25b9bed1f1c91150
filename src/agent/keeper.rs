//! The identity in use: what is published was checked before, and good is never replaced by nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

use super::fault::CertificateFault;
use crate::model::{Bundle, ServiceName};
use crate::tls::{BanList, Identity, TlsError};

/// Holds the parts of the identity, to build it anew when one of them changes.
pub(super) struct Keeper {
    service: ServiceName,
    sink: watch::Sender<Option<Arc<Identity>>>,
    held: Mutex<Held>,
    /// Peers that are refused; all identities share it.
    pub bans: BanList,
    /// Wakes the renewal before its time.
    pub renew_now: Notify,
    /// Held while a certificate is being renewed, and while a successor is being told of it: of two
    /// processes with one key only one may renew.
    pub renewing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Held {
    generation: u64,
    parts: Option<Parts>,
}

/// What an identity is built of.
#[derive(Clone)]
pub(super) struct Parts {
    pub chain: Vec<Vec<u8>>,
    pub key: Zeroizing<Vec<u8>>,
    pub bundle: Bundle,
}

impl Keeper {
    pub(super) fn new(service: ServiceName, sink: watch::Sender<Option<Arc<Identity>>>) -> Self {
        let (held, bans) = (Mutex::default(), BanList::default());
        Self { service, sink, held, bans, renew_now: Notify::new(), renewing: Arc::default() }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<Identity>>> {
        self.sink.subscribe()
    }

    /// Version of the bundle in use; 0 before there is one.
    pub(super) fn bundle_version(&self) -> u64 {
        self.lock().parts.as_ref().map_or(0, |parts| parts.bundle.version)
    }

    /// Those in use; `None` before there is a certificate.
    pub(super) fn parts(&self) -> Option<Parts> {
        self.lock().parts.clone()
    }

    /// Publishes a new certificate if everything fits.
    pub(super) fn install(
        &self,
        chain: Vec<Vec<u8>>,
        key: Zeroizing<Vec<u8>>,
        bundle: Bundle,
        now: SystemTime,
    ) -> Result<Arc<Identity>, CertificateFault> {
        let held = &mut *self.lock();
        let newer = |held: &&Parts| {
            held.bundle.trust_domain == bundle.trust_domain && held.bundle.version > bundle.version
        };
        // A bundle that was pushed meanwhile is not taken back.
        let bundle = held.parts.as_ref().filter(newer).map_or(bundle, |parts| parts.bundle.clone());
        let generation = held.generation + 1;
        let identity = Identity::guarded(generation, chain.clone(), &key, &bundle, &self.bans, now)?;
        let named = identity.id().service().map(|(_, service)| service);
        if named.as_ref() != Some(&self.service) {
            let (found, expected) = (identity.id().to_string(), self.service.to_string());
            return Err(CertificateFault::Other { found, expected });
        }
        Ok(self.publish(held, Parts { chain, key, bundle }, identity))
    }

    /// Publishes the same certificate with a new bundle. When the certificate is not of that bundle
    /// any more, the old one stays in use and a new certificate is asked for at once.
    pub(super) fn accept_bundle(&self, bundle: &Bundle, now: SystemTime) -> Result<(), TlsError> {
        let held = &mut *self.lock();
        let Some(parts) = &held.parts else { return Ok(()) };
        if parts.bundle == *bundle || parts.bundle.version > bundle.version {
            return Ok(());
        }
        let (generation, chain) = (held.generation + 1, parts.chain.clone());
        let rebuilt = Identity::guarded(generation, chain, &parts.key, bundle, &self.bans, now);
        let identity = rebuilt.inspect_err(|_| self.renew_now.notify_one())?;
        let parts = Parts { chain: parts.chain.clone(), key: parts.key.clone(), bundle: bundle.clone() };
        self.publish(held, parts, identity);
        Ok(())
    }

    fn publish(&self, held: &mut Held, parts: Parts, identity: Identity) -> Arc<Identity> {
        let identity = Arc::new(identity);
        held.generation = identity.generation();
        held.parts = Some(parts);
        self.sink.send_replace(Some(Arc::clone(&identity)));
        identity
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Parts and generation change together, after everything that could fail.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "tests/keeper.rs"]
mod tests;
