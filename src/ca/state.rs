//! What this server signs with, kept in step with the roots in the store.
//!
//! [`super::Ca`] reads it and renews the intermediate; [`Follower`] replaces it when any server changes
//! the roots. What is not usable is never taken over.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::issue::Intermediate;
use super::root::{self, Authority};
use super::{CaError, Settings};
use crate::model::Bundle;
use crate::store::{Entry, Revision, Store, StoreError};

/// What signing needs at one moment.
pub(super) struct State {
    pub(super) authority: Arc<Authority>,
    pub(super) intermediate: Intermediate,
}

impl State {
    pub(super) fn new(
        authority: Arc<Authority>,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let root = authority.active();
        let intermediate = Intermediate::new(root, &authority.domain, settings.leaf_ttl, now)?;
        Ok(Self { authority, intermediate })
    }
}

/// Takes over what other servers (or this one) change about the roots.
pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    pub(super) state: Arc<ArcSwap<State>>,
    pub(super) settings: Settings,
    pub(super) bundle: watch::Sender<Arc<Bundle>>,
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
        let mut commits = match self.store.watch(root::KEY, revision).await {
            Ok(commits) => commits,
            Err(error) => return error,
        };
        loop {
            let commit = match commits.recv().await {
                Ok(commit) => commit,
                Err(error) => return error,
            };
            for (key, entry) in commit.changes {
                if key == root::KEY {
                    self.consider(entry.as_ref());
                }
            }
        }
    }

    /// Takes over what is there now, when the changes that led to it are lost.
    async fn reload(&self) -> Result<Revision, StoreError> {
        let image = self.store.load(root::KEY).await?;
        self.consider(image.entries.iter().find(|entry| entry.key == root::KEY));
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
        let authority = Arc::new(Authority::decode(value)?);
        let current = self.state.load();
        if authority.domain != current.authority.domain {
            return Err(CaError::Signing(format!("the trust domain became {}", authority.domain)));
        }
        if authority.version <= current.authority.version {
            return Ok(());
        }
        let news = Arc::new(authority.bundle());
        self.state.store(Arc::new(State::new(authority, &self.settings, SystemTime::now())?));
        self.bundle.send_replace(news);
        Ok(())
    }
}

fn report(error: &StoreError) {
    tracing::error!(%error, "changes of the roots are not followed any more; restart this server");
}
