//! Endpoints that keep failing are left out for a while: passive health checking, in Consul's words.
//!
//! [`Outlier`] is the state of one endpoint, pure, with the time passed in. [`Outliers`] shares those of
//! one upstream among the workers: what one learns, all know. An endpoint that is well costs a worker
//! one atomic load. Invariant: an ejection leaves at least one endpoint, unless the policy says 100 %.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{EjectionPolicy, EndpointId};
use crate::net::rng::Rng;

/// No ejection is longer, unless the policy's first one is.
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// Share of an ejection that is added at random, so that workers and sidecars do not return together.
const JITTER: f64 = 0.25;
/// Time without a further failure that makes up for one in the eyes of the balancer.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1);

/// How many of `healthy` endpoints may be out at a time.
pub(super) fn may_be_out(healthy: usize, policy: &EjectionPolicy) -> usize {
    match policy.max_percent {
        Some(100) => healthy,
        Some(percent) => {
            let share = healthy * usize::from(percent) / 100;
            // As Envoy does it: one may always go, but not the only one.
            share.max(usize::from(percent > 0)).min(healthy.saturating_sub(1))
        }
        None => healthy.saturating_sub(1),
    }
}

/// One endpoint's record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outlier {
    consecutive_failures: u32,
    failed: Option<Instant>,
    ejected_until: Option<Instant>,
    /// Ejected, and not returned yet.
    out: bool,
}

impl Outlier {
    pub(super) fn ejected_until(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|until| self.out && now < *until)
    }

    /// Failures in a row that still count against it in a choice; an ejection is no time of good conduct.
    pub(super) fn unforgiven(&self, now: Instant) -> u32 {
        let forgiven = self.good_conduct(now).as_secs() / FORGIVEN_AFTER.as_secs();
        self.consecutive_failures.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    fn good_conduct(&self, now: Instant) -> Duration {
        let since = self.failed.max(self.ejected_until);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Counts a failure; returns for how long it ejects the endpoint, if it does. `room` says that one
    /// more may be out.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        policy: &EjectionPolicy,
        room: bool,
        rng: &mut Rng,
    ) -> Option<Duration> {
        if self.ejected_until(now).is_some() {
            return None; // it was asked before it was ejected: one incident, one sentence
        }
        if self.good_conduct(now) > policy.interval {
            self.consecutive_failures = 0;
        }
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.failed = Some(now);
        let beyond = self.consecutive_failures.checked_sub(policy.max_failures)?;
        if !room || rng.below(100) >= u64::from(policy.enforcing_percent) {
            return None;
        }
        let longest = LONGEST_EJECTION.max(policy.base_time);
        let ejection = policy.base_time.saturating_mul(1 << beyond.min(20)).min(longest);
        let ejection = ejection.mul_f64(rng.fraction().mul_add(JITTER, 1.0));
        self.ejected_until = Some(now + ejection);
        self.out = true;
        Some(ejection)
    }

    /// It works. Says whether it was ejected until now.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(self).out
    }

    /// Its ejection may be over; says whether it is since this call.
    pub(super) fn returns(&mut self, now: Instant) -> bool {
        let over = self.out && self.ejected_until.is_none_or(|until| now >= until);
        self.out &= !over;
        over
    }
}

/// An outlier as all workers share it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// It has a record that is not clean.
    troubled: AtomicBool,
    record: Mutex<Outlier>,
}

