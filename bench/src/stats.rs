//! Medians and quantiles.

use std::time::Duration;

/// Latencies of one measure, each kept: exact, and small enough for the seconds a measure takes.
#[derive(Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        // 4.3 s is the most that fits; longer ones count as that.
        self.0.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency, in microseconds, that this share of all does not exceed; for each of `shares`.
    pub fn quantiles_us<const N: usize>(mut self, shares: [f64; N]) -> [f64; N] {
        self.0.sort_unstable();
        shares.map(|share| {
            let rank = (share * self.0.len() as f64).ceil() as usize;
            self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |&nanos| f64::from(nanos) / 1000.0)
        })
    }
}

/// The middle value, or the mean of the middle two; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut latencies = Latencies::default();
        for millis in (1..=100).rev() {
            latencies.add(Duration::from_millis(millis));
        }
        assert_eq!(
            latencies.quantiles_us([0.0, 0.5, 0.99, 1.0]),
            [1000.0, 50_000.0, 99_000.0, 100_000.0]
        );
        assert!(Latencies::default().quantiles_us([0.5])[0].is_nan());
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
