//! What a worker has learnt about the endpoints of an upstream: streams in flight, dial time, and
//! whether they answer. What all workers know of their failures is in `outlier`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Candidate;
use super::outlier::Health;
use crate::model::EndpointId;

/// Weight of a new dial time in the smoothed one.
const SMOOTHING: f64 = 0.2;
/// An endpoint that is not chosen is not measured either: what is known of it fades, or one slow moment
/// would keep it idle for as long as the others do well.
const DIAL_HALF_LIFE: Duration = Duration::from_secs(5);
/// Assumed of an endpoint that was never dialled.
const UNKNOWN_DIAL_S: f64 = 0.001;
/// An endpoint is quiet when it has answered nobody for this long and a few of its usual dial times.
/// Nothing is lost when it was only slow: its streams wait for the verdict with their first bytes.
const QUIET_AFTER: Duration = Duration::from_millis(25);
const QUIET_DIALS: f64 = 4.0;
/// First bytes go ahead of the verdict only to an endpoint that has answered in this time.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// One endpoint's record. Shared by all connections of the worker.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) health: Arc<Health>,
    in_flight: Cell<u32>,
    dial_s: Cell<f64>,
    measured: Cell<Option<Instant>>,
    /// Attempts that wait for an answer.
    waiting: Cell<u32>,
    /// Since when it has left all of them without one.
    quiet_since: Cell<Option<Instant>>,
    heard: Cell<Option<Instant>>,
    /// When its silence was last counted as a failure.
    struck: Cell<Option<Instant>>,
}

impl Stats {
    pub(super) fn new(health: Arc<Health>) -> Self {
        Self {
            health,
            in_flight: Cell::new(0),
            dial_s: Cell::new(UNKNOWN_DIAL_S),
            measured: Cell::new(None),
            waiting: Cell::new(0),
            quiet_since: Cell::new(None),
            heard: Cell::new(None),
            struck: Cell::new(None),
        }
    }

    pub(super) fn candidate(&self, weight: u32, tried: bool, now: Instant) -> Candidate {
        let record = self.health.record();
        Candidate {
            weight,
            in_flight: self.in_flight.get(),
            dial_s: self.faded_dial_s(now),
            consecutive_failures: record.as_ref().map_or(0, |record| record.unforgiven(now)),
            quiet: self.is_quiet(now),
            ejected_until: record.and_then(|record| record.ejected_until(now)),
            tried,
        }
    }

    fn faded_dial_s(&self, now: Instant) -> f64 {
        let age = self.measured.get().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.dial_s.get() * (-age.as_secs_f64() / DIAL_HALF_LIFE.as_secs_f64()).exp2()
    }

    fn is_quiet(&self, now: Instant) -> bool {
        let Some(since) = self.quiet_since.get() else { return false };
        let usual = Duration::from_secs_f64(self.dial_s.get() * QUIET_DIALS);
        now.saturating_duration_since(since) > QUIET_AFTER + usual
    }

    /// Whether first bytes may go ahead of the verdict: it answers, and nothing failed lately. Bytes
    /// that went ahead tie a stream to its endpoint.
    pub(super) fn is_trusted(&self, now: Instant) -> bool {
        let heard = self.heard.get().is_some_and(|at| now.saturating_duration_since(at) < TRUSTED_FOR);
        let failed = || self.health.record().is_some_and(|record| record.unforgiven(now) > 0);
        heard && !self.is_quiet(now) && !failed()
    }

    /// It said something.
    pub(super) fn heard(&self, now: Instant) {
        self.heard.set(Some(now));
        self.quiet_since.set((self.waiting.get() > 0).then_some(now));
    }

    pub(super) fn has_spoken_since(&self, time: Instant) -> bool {
        self.heard.get().is_some_and(|at| at > time)
    }

    pub(super) fn measured(&self, now: Instant, took: Duration) {
        let smoothed = self.faded_dial_s(now).mul_add(1.0 - SMOOTHING, took.as_secs_f64() * SMOOTHING);
        self.dial_s.set(smoothed);
        self.measured.set(Some(now));
    }

