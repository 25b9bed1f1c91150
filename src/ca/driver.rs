//! Carries a rotation on: asks [`super::rotation`] what is due and writes it to the store.
//!
//! Started by [`super::Ca::open`]. The `follower` takes over what it writes, as it does what other
//! servers write; so a rotation goes on wherever it was, after a restart too.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::CaError;
use super::authority::{Authority, seconds};
use super::document;
use super::limits::TICK;
use super::rotation::{self, Census, Due, Step, View};
use super::seal::Keyring;
use super::state::State;
use crate::store::Store;

/// Counts the sidecars for the version of a bundle and the key id of a root.
pub(super) type Count = Box<dyn Fn(u64, &str) -> Census + Send + Sync>;

/// See the module.
pub(super) struct Driver {
    pub(super) store: Arc<dyn Store>,
    pub(super) state: Arc<ArcSwap<State>>,
    pub(super) ring: Keyring,
    pub(super) version: watch::Receiver<u64>,
    pub(super) count: Arc<OnceLock<Count>>,
    /// Before that, sidecars may not be back yet.
    pub(super) settled: Instant,
}

impl Driver {
    /// Runs until the authority is gone.
    pub(super) async fn run(mut self) {
        let mut failing = false;
        loop {
            let authority = Arc::clone(&self.state.load().authority);
            if is_at_rest(&authority) {
                if self.version.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let done = self.step(&authority, SystemTime::now()).await;
            if let Err(error) = &done
                && !failing
            {
                tracing::error!(%error, "the rotation of the root does not go on; trying again");
            }
            failing = done.is_err();
            tokio::select! {
                changed = self.version.changed() => if changed.is_err() { return },
                () = sleep(TICK) => {}
            }
        }
    }

    /// Writes what is due, if anything is.
    async fn step(&self, authority: &Authority, now: SystemTime) -> Result<(), CaError> {
        let due = rotation::next(&self.view(authority, &authority.retiring()), seconds(now));
        let Some(due) = due else { return Ok(()) };
        let known = authority.version;
        // Decided on this version: if the store has another, the next look decides anew.
        let stored = document::change(&*self.store, &self.ring, |current| {
            if current.version == known { apply(current, due, now) } else { Ok(None) }
        });
        let stored = stored.await?;
        if stored.version > known {
            let root = stored.active().id();
            tracing::info!(?due, active = root, version = stored.version, "the roots have changed");
        }
        Ok(())
    }

    fn view<'a>(&self, authority: &'a Authority, retiring: &'a [u64]) -> View<'a> {
        let bundle = authority.rotation.as_ref().map_or(0, |rotation| rotation.bundle);
        let settled = Instant::now() >= self.settled;
        let count = self.count.get().filter(|_| settled);
        View {
            rotation: authority.rotation.as_ref(),
            retiring,
            horizon_s: authority.horizon().as_secs(),
            can_cross: authority.can_cross(),
            census: match count {
                Some(count) => Some(count(bundle, &authority.active().info().key_id)),
                // Nobody counts: then there are no sidecars.
                None if settled => Some(Census::default()),
                None => None,
            },
        }
    }
}

/// Nothing happens before somebody changes something.
fn is_at_rest(authority: &Authority) -> bool {
    let rests = authority.rotation.as_ref().is_none_or(|rotation| rotation.step == Step::Done);
    rests && authority.retiring().is_empty()
}

fn apply(authority: &Authority, due: Due, now: SystemTime) -> Result<Option<Authority>, CaError> {
    match due {
        Due::Activate => authority.activate(now),
        Due::Reissued => Ok(authority.advance(Step::Reissue, Step::Retire, now)),
        Due::Retire => authority.retire(now),
        Due::Finish => Ok(authority.advance(Step::Retire, Step::Done, now)),
    }
}
