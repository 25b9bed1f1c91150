//! What this server signs with, kept in step with the roots in the store.
//!
//! [`super::Ca`] reads it and renews the intermediate; [`follow`] replaces it when any server changes
//! the roots. What is not usable is never taken over.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::issue::Intermediate;
use super::root::{self, Authority};
use super::{CaError, Settings};
use crate::model::Bundle;
use crate::store::{Revision, Store};

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

/// Takes over what other servers (or this one) change about the roots, until the store stops.
pub(super) async fn follow(
    store: Arc<dyn Store>,
    revision: Revision,
    state: Arc<ArcSwap<State>>,
    settings: Settings,
    bundle: watch::Sender<Arc<Bundle>>,
) {
    let mut commits = match store.watch(root::KEY, revision).await {
        Ok(commits) => commits,
        Err(error) => return tracing::error!(%error, "changes of the roots cannot be followed"),
    };
    while let Some(commit) = commits.recv().await {
        for (key, entry) in commit.changes {
            if key != root::KEY {
                continue;
            }
            let Some(entry) = entry else {
                tracing::error!(
                    "the roots were deleted from the store; the last known ones stay in use"
                );
                continue;
            };
            if let Err(error) = adopt(&entry.value, &state, &settings, &bundle) {
                tracing::error!(%error, "changed roots are not usable; the last known ones stay in use");
            }
        }
    }
}

fn adopt(
    value: &[u8],
    state: &ArcSwap<State>,
    settings: &Settings,
    bundle: &watch::Sender<Arc<Bundle>>,
) -> Result<(), CaError> {
    let authority = Arc::new(Authority::decode(value)?);
    let current = state.load();
    if authority.domain != current.authority.domain {
        return Err(CaError::Signing(format!("the trust domain became {}", authority.domain)));
    }
    if authority.version <= current.authority.version {
        return Ok(());
    }
    let news = Arc::new(authority.bundle());
    state.store(Arc::new(State::new(authority, settings, SystemTime::now())?));
    bundle.send_replace(news);
    Ok(())
}
