//! Which endpoint takes the next connection: power of two choices, without I/O or clock.
//!
//! Two endpoints are drawn at random by weight, and the one with the lower cost wins. Cost is
//! (streams in flight + 1) × smoothed dial time × penalty for recent failures, so that an endpoint
//! that fails fast does not look fast.

use crate::net::rng::Rng;

/// One endpoint as the balancer sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Share of the load; zero is never chosen.
    pub(super) weight: u32,
    pub(super) in_flight: u32,
    /// Smoothed time from dial to verdict, in seconds.
    pub(super) dial_s: f64,
    pub(super) consecutive_failures: u32,
    /// Ejected endpoints are chosen only when every other one is ejected too.
    pub(super) ejected: bool,
}

/// Shorter dial times are as good as this one: their differences on one network are noise, and would
/// send everything to one endpoint.
const NOISE_S: f64 = 0.001;

impl Candidate {
    fn cost(&self) -> f64 {
        let penalty = f64::from(1u32 << self.consecutive_failures.min(10));
        f64::from(self.in_flight + 1) * self.dial_s.max(NOISE_S) * penalty
    }
}

/// Index of the chosen candidate; `None` when none may take load.
pub(super) fn choose(candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
    let healthy = |c: &Candidate| if c.ejected { 0 } else { u64::from(c.weight) };
    choose_by(candidates, healthy, rng).or_else(|| choose_by(candidates, |c| u64::from(c.weight), rng))
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

    const PLAIN: Candidate =
        Candidate { weight: 1, in_flight: 0, dial_s: 0.001, consecutive_failures: 0, ejected: false };

    fn counts(candidates: &[Candidate], rounds: usize) -> Vec<usize> {
        let mut rng = Rng::from_seed(3);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..rounds {
            counts[choose(candidates, &mut rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn nothing_to_choose_from() {
        let mut rng = Rng::from_seed(1);
        assert_eq!(choose(&[], &mut rng), None);
        assert_eq!(choose(&[Candidate { weight: 0, ..PLAIN }], &mut rng), None);
        assert_eq!(choose(&[PLAIN], &mut rng), Some(0));
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
    fn ejected_ones_are_the_last_resort() {
        let out = Candidate { ejected: true, ..PLAIN };
        assert_eq!(counts(&[out, PLAIN], 50), [0, 50]);
        assert_eq!(counts(&[out, Candidate { weight: 0, ..PLAIN }], 50), [50, 0]);
    }
}
