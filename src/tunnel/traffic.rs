//! Which streams of a lane are heavy and which are light, by what each moved in the last slice of time.
//! Pure: the time is passed in.
//!
//! A lane asks, to keep them apart: a light stream shall not wait behind what a heavy one has under way.
//! The driver brings the answer up to date, and the pool does before it chooses a lane.

use std::time::Duration;

use tokio::time::Instant;

/// How long is looked at.
const SLICE: Duration = Duration::from_millis(100);
/// Who moves so much in a slice is heavy: some 5 MB/s.
const HEAVY_BYTES: u64 = 512 * 1024;

/// What one stream did in the last slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Weight {
    #[default]
    Idle,
    Light,
    Heavy,
}

/// One stream's account.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Account {
    counted: u64,
    pub(super) weight: Weight,
}

/// What all streams of a lane did together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales {
    since: Instant,
    pub(super) light: usize,
    pub(super) heavy: usize,
}

impl Scales {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, light: 0, heavy: 0 }
    }

    /// Whether a slice is over, so that it is time to [`Self::weigh`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SLICE
    }

    /// Takes each stream's account and the bytes that it has moved since it began.
    pub(super) fn weigh<'a>(
        &mut self,
        now: Instant,
        streams: impl Iterator<Item = (&'a std::cell::Cell<Account>, u64)>,
    ) {
        let slices = now.saturating_duration_since(self.since).as_secs_f64() / SLICE.as_secs_f64();
        *self = Self::new(now);
        for (account, bytes) in streams {
            let moved = bytes.saturating_sub(account.get().counted);
            let weight = match moved {
                0 => Weight::Idle,
                moved if moved as f64 >= HEAVY_BYTES as f64 * slices => Weight::Heavy,
                _ => Weight::Light,
            };
            self.light += usize::from(weight == Weight::Light);
            self.heavy += usize::from(weight == Weight::Heavy);
            account.set(Account { counted: bytes, weight });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_moves_much_is_heavy_and_only_for_as_long() {
        let start = Instant::now();
        let mut scales = Scales::new(start);
        let accounts: [Cell<Account>; 3] = Default::default();
        let mut weigh = |ms: u64, bytes: [u64; 3]| {
            let now = start + Duration::from_millis(ms);
            scales.weigh(now, accounts.iter().zip(bytes));
            (scales.heavy, scales.light, accounts.each_ref().map(|account| account.get().weight))
        };
        use Weight::{Heavy, Idle, Light};
        assert_eq!(weigh(100, [0, 2000, HEAVY_BYTES]), (1, 1, [Idle, Light, Heavy]));
        assert_eq!(weigh(200, [1, 2000, 2 * HEAVY_BYTES]), (1, 1, [Light, Idle, Heavy]));
        // Over five slices, the same is little.
        assert_eq!(weigh(700, [1, 2000, 3 * HEAVY_BYTES]), (0, 1, [Idle, Idle, Light]));
        assert!(!scales.is_due(start + Duration::from_millis(799)));
        assert!(scales.is_due(start + Duration::from_millis(800)));
    }
}
