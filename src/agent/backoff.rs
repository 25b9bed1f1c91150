//! Pauses between attempts: exponential with full jitter, so that sidecars which failed together do
//! not come back together.

use std::time::Duration;

/// Grows with every failure up to a cap.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    least: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first pause is at most `least`.
    pub(super) const fn new(least: Duration) -> Self {
        Self { least, attempt: 0 }
    }

    /// The next pause: uniform between nothing and `least × 2ⁿ`, which is at most `most`. `roll` is
    /// uniform in 0..1.
    pub(super) fn next(&mut self, most: Duration, roll: f64) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempt.min(16));
        self.attempt = self.attempt.saturating_add(1);
        self.least.saturating_mul(factor).min(most).mul_f64(roll.clamp(0.0, 1.0))
    }

    pub(super) const fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A random number, uniform in 0..1. Without randomness the middle: jitter is a courtesy.
pub(super) fn roll() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_anew() {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(least);
        let whole: Vec<_> = (0..8).map(|_| backoff.next(most, 1.0).as_millis()).collect();
        assert_eq!(whole, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next(most, 0.5), least / 2);
        for _ in 0..100 {
            assert!(backoff.next(most, roll()) < most);
        }
    }
}