impl Health {
    /// The record, unless it is clean.
    pub(super) fn record(&self) -> Option<MutexGuard<'_, Outlier>> {
        self.troubled.load(Ordering::Acquire).then(|| self.lock())
    }

    pub(super) fn succeeded(&self) -> bool {
        let Some(mut record) = self.record() else { return false };
        self.troubled.store(false, Ordering::Release);
        record.succeeded()
    }

    pub(super) fn returns(&self, now: Instant) -> bool {
        self.record().is_some_and(|mut record| record.returns(now))
    }

    fn is_out(&self, now: Instant) -> bool {
        self.record().is_some_and(|record| record.ejected_until(now).is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Outlier> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Outliers {
    pub(super) policy: EjectionPolicy,
    known: Mutex<HashMap<EndpointId, Arc<Health>>>,
}

impl Outliers {
    pub(super) fn new(policy: EjectionPolicy) -> Self {
        Self { policy, known: Mutex::default() }
    }

    pub(super) fn health(&self, id: &EndpointId) -> Arc<Health> {
        Arc::clone(self.known().entry(id.clone()).or_default())
    }

    /// Counts a failure of one of so many healthy endpoints; returns for how long it is ejected, if it is.
    pub(super) fn failed(
        &self,
        health: &Health,
        healthy: usize,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Duration> {
        // Held throughout, or two workers would eject the last two endpoints at once.
        let known = self.known();
        let out = known.values().filter(|other| other.is_out(now)).count();
        let room = out < may_be_out(healthy, &self.policy);
        let mut record = health.lock();
        health.troubled.store(true, Ordering::Release);
        record.failed(now, &self.policy, room, rng)
    }

    /// How many are out.
    pub(super) fn ejected(&self, now: Instant) -> usize {
        self.known().values().filter(|health| health.is_out(now)).count()
    }

    /// Forgets endpoints that have left.
    pub(super) fn retain(&self, known: impl Fn(&EndpointId) -> bool) {
        self.known().retain(|id, _| known(id));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<EndpointId, Arc<Health>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceId, NodeName};
    use proptest::prelude::{any, prop, prop_assert, proptest};

    const POLICY: EjectionPolicy = EjectionPolicy {
        max_failures: 3,
        interval: Duration::from_secs(10),
        base_time: Duration::from_secs(1),
        max_percent: None,
        enforcing_percent: 100,
    };

    fn fail(outlier: &mut Outlier, now: Instant) -> Option<Duration> {
        outlier.failed(now, &POLICY, true, &mut Rng::from_seed(1))
    }

    #[test]
    fn failures_in_a_row_eject_and_each_ejection_is_longer() {
        let (mut outlier, mut now) = (Outlier::default(), Instant::now());
        assert_eq!((fail(&mut outlier, now), fail(&mut outlier, now)), (None, None));
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            let ejection = fail(&mut outlier, now).unwrap();
            let least = Duration::from_secs(expected);
            assert!((least..=least.mul_f64(1.0 + JITTER)).contains(&ejection), "{ejection:?}");
            assert_eq!(outlier.ejected_until(now), Some(now + ejection));
            assert_eq!(fail(&mut outlier, now), None, "what was under way adds nothing");
            now += ejection;
            assert!(outlier.ejected_until(now).is_none() && outlier.returns(now));
            assert!(!outlier.returns(now), "it returns once");
        }
        assert!(outlier.unforgiven(now) > 3, "an ejection is no time of good conduct");
    }

    #[test]
    fn a_success_clears_the_record() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        for _ in 0..3 {
            fail(&mut outlier, now);
        }
        assert!(outlier.succeeded(), "it was out");
        assert_eq!(outlier, Outlier::default());
        assert!(!outlier.succeeded());
    }

    #[test]
    fn failures_far_apart_are_not_in_a_row() {
        let (mut outlier, mut now) = (Outlier::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(fail(&mut outlier, now), None);
            now += POLICY.interval + Duration::from_millis(1);
        }
        assert_eq!(outlier.unforgiven(now), 0);
    }

    #[test]
    fn ejections_can_be_for_show_only() {
        let policy = EjectionPolicy { enforcing_percent: 0, ..POLICY };
        let (mut outlier, now, mut rng) = (Outlier::default(), Instant::now(), Rng::from_seed(1));
        assert!((0..50).all(|_| outlier.failed(now, &policy, true, &mut rng).is_none()));
        let policy = EjectionPolicy { enforcing_percent: 50, ..POLICY };
        assert!((0..50).any(|_| outlier.failed(now, &policy, true, &mut rng).is_some()));
    }

    #[test]
    fn how_many_may_be_out() {
        let with = |max_percent| EjectionPolicy { max_percent, ..POLICY };
        for (percent, healthy, most) in [
            (None, 0, 0),
            (None, 1, 0),
            (None, 5, 4),
            (Some(0), 5, 0),
            (Some(10), 1, 0),
            (Some(10), 2, 1),
            (Some(10), 30, 3),
            (Some(99), 3, 2),
            (Some(100), 3, 3),
            (Some(100), 1, 1),
        ] {
            assert_eq!(may_be_out(healthy, &with(percent)), most, "{percent:?} of {healthy}");
        }
    }

    proptest! {
        /// Whatever fails and however often, the policy's share stays in.
        #[test]
        fn the_share_is_kept(
            healthy in 1usize..8,
            percent in prop::option::of(0u8..=100),
            steps in prop::collection::vec((0usize..8, 0u64..3000, any::<bool>()), 1..300),
        ) {
            let policy = EjectionPolicy { max_percent: percent, ..POLICY };
            let (outliers, mut rng) = (Outliers::new(policy), Rng::from_seed(9));
            let mut now = Instant::now();
            for (which, ms, works) in steps {
                now += Duration::from_millis(ms);
                let id = EndpointId {
                    node: NodeName::new("n").unwrap(),
                    instance: InstanceId::new(format!("i-{}", which % healthy)).unwrap(),
                };
                let health = outliers.health(&id);
                if works { health.succeeded(); } else { outliers.failed(&health, healthy, now, &mut rng); }
                prop_assert!(outliers.ejected(now) <= may_be_out(healthy, &policy));
            }
        }
    }
}
