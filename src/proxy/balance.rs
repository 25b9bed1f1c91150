//! Which endpoint takes the next connection: power of two choices, without I/O or clock.
//!
//! Two endpoints are drawn at random by weight, and the one with the lower cost wins. Cost is
//! (streams in flight + 1) × smoothed dial time × penalty for recent failures, so that an endpoint
//! that fails fast does not look fast. One that is ejected or critical is never drawn: when there is no
//! other, the connection fails at once, unless the upstream is to panic ([`choose`]).

use std::time::Instant;

use crate::net::rng::Rng;

/// One endpoint as the balancer sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Share of the load; zero for one that is critical.
    pub(super) weight: u32,
    pub(super) in_flight: u32,
    /// Smoothed time from dial to verdict, in seconds.
    pub(super) dial_s: f64,
    pub(super) consecutive_failures: u32,
    /// It was asked a while ago and has not answered anybody since.
    pub(super) quiet: bool,
    pub(super) ejected_until: Option<Instant>,
    /// This connection has been there.
    pub(super) tried: bool,
}

/// Shorter dial times are as good as this one: their differences on one network are noise, and would
/// send everything to one endpoint.
const NOISE_S: f64 = 0.001;
/// How much worse an endpoint is that does not answer at the moment.
const QUIET_PENALTY: f64 = 64.0;

impl Candidate {
    fn cost(&self) -> f64 {
        let penalty = f64::from(1u32 << self.consecutive_failures.min(10));
        let quiet = if self.quiet { QUIET_PENALTY } else { 1.0 };
        f64::from(self.in_flight + 1) * self.dial_s.max(NOISE_S) * penalty * quiet
    }

    /// Whether a stream could go there and expect an answer.
    pub(super) const fn is_well(&self) -> bool {
        self.is_in() && !self.tried && !self.quiet
    }

    const fn is_in(&self) -> bool {
        self.weight > 0 && self.ejected_until.is_none()
    }
}

/// Takes back those that are due first when more than `most` of the healthy ones are out: others may
/// have left since they were ejected.
pub(super) fn take_back(candidates: &mut [Candidate], most: usize) {
    let mut out: Vec<_> =
        candidates.iter_mut().filter(|c| c.weight > 0 && c.ejected_until.is_some()).collect();
    let beyond = out.len().saturating_sub(most);
    out.sort_by_key(|candidate| candidate.ejected_until);
    for candidate in out.into_iter().take(beyond) {
        candidate.ejected_until = None;
    }
}

/// Index of the chosen candidate; `None` when none may take load. With `panic`, every one may when none
/// is healthy, the critical ones too.
pub(super) fn choose(candidates: &[Candidate], panic: bool, rng: &mut Rng) -> Option<usize> {
    let untried = |c: &Candidate, weight: u32| if c.tried { 0 } else { u64::from(weight) };
    let healthy = |c: &Candidate| if c.is_in() { untried(c, c.weight) } else { 0 };
    if panic && !candidates.iter().any(Candidate::is_in) {
        return choose_by(candidates, |c| untried(c, c.weight.max(1)), rng);
    }
    choose_by(candidates, healthy, rng)
}

fn choose_by(
    candidates: &[Candidate],
    weight: impl Fn(&Candidate) -> u64,
    rng: &mut Rng,
) -> Option<usize> {
    let first = draw(candidates, &weight, None, rng)?;
    let Some(second) = draw(candidates, &weight, Some(first), rng) else {
        return Some(first);
    };
    let better = candidates[second].cost() < candidates[first].cost();
    Some(if better { second } else { first })
}

