//! Readiness by drop guards: every subsystem that must come up holds a `Pending`, and dropping it
//! ticks it off.
//!
//! Take all tokens before the subsystems start; whoever takes one later makes the process not ready
//! again, but never un-starts it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// What must have happened before a process is ready. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Shared>,
}

struct Shared {
    created: Instant,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    /// How many tokens of each name are held; entries are never zero.
    missing: BTreeMap<&'static str, usize>,
    started: bool,
    draining: bool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    #[must_use]
    pub fn new() -> Self {
        let (state, _) = watch::channel(State::default());
        Self { shared: Arc::new(Shared { created: Instant::now(), state }) }
    }

    /// Adds something to wait for. Two tokens of one name are both waited for.
    #[must_use = "dropping the token says that it has happened"]
    pub fn pending(&self, what: &'static str) -> Pending {
        self.shared.state.send_modify(|state| *state.missing.entry(what).or_default() += 1);
        Pending { what, shared: Arc::clone(&self.shared) }
    }

    /// What is missing; empty means ready, unless the process is draining.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<String> {
        self.shared.state.borrow().missing.keys().map(ToString::to_string).collect()
    }

    /// Start-up has finished at least once.
    #[must_use]
    pub fn started(&self) -> bool {
        let state = self.shared.state.borrow();
        state.started || state.missing.is_empty()
    }

    /// Not ready any more, for good: the process is draining.
    pub fn drain(&self) {
        self.shared.state.send_modify(|state| state.draining = true);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.state.borrow().draining
    }

    /// Returns when nothing is missing. A process that drains before that stays in here, so callers
    /// wait for their shutdown at the same time.
    pub async fn ready(&self) {
        let mut state = self.shared.state.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let _open = state.wait_for(|state| state.missing.is_empty() && !state.draining).await;
    }
}

/// Something that readiness waits for; dropping it (or `done`) ticks it off.
pub struct Pending {
    what: &'static str,
    shared: Arc<Shared>,
}

impl Pending {
    /// It has happened. The same as dropping, but says so.
    pub fn done(self) {}
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut finished_start = false;
        self.shared.state.send_modify(|state| {
            if let Some(count) = state.missing.get_mut(self.what) {
                *count -= 1;
                if *count == 0 {
                    state.missing.remove(self.what);
                }
            }
            if state.missing.is_empty() && !state.started {
                state.started = true;
                finished_start = true;
            }
        });
        let elapsed_ms = u64::try_from(self.shared.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        if finished_start {
            tracing::info!(elapsed_ms, "ready");
        } else {
            tracing::debug!(elapsed_ms, what = self.what, "done");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tokens_are_ticked_off_by_dropping() {
        let readiness = Readiness::new();
        let first = readiness.pending("certificate");
        let second = readiness.pending("certificate");
        let third = readiness.pending("configuration");
        drop(first);
        assert_eq!(readiness.missing(), ["certificate", "configuration"].map(String::from).into());
        assert!(!readiness.started());
        second.done();
        assert_eq!(readiness.missing(), ["configuration".to_owned()].into());
        third.done();
        assert!(readiness.missing().is_empty());
        assert!(readiness.started());
        let _late = readiness.pending("certificate");
        assert!(readiness.started(), "a later token never un-starts");
    }

    #[test]
    fn a_panicking_holder_ticks_off_too_and_nothing_is_poisoned() {
        let readiness = Readiness::new();
        let token = readiness.pending("listener");
        let result = std::thread::spawn(move || {
            let _token = token;
            panic!("on purpose");
        })
        .join();
        assert!(result.is_err());
        assert!(readiness.missing().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn ready_waits_for_the_last_token_and_never_comes_while_draining() {
        let readiness = Readiness::new();
        let token = readiness.pending("listener");
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        token.done();
        waiter.await.unwrap();
        readiness.drain();
        assert!(readiness.is_draining());
        let late = tokio::time::timeout(Duration::from_secs(60), readiness.ready()).await;
        assert!(late.is_err());
    }
}
