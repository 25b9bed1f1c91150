//! How many refusals are written: whoever may do nothing shall not be able to fill the disk.

use crate::access::limits::MAX_REFUSALS_PER_SECOND;

/// Counts the refusals of the running second. Pure; the time is passed in.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    second: u64,
    written: u32,
    unwritten: u64,
}

impl Refusals {
    /// Whether one more is to be written; with it, how many were not since the last that was.
    pub(super) fn admit(&mut self, second: u64) -> Option<u64> {
        if self.second != second {
            (self.second, self.written) = (second, 0);
        }
        if self.written == MAX_REFUSALS_PER_SECOND {
            self.unwritten += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told() {
        let mut refusals = Refusals::default();
        let written = (0..MAX_REFUSALS_PER_SECOND + 7).filter(|_| refusals.admit(5) == Some(0)).count();
        assert_eq!(written, usize::try_from(MAX_REFUSALS_PER_SECOND).unwrap());
        assert_eq!(refusals.admit(6), Some(7));
        assert_eq!(refusals.admit(6), Some(0));
    }
}
