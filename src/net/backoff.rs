//! Exponential backoff with full jitter: each wait is random between zero and a bound that doubles.

use std::time::Duration;

use super::rng::Rng;

/// The waits of one thing that is being retried.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next(&mut self, rng: &mut Rng) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rng.fraction())
    }

    /// Begins anew after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_bound_that_doubles() {
        let mut rng = Rng::from_seed(7);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut bound = Duration::from_millis(100);
        for _ in 0..40 {
            assert!(backoff.next(&mut rng) <= bound);
            bound = (bound * 2).min(Duration::from_secs(5));
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(100));
    }
}
