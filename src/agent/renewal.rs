//! When a certificate is renewed. Pure: both clocks are arguments.
//!
//! The monotonic clock decides, counted from the arrival of the certificate, because the wall clock
//! may jump. The wall clock is asked as well, because the monotonic one stands still while a machine
//! sleeps; it can bring a renewal forward, but not more often than every quarter of a lifetime.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Part of the lifetime after which a certificate is renewed, and the jitter to both sides. Even the latest
/// renewal leaves more than half of the lifetime: whenever an authority goes away for that long, it is back in time.
const RENEW_AT: f64 = 0.4;
const JITTER: f64 = 0.05;
/// Least part of the lifetime between two renewals that only the wall clock asks for.
const WALL_FLOOR: f64 = 0.25;
/// Part of the lifetime over which all sidecars spread their renewals when another root signs, and its
/// bounds. Never at once, not even the first: a server that still signs with the old root must not be
/// asked without a pause.
const REISSUE_WITHIN: f64 = 0.05;
const REISSUE_LEAST: Duration = Duration::from_secs(1);
const REISSUE_MOST: Duration = Duration::from_secs(600);
/// First and longest pause after a failed renewal.
const RETRY_LEAST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// The timetable of one certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    arrived: Instant,
    valid_for: Duration,
    not_after: SystemTime,
    /// Between 0.35 and 0.45.
    part: f64,
}

impl Schedule {
    /// `valid_for` is what was left when the certificate arrived; `fraction` is
    /// uniform in 0..1.
    pub(super) fn new(
        arrived: Instant,
        valid_for: Duration,
        not_after: SystemTime,
        fraction: f64,
    ) -> Self {
        let part = RENEW_AT + JITTER * (2.0 * fraction - 1.0);
        Self { arrived, valid_for, not_after, part }
    }

    /// How long to wait with the renewal.
    pub(super) fn due_in(&self, now: Instant, wall: SystemTime) -> Duration {
        let planned = self.arrived + self.valid_for.mul_f64(self.part);
        let left = self.not_after.duration_since(wall).unwrap_or_default();
        let late = left < self.valid_for.mul_f64(1.0 - RENEW_AT - JITTER);
        let floor = self.arrived + self.valid_for.mul_f64(WALL_FLOOR);
        let at = if late { planned.min(floor) } else { planned };
        at.saturating_duration_since(now)
    }

    /// How long to wait with a renewal that another root asks for; `fraction` is uniform in 0..1.
    pub(super) fn reissue_in(&self, fraction: f64) -> Duration {
        let within = self.valid_for.mul_f64(REISSUE_WITHIN).clamp(REISSUE_LEAST, REISSUE_MOST);
        within.mul_f64(0.2 + 0.8 * fraction)
    }

    /// Whether it has expired by the clock that cannot jump.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        now >= self.arrived + self.valid_for
    }

    /// Whether it has expired by the wall clock.
    pub(super) fn looks_expired(&self, wall: SystemTime) -> bool {
        wall >= self.not_after
    }

    /// The pause after so many failed attempts, with full jitter: `fraction` is uniform in 0..1. Ten of
    /// the longest fit into what is left.
    pub(super) fn pause(&self, failures: u32, now: Instant, fraction: f64) -> Duration {
        let left = (self.arrived + self.valid_for).saturating_duration_since(now);
        let most = if left.is_zero() { RETRY_MOST } else { RETRY_MOST.min(left / 10) };
        RETRY_LEAST.saturating_mul(1 << failures.min(16)).min(most).mul_f64(fraction)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn schedule(valid_for: Duration, roll: f64) -> (Schedule, Instant, SystemTime) {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + 1_000_000 * HOUR);
        (Schedule::new(now, valid_for, wall + valid_for, roll), now, wall)
    }

    #[test]
    fn renewal_is_at_two_fifths_of_the_lifetime_give_or_take_an_eighth_of_that() {
        for (roll, minutes) in [(0.0, 21.0), (0.5, 24.0), (1.0, 27.0)] {
            let (schedule, now, wall) = schedule(HOUR, roll);
            let due = schedule.due_in(now, wall).as_secs_f64();
            assert!((due - minutes * 60.0).abs() < 1.0, "{roll}: {due}");
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_costs_at_most_one_early_renewal() {
        let (schedule, now, wall) = schedule(HOUR, 0.5);
        assert_eq!(schedule.due_in(now, wall + 2 * HOUR), HOUR / 4);
        assert_eq!(schedule.due_in(now, wall - 2 * HOUR), HOUR * 2 / 5);
        assert!(schedule.looks_expired(wall + 2 * HOUR) && !schedule.has_expired(now));
    }

    #[test]
    fn a_machine_that_slept_renews_when_it_wakes() {
        let (schedule, now, wall) = schedule(HOUR, 0.5);
        let (now, wall) = (now + HOUR / 3, wall + HOUR * 3 / 4);
        assert_eq!(schedule.due_in(now, wall), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn an_authority_may_be_away_for_half_a_lifetime_whenever_that_begins(
            valid_ms in 10_000..2_600_000_000_u64,
            roll in 0.0..1.0_f64,
            gone in 0.0..1.0_f64,
            pause in 0.0..1.0_f64,
            failures in 3..40_u32,
        ) {
            let valid_for = Duration::from_millis(valid_ms);
            let (schedule, now, wall) = schedule(valid_for, roll);
            let due = schedule.due_in(now, wall);
            let (gone, back) = (valid_for.mul_f64(gone), valid_for.mul_f64(gone + 0.5));
            let is_missed = gone <= due && due <= back;
            if is_missed {
                // The pause that had just begun when it came back.
                let renewed = back + schedule.pause(failures, now + back, pause);
                prop_assert!(renewed < valid_for, "{renewed:?} of {valid_for:?}");
            }
        }

        #[test]
        fn attempts_get_denser_towards_the_end(
            valid_ms in 1_000..2_600_000_000_u64,
            part in 0.0..1.0_f64,
            failures in 0..40_u32,
        ) {
            let valid_for = Duration::from_millis(valid_ms);
            let (schedule, now, _) = schedule(valid_for, 0.5);
            let at = now + valid_for.mul_f64(part);
            let pause = schedule.pause(failures, at, 1.0);
            prop_assert!(pause <= RETRY_MOST && pause > Duration::ZERO);
            if !schedule.has_expired(at) {
                prop_assert!(pause <= valid_for.mul_f64(1.0 - part) / 10 + Duration::from_millis(1));
            }
        }
    }
}
