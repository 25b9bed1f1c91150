//! Lock-delays: for how long nobody takes a lock whose holder was lost. Pure; time is passed in.
//!
//! In memory only, as in Consul: a restart of the server ends them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::limits::MAX_LOCK_DELAY;

#[derive(Debug, Default)]
pub(super) struct Delays(HashMap<String, Instant>);

impl Delays {
    /// Starts the delay of keys, and forgets those that are over.
    pub(super) fn start(&mut self, keys: impl Iterator<Item = String>, delay: Duration, now: Instant) {
        self.0.retain(|_, until| *until > now);
        let until = now + delay.min(MAX_LOCK_DELAY);
        if until > now {
            self.0.extend(keys.map(|key| (key, until)));
        }
    }

    pub(super) fn holds(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_ends_and_is_forgotten() {
        let (mut delays, start, second) = (Delays::default(), Instant::now(), Duration::from_secs(1));
        let key = |text: &str| std::iter::once(text.to_owned());
        delays.start(key("a"), 2 * second, start);
        delays.start(key("b"), Duration::MAX, start);
        delays.start(key("c"), Duration::ZERO, start);
        assert!(delays.holds("a", start + second) && !delays.holds("a", start + 2 * second));
        assert!(!delays.holds("c", start));
        assert!(delays.holds("b", start + 59 * second) && !delays.holds("b", start + 60 * second));
        delays.start(key("d"), second, start + 90 * second);
        assert_eq!(delays.0.len(), 1);
    }
}
