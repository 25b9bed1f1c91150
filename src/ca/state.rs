//! What this server signs with, kept in step with the roots in the store.
//!
//! [`super::Ca`] reads it and renews the intermediate; [`Follower`] replaces it when any server changes
//! the roots. What is not usable is never taken over. The intermediate is made anew only when the
//! root that signs has changed, or who vouches for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::authority::Authority;
use super::document::{self, KEY};
use super::issue::Intermediate;
use super::seal::Keyring;
use super::{CaError, Settings};
use crate::model::Bundle;
use crate::store::{Entry, Revision, Store, StoreError};

/// What signing needs at one moment.
pub(super) struct State {
    pub(super) authority: Arc<Authority>,
    pub(super) intermediate: Arc<Intermediate>,
    /// Life of the leaves signed.
    pub(super) leaf_ttl: Duration,
}

impl State {
    pub(super) fn new(
        authority: Arc<Authority>,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let leaf_ttl = authority.leaf_ttl.unwrap_or(settings.leaf_ttl);
        let root = authority.active();
        let intermediate = Intermediate::new(root, &authority.domain, leaf_ttl, now)?;
        let cross = authority.cross().map(|der| der.to_vec());
        let intermediate = Arc::new(intermediate.with_cross(cross));
        Ok(Self { authority, intermediate, leaf_ttl })
    }

    /// The state after a change of the authority.
    fn after(
        &self,
        authority: Arc<Authority>,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let same = authority.active().id() == self.authority.active().id()
            && authority.active().pin() == self.authority.active().pin()
            && authority.cross() == self.authority.cross();
        if !same {
            return Self::new(authority, settings, now);
        }
        let leaf_ttl = authority.leaf_ttl.unwrap_or(settings.leaf_ttl);
        Ok(Self { authority, intermediate: Arc::clone(&self.intermediate), leaf_ttl })
    }
}

/// Takes over what other servers (or this one) change about the roots.
pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    pub(super) state: Arc<ArcSwap<State>>,
    pub(super) settings: Settings,
    pub(super) ring: Keyring,
    pub(super) bundle: watch::Sender<Arc<Bundle>>,
    /// Version of the authority.
    pub(super) version: watch::Sender<u64>,
}

impl Follower {
    /// Follows the store from `revision` until it stops.
    pub(super) async fn run(self, mut revision: Revision) {
        loop {
            match self.watch(revision).await {
                StoreError::Compacted(_) => match self.reload().await {
                    Ok(now) => revision = now,
                    Err(error) => return report(&error),
                },
                error => return report(&error),
            }
        }
    }

    /// Takes over every change after `revision`; returns what ended that.
    async fn watch(&self, revision: Revision) -> StoreError {
        let mut commits = match self.store.watch(KEY, revision).await {
            Ok(commits) => commits,
            Err(error) => return error,
        };
        loop {
            let commit = match commits.recv().await {
                Ok(commit) => commit,
                Err(error) => return error,
            };
            for (key, entry) in commit.changes {
                if key == KEY {
                    self.consider(entry.as_ref());
                }
            }
        }
    }

    /// Takes over what is there now, when the changes that led to it are lost.
    async fn reload(&self) -> Result<Revision, StoreError> {
        let image = self.store.load(KEY).await?;
        self.consider(image.entries.iter().find(|entry| entry.key == KEY));
        Ok(image.revision)
    }

    fn consider(&self, entry: Option<&Entry>) {
        let Some(entry) = entry else {
            tracing::error!("the roots were deleted from the store; the last known ones stay in use");
            return;
        };
        if let Err(error) = self.adopt(&entry.value) {
            tracing::error!(%error, "changed roots are not usable; the last known ones stay in use");
        }
    }

    fn adopt(&self, value: &[u8]) -> Result<(), CaError> {
        let authority = Arc::new(document::decode(value, &self.ring)?);
        let current = self.state.load();
        if authority.domain != current.authority.domain {
            return Err(CaError::Signing(format!("the trust domain became {}", authority.domain)));
        }
        if authority.version <= current.authority.version {
            return Ok(());
        }
        let (news, version) = (authority.bundle(), authority.version);
        let next = current.after(authority, &self.settings, SystemTime::now())?;
        self.state.store(Arc::new(next));
        self.bundle.send_if_modified(|bundle| {
            let is_new = news.version > bundle.version;
            if is_new {
                *bundle = Arc::new(news);
            }
            is_new
        });
        self.version.send_replace(version);
        Ok(())
    }
}

fn report(error: &StoreError) {
    tracing::error!(%error, "changes of the roots are not followed any more; restart this server");
}