    /// Whether its silence counts as one more failure: many streams may notice the same one.
    pub(super) fn strike(&self, now: Instant, every: Duration) -> bool {
        let counts = self.struck.get().is_none_or(|at| now.saturating_duration_since(at) >= every);
        if counts {
            self.struck.set(Some(now));
        }
        counts
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

/// An attempt that waits for an answer, for as long as it lives.
pub(super) struct Waiting(Rc<Stats>);

impl Waiting {
    pub(super) fn new(stats: &Rc<Stats>, now: Instant) -> Self {
        if stats.waiting.get() == 0 {
            stats.quiet_since.set(Some(now));
        }
        stats.waiting.set(stats.waiting.get().saturating_add(1));
        Self(Rc::clone(stats))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = self.0.waiting.get().saturating_sub(1);
        self.0.waiting.set(left);
        if left == 0 {
            self.0.quiet_since.set(None);
        }
    }
}

/// The endpoints of one upstream.
#[derive(Default)]
pub(super) struct Endpoints(RefCell<HashMap<EndpointId, Rc<Stats>>>);

impl Endpoints {
    /// The record of an endpoint; `health` is asked for that of all workers when there is none yet.
    pub(super) fn get(&self, id: &EndpointId, health: impl FnOnce() -> Arc<Health>) -> Rc<Stats> {
        let mut known = self.0.borrow_mut();
        if let Some(stats) = known.get(id) {
            return Rc::clone(stats);
        }
        let stats = Rc::new(Stats::new(health()));
        known.insert(id.clone(), Rc::clone(&stats));
        stats
    }

    /// Forgets endpoints that have left: one that comes back under the same id is another one.
    pub(super) fn retain(&self, known: impl Fn(&EndpointId) -> bool) {
        self.0.borrow_mut().retain(|id, _| known(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EjectionPolicy;
    use crate::net::rng::Rng;
    use crate::proxy::balance;
    use crate::proxy::outlier::Outliers;

    fn stats() -> Stats {
        Stats::new(Arc::default())
    }

    /// 10 connections a second, one after another, for `time`; how many each endpoint took.
    fn light_traffic(stats: &[Stats; 2], start: Instant, time: Duration) -> [u32; 2] {
        let (mut rng, mut taken) = (Rng::from_seed(5), [0, 0]);
        let mut now = start;
        while now < start + time {
            now += Duration::from_millis(100);
            let candidates = [stats[0].candidate(1, false, now), stats[1].candidate(1, false, now)];
            let chosen = balance::choose(&candidates, false, &mut rng).unwrap();
            stats[chosen].measured(now, Duration::from_micros(400 + 50 * chosen as u64));
            taken[chosen] += 1;
        }
        taken
    }

    #[test]
    fn one_failure_is_no_sentence_for_life() {
        let (stats, start) = ([stats(), stats()], Instant::now());
        let outliers = Outliers::new(EjectionPolicy::default());
        outliers.failed(&stats[1].health, 2, start, &mut Rng::from_seed(1));
        let taken = light_traffic(&stats, start, Duration::from_secs(10));
        assert!(taken[1] > 20, "{taken:?}");
    }

    #[test]
    fn a_slow_moment_is_forgotten() {
        let (stats, start) = ([stats(), stats()], Instant::now());
        stats[1].measured(start, Duration::from_millis(200));
        let taken = light_traffic(&stats, start, Duration::from_secs(5));
        assert!(taken[1] < 5, "{taken:?}");
        let taken = light_traffic(&stats, start, Duration::from_secs(60));
        assert!(taken[1] > 100, "{taken:?}");
    }

    #[test]
    fn streams_in_flight_are_counted_while_they_live() {
        let stats = Rc::new(stats());
        let one = InFlight::new(&stats);
        let two = InFlight::new(&stats);
        assert_eq!(stats.candidate(1, false, Instant::now()).in_flight, 2);
        drop((one, two));
        assert_eq!(stats.candidate(1, false, Instant::now()).in_flight, 0);
    }

    #[test]
    fn silence_is_noticed_while_somebody_waits() {
        let (stats, start) = (Rc::new(stats()), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!(!stats.is_trusted(start), "it has not said anything yet");
        stats.heard(start);
        assert!(stats.is_trusted(at(900)) && !stats.is_quiet(at(900)), "nobody asked");
        let first = Waiting::new(&stats, at(100));
        let second = Waiting::new(&stats, at(120));
        assert!(!stats.is_quiet(at(125)) && stats.is_quiet(at(140)) && !stats.is_trusted(at(140)));
        stats.heard(at(150));
        drop(first);
        assert!(stats.is_trusted(at(170)) && stats.is_quiet(at(190)), "the other one still waits");
        drop(second);
        assert!(!stats.is_quiet(at(500)));
        assert!(!stats.is_trusted(at(1200)), "that was too long ago");
    }

    #[test]
    fn a_slow_endpoint_is_quiet_later() {
        let (stats, start) = (Rc::new(stats()), Instant::now());
        for _ in 0..50 {
            stats.measured(start, Duration::from_millis(100));
        }
        let _one = Waiting::new(&stats, start);
        assert!(!stats.is_quiet(start + Duration::from_millis(350)));
        assert!(stats.is_quiet(start + Duration::from_millis(450)));
    }

    #[test]
    fn one_silence_is_one_failure() {
        let (stats, start) = (stats(), Instant::now());
        let every = Duration::from_secs(1);
        assert!(stats.strike(start, every));
        assert!(!stats.strike(start + every / 2, every));
        assert!(stats.strike(start + every, every));
    }
}
