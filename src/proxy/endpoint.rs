//! What a worker has learnt about each endpoint: streams in flight, dial time, failures, ejection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::balance::Candidate;
use crate::model::EndpointId;
use crate::net::rng::Rng;

/// Failures in a row that eject an endpoint.
const EJECT_AFTER: u32 = 3;
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// Weight of a new dial time in the smoothed one.
const SMOOTHING: f64 = 0.2;
/// Assumed of an endpoint that was never dialled.
const UNKNOWN_DIAL_S: f64 = 0.001;

/// One endpoint's record. Shared by all connections of the worker.
#[derive(Debug)]
pub(super) struct Stats {
    in_flight: Cell<u32>,
    dial_s: Cell<f64>,
    consecutive_failures: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            in_flight: Cell::new(0),
            dial_s: Cell::new(UNKNOWN_DIAL_S),
            consecutive_failures: Cell::new(0),
            ejected_until: Cell::new(None),
        }
    }
}

impl Stats {
    pub(super) fn candidate(&self, weight: u32, now: Instant) -> Candidate {
        Candidate {
            weight,
            in_flight: self.in_flight.get(),
            dial_s: self.dial_s.get(),
            consecutive_failures: self.consecutive_failures.get(),
            ejected: self.ejected_until.get().is_some_and(|until| now < until),
        }
    }

    pub(super) fn succeeded(&self, took: Duration) {
        let smoothed = self.dial_s.get().mul_add(1.0 - SMOOTHING, took.as_secs_f64() * SMOOTHING);
        self.dial_s.set(smoothed);
        self.consecutive_failures.set(0);
        self.ejected_until.set(None);
    }

    /// Counts a failure; returns for how long the endpoint was ejected by it, if it was.
    pub(super) fn failed(&self, now: Instant, rng: &mut Rng) -> Option<Duration> {
        let failures = self.consecutive_failures.get().saturating_add(1);
        self.consecutive_failures.set(failures);
        let beyond = failures.checked_sub(EJECT_AFTER)?;
        let longest = FIRST_EJECTION.saturating_mul(1 << beyond.min(10)).min(LONGEST_EJECTION);
        // Between half and all of it, so that workers and sidecars do not return together.
        let ejection = longest.mul_f64(rng.fraction().mul_add(0.5, 0.5));
        self.ejected_until.set(Some(now + ejection));
        Some(ejection)
    }
}

/// Counts a stream on an endpoint for as long as it lives.
pub(super) struct InFlight(Rc<Stats>);

impl InFlight {
    pub(super) fn new(stats: &Rc<Stats>) -> Self {
        stats.in_flight.set(stats.in_flight.get().saturating_add(1));
        Self(Rc::clone(stats))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

/// All endpoints a worker knows.
#[derive(Default)]
pub(super) struct Endpoints(RefCell<HashMap<EndpointId, Rc<Stats>>>);

impl Endpoints {
    pub(super) fn get(&self, id: &EndpointId) -> Rc<Stats> {
        Rc::clone(self.0.borrow_mut().entry(id.clone()).or_default())
    }

    /// Forgets endpoints that have left and carry nothing any more.
    pub(super) fn retain(&self, known: impl Fn(&EndpointId) -> bool) {
        self.0.borrow_mut().retain(|id, stats| known(id) || Rc::strong_count(stats) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_eject_and_a_success_returns() {
        let (stats, now, mut rng) = (Stats::default(), Instant::now(), Rng::from_seed(1));
        assert_eq!(stats.failed(now, &mut rng), None);
        assert_eq!(stats.failed(now, &mut rng), None);
        let ejection = stats.failed(now, &mut rng).unwrap();
        assert!((FIRST_EJECTION / 2..=FIRST_EJECTION).contains(&ejection));
        assert!(stats.candidate(1, now).ejected);
        assert!(!stats.candidate(1, now + FIRST_EJECTION).ejected, "it comes back by itself");
        stats.succeeded(Duration::from_millis(2));
        assert!(!stats.candidate(1, now).ejected);
        for _ in 0..50 {
            stats.failed(now, &mut rng);
        }
        assert!(!stats.candidate(1, now + LONGEST_EJECTION).ejected, "the ejection is bounded");
    }

    #[test]
    fn streams_in_flight_are_counted_while_they_live() {
        let stats = Rc::new(Stats::default());
        let one = InFlight::new(&stats);
        let two = InFlight::new(&stats);
        assert_eq!(stats.candidate(1, Instant::now()).in_flight, 2);
        drop((one, two));
        assert_eq!(stats.candidate(1, Instant::now()).in_flight, 0);
    }
}
