//! Draining: one side says stop, many tasks finish what they do, and the last one to leave is the
//! signal that all is done.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// How far a drain has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Take nothing new, finish what runs.
    Draining,
    /// Close what is left.
    Closing,
}

/// Starts a drain and waits for its end. Dropping it means `Closing`.
pub struct Trigger {
    phase: watch::Sender<Phase>,
    alive: mpsc::Sender<()>,
    gone: mpsc::Receiver<()>,
}

/// Held by every task that a drain must wait for.
#[derive(Clone)]
pub struct Watcher {
    phase: watch::Receiver<Phase>,
    _alive: mpsc::Sender<()>,
}

/// A drain with no watcher yet.
#[must_use]
pub fn new() -> Trigger {
    let (alive, gone) = mpsc::channel(1);
    Trigger { phase: watch::Sender::new(Phase::Running), alive, gone }
}

impl Trigger {
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher { phase: self.phase.subscribe(), _alive: self.alive.clone() }
    }

    /// Begins to drain, without waiting.
    pub fn begin(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Drains: waits for all watchers to be dropped for at most `grace`, then tells the rest to close
    /// and waits at most `closing` for them. Says whether the grace was enough.
    pub async fn finish(self, grace: Duration, closing: Duration) -> bool {
        let Self { phase, alive, mut gone } = self;
        phase.send_replace(Phase::Draining);
        drop(alive);
        if tokio::time::timeout(grace, gone.recv()).await.is_ok() {
            return true;
        }
        phase.send_replace(Phase::Closing);
        // Whoever is still there after this is cut off by the end of the process.
        let _late = tokio::time::timeout(closing, gone.recv()).await;
        false
    }
}

impl Watcher {
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until the drain has come at least to `phase`. Cancel-safe.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the trigger is gone: close.
        let _gone = self.phase.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_watcher_ends_the_drain() {
        let trigger = new();
        let mut watcher = trigger.watcher();
        let task = tokio::spawn(async move {
            watcher.reached(Phase::Draining).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        });
        assert!(trigger.finish(Duration::from_secs(30), Duration::from_secs(1)).await);
        assert!(task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_outstays_the_grace_is_told_to_close() {
        let trigger = new();
        let mut watcher = trigger.watcher();
        let task = tokio::spawn(async move { watcher.reached(Phase::Closing).await });
        assert!(!trigger.finish(Duration::from_secs(30), Duration::from_secs(1)).await);
        task.await.unwrap();
    }
}
