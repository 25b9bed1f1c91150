//! How many retries an upstream may cause: a share of its recent connections and a few besides, so that
//! retries help while little fails, and do not multiply the load when everything does.
//!
//! Pure, one for each worker and upstream; `dial` asks it.

use std::time::{Duration, Instant};

/// Retries for each connection of the window, in percent.
const SHARE_PERCENT: u64 = 20;
/// Retries of a window whatever the traffic: a quiet upstream can recover, too.
const FREE: u64 = 100;
/// Time over which both are counted, in slots.
const SLOT: Duration = Duration::from_secs(1);
const SLOTS: usize = 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    slots: [Slot; SLOTS],
    /// Slot of the latest count, since `start`.
    latest: u64,
    start: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    connections: u64,
    retries: u64,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: [Slot::default(); SLOTS], latest: 0, start: now }
    }

    /// A connection came.
    pub(super) fn connection(&mut self, now: Instant) {
        self.slot(now).connections += 1;
    }

    /// Whether one more retry fits; it counts if it does.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        self.slot(now);
        let sum = |count: fn(&Slot) -> u64| self.slots.iter().map(count).sum::<u64>();
        let allowed = FREE + sum(|slot| slot.connections) * SHARE_PERCENT / 100;
        let fits = sum(|slot| slot.retries) < allowed;
        self.slot(now).retries += u64::from(fits);
        fits
    }

    /// The slot of `now`, with those that have left the window emptied.
    fn slot(&mut self, now: Instant) -> &mut Slot {
        let slot = now.saturating_duration_since(self.start).as_secs() / SLOT.as_secs();
        let passed = slot.saturating_sub(self.latest);
        for further in 1..=passed.min(SLOTS as u64) {
            self.slots[index(self.latest + further)] = Slot::default();
        }
        self.latest = self.latest.max(slot);
        &mut self.slots[index(self.latest)]
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot).unwrap_or_default() % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &mut Budget, now: Instant) -> u64 {
        (0..).take_while(|_| budget.retry(now)).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_connections_and_a_few() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!(retries(&mut budget, now), FREE);
        for _ in 0..1000 {
            budget.connection(now);
        }
        assert_eq!(retries(&mut budget, now), 1000 * SHARE_PERCENT / 100);
        assert!(!budget.retry(now + SLOT * 9), "still in the window");
    }

    #[test]
    fn what_is_past_counts_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(retries(&mut budget, start), FREE);
        assert_eq!(retries(&mut budget, start + SLOT * 10), FREE);
        for _ in 0..1000 {
            budget.connection(start + SLOT * 11);
        }
        let much_later = start + SLOT * 500;
        assert_eq!(retries(&mut budget, much_later), FREE, "old connections earn nothing");
    }

    #[test]
    fn a_storm_costs_a_fifth_more_and_no_multiple() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let (mut connections, mut attempts) = (0u64, 0u64);
        for ms in 0..60_000u64 {
            let now = start + Duration::from_millis(ms);
            budget.connection(now);
            connections += 1;
            attempts += 1 + u64::from(budget.retry(now)) + u64::from(budget.retry(now));
        }
        assert!(attempts < connections * 130 / 100, "{attempts} attempts for {connections}");
    }
}