/// Draws an index by weight, leaving one out.
fn draw(
    candidates: &[Candidate],
    weight: &impl Fn(&Candidate) -> u64,
    left_out: Option<usize>,
    rng: &mut Rng,
) -> Option<usize> {
    let weights = || {
        candidates
            .iter()
            .enumerate()
            .map(|(index, c)| (index, if Some(index) == left_out { 0 } else { weight(c) }))
    };
    let total: u64 = weights().map(|(_, w)| w).sum();
    let mut point = rng.below(total);
    weights().filter(|(_, w)| *w > 0).find_map(|(index, w)| {
        if point < w {
            return Some(index);
        }
        point -= w;
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PLAIN: Candidate = Candidate {
        weight: 1,
        in_flight: 0,
        dial_s: 0.001,
        consecutive_failures: 0,
        quiet: false,
        ejected_until: None,
        tried: false,
    };

    fn out(ms: u64) -> Candidate {
        let until = Instant::now() + Duration::from_secs(60) + Duration::from_millis(ms);
        Candidate { ejected_until: Some(until), ..PLAIN }
    }

    fn counts(candidates: &[Candidate], rounds: usize) -> Vec<usize> {
        let mut rng = Rng::from_seed(3);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..rounds {
            counts[choose(candidates, false, &mut rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn nothing_to_choose_from() {
        let mut rng = Rng::from_seed(1);
        assert_eq!(choose(&[], false, &mut rng), None);
        assert_eq!(choose(&[Candidate { weight: 0, ..PLAIN }], false, &mut rng), None);
        assert_eq!(choose(&[PLAIN], false, &mut rng), Some(0));
    }

    #[test]
    fn the_busier_of_two_never_wins() {
        let busy = Candidate { in_flight: 5, ..PLAIN };
        assert_eq!(counts(&[busy, PLAIN], 100), [0, 100]);
        let slow = Candidate { dial_s: 0.1, ..PLAIN };
        assert_eq!(counts(&[PLAIN, slow], 100), [100, 0]);
        let failing = Candidate { consecutive_failures: 3, dial_s: 0.0005, ..PLAIN };
        assert_eq!(counts(&[failing, PLAIN], 100), [0, 100]);
    }

    #[test]
    fn equals_share_by_weight() {
        let seen = counts(&[PLAIN; 4], 4000);
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        let heavy = Candidate { weight: 8, ..PLAIN };
        let seen = counts(&[heavy, PLAIN, PLAIN, Candidate { weight: 0, ..PLAIN }], 4000);
        assert!(seen[0] > 2500 && seen[1] > 100 && seen[3] == 0, "{seen:?}");
    }

    #[test]
    fn noise_does_not_decide() {
        let quick = Candidate { dial_s: 0.000_2, ..PLAIN };
        let seen = counts(&[quick, Candidate { dial_s: 0.000_3, ..PLAIN }], 1000);
        assert!(seen.iter().all(|n| (400..600).contains(n)), "{seen:?}");
    }

    #[test]
    fn one_that_does_not_answer_attracts_nothing() {
        let frozen = Candidate { quiet: true, ..PLAIN };
        let busy = Candidate { in_flight: 50, ..PLAIN };
        assert_eq!(counts(&[frozen, busy], 50), [0, 50]);
        assert_eq!(counts(&[frozen], 5), [5], "but it is asked when it is the only one");
    }

    #[test]
    fn what_is_ejected_critical_or_tried_is_not_drawn() {
        let (critical, tried) = (Candidate { weight: 0, ..PLAIN }, Candidate { tried: true, ..PLAIN });
        assert_eq!(counts(&[out(0), PLAIN, critical, tried], 50), [0, 50, 0, 0]);
        let mut rng = Rng::from_seed(1);
        assert_eq!(choose(&[out(0), critical, tried], false, &mut rng), None);
    }

    #[test]
    fn panic_uses_everything_when_nothing_is_healthy() {
        let (critical, tried) = (Candidate { weight: 0, ..PLAIN }, Candidate { tried: true, ..PLAIN });
        let mut rng = Rng::from_seed(1);
        let mut seen = [0; 3];
        for _ in 0..100 {
            let all = [out(0), critical, Candidate { ejected_until: out(0).ejected_until, ..tried }];
            seen[choose(&all, true, &mut rng).unwrap()] += 1;
        }
        assert!(seen[0] > 20 && seen[1] > 20 && seen[2] == 0, "{seen:?}");
        for _ in 0..50 {
            assert_eq!(choose(&[out(0), PLAIN, critical], true, &mut rng), Some(1));
        }
        assert_eq!(choose(&[out(0), tried], true, &mut rng), None, "a healthy one was tried: no panic");
    }

    #[test]
    fn those_due_first_come_back_when_others_left() {
        let mut all = [out(30), out(10), out(20), Candidate { weight: 0, ..out(0) }];
        take_back(&mut all, 2);
        assert_eq!(all.map(|c| c.ejected_until.is_some()), [true, false, true, true]);
        take_back(&mut all, 0);
        assert_eq!(all.map(|c| c.ejected_until.is_some()), [false, false, false, true]);
    }
}
