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
/// An endpoint that is not chosen is not measured either: what is known of it fades, or one slow moment
/// or one failure would keep it idle for as long as the others do well.
const DIAL_HALF_LIFE: Duration = Duration::from_secs(5);
/// Time without a further failure that makes up for one.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);
/// Assumed of an endpoint that was never dialled.
const UNKNOWN_DIAL_S: f64 = 0.001;

/// One endpoint's record. Shared by all connections of the worker.
#[derive(Debug)]
pub(super) struct Stats {
    in_flight: Cell<u32>,
    dial_s: Cell<f64>,
    measured: Cell<Option<Instant>>,
    failed: Cell<Option<Instant>>,
    consecutive_failures: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            in_flight: Cell::new(0),
            dial_s: Cell::new(UNKNOWN_DIAL_S),
            measured: Cell::new(None),
            failed: Cell::new(None),
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
            dial_s: self.faded_dial_s(now),
            consecutive_failures: self.unforgiven(now),
            ejected: self.ejected_until.get().is_some_and(|until| now < until),
        }
    }

    fn faded_dial_s(&self, now: Instant) -> f64 {
        let age = self.measured.get().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.dial_s.get() * (-age.as_secs_f64() / DIAL_HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Failures in a row that still count against it; an ejection is no time of good conduct.
    fn unforgiven(&self, now: Instant) -> u32 {
        let since = self.failed.get().max(self.ejected_until.get());
        let good = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let forgiven = u32::try_from(good.as_secs() / FORGIVEN_AFTER.as_secs()).unwrap_or(u32::MAX);
        self.consecutive_failures.get().saturating_sub(forgiven)
    }

    pub(super) fn succeeded(&self, now: Instant, took: Duration) {
        let smoothed = self.faded_dial_s(now).mul_add(1.0 - SMOOTHING, took.as_secs_f64() * SMOOTHING);
        self.dial_s.set(smoothed);
        self.measured.set(Some(now));
        self.consecutive_failures.set(0);
        self.ejected_until.set(None);
    }

    /// Counts a failure; returns for how long the endpoint was ejected by it, if it was.
    pub(super) fn failed(&self, now: Instant, rng: &mut Rng) -> Option<Duration> {
        let failures = self.consecutive_failures.get().saturating_add(1);
        self.consecutive_failures.set(failures);
        self.failed.set(Some(now));
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
    use crate::proxy::balance;

    #[test]
    fn failures_eject_and_a_success_returns() {
        let (stats, now, mut rng) = (Stats::default(), Instant::now(), Rng::from_seed(1));
        assert_eq!(stats.failed(now, &mut rng), None);
        assert_eq!(stats.failed(now, &mut rng), None);
        let ejection = stats.failed(now, &mut rng).unwrap();
        assert!((FIRST_EJECTION / 2..=FIRST_EJECTION).contains(&ejection));
        assert!(stats.candidate(1, now).ejected);
        assert!(!stats.candidate(1, now + FIRST_EJECTION).ejected, "it comes back by itself");
        stats.succeeded(now, Duration::from_millis(2));
        assert!(!stats.candidate(1, now).ejected);
        for _ in 0..50 {
            stats.failed(now, &mut rng);
        }
        assert!(!stats.candidate(1, now + LONGEST_EJECTION).ejected, "the ejection is bounded");
    }

    /// 10 connections a second, one after another, for `time`; how many each endpoint took.
    fn light_traffic(stats: &[Stats; 2], start: Instant, time: Duration) -> [u32; 2] {
        let (mut rng, mut taken) = (Rng::from_seed(5), [0, 0]);
        let mut now = start;
        while now < start + time {
            now += Duration::from_millis(100);
            let candidates = [stats[0].candidate(1, now), stats[1].candidate(1, now)];
            let chosen = balance::choose(&candidates, &mut rng).unwrap();
            stats[chosen].succeeded(now, Duration::from_micros(400 + 50 * chosen as u64));
            taken[chosen] += 1;
        }
        taken
    }

    #[test]
    fn one_failure_is_no_sentence_for_life() {
        let (stats, start) = ([Stats::default(), Stats::default()], Instant::now());
        stats[1].failed(start, &mut Rng::from_seed(1));
        let taken = light_traffic(&stats, start, Duration::from_secs(10));
        assert!(taken[1] > 20, "{taken:?}");
    }

    #[test]
    fn a_slow_moment_is_forgotten() {
        let (stats, start) = ([Stats::default(), Stats::default()], Instant::now());
        stats[1].succeeded(start, Duration::from_millis(200));
        let taken = light_traffic(&stats, start, Duration::from_secs(5));
        assert!(taken[1] < 5, "{taken:?}");
        let taken = light_traffic(&stats, start, Duration::from_secs(60));
        assert!(taken[1] > 100, "{taken:?}");
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
