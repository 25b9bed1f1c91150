//! Credit: how much each side of a stream may send. Pure arithmetic, one value per direction.
//!
//! A receiver owes its peer a bounded window. The window begins small and grows only while the
//! application drains it, so a stalled reader costs at most what its stream had earned. What all of a
//! process have earned together is bounded, too, where memory is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Credit that both sides have when a stream opens, in bytes. Part of the protocol.
pub const INITIAL_WINDOW: u32 = 64 * 1024;
/// Largest window a receiver grants. An application that stops to read when it has so much leaves all but
/// the first window to the kernel's queue, see `StreamCell`.
pub const MAX_WINDOW: u32 = 4 * 1024 * 1024;

/// Largest window of a stream that has light ones beside it on its lane.
pub const SHARED_WINDOW: u32 = 256 * 1024;

/// Windows that an application must have taken without a backlog before its window grows: what the
/// kernel queues for one that does not read must not look like reading.
const PROOF: u32 = 4;

/// What the windows of this process have grown by.
static GROWTH: Growth = Growth::new();

/// Windows of this process grow by no more than this, all together. The first call counts.
pub fn bound_growth(bytes: usize) {
    let _bound_before = GROWTH.most.set(bytes);
}

/// Bytes that are given out until there are no more.
#[derive(Debug)]
struct Growth {
    most: OnceLock<usize>,
    given: AtomicUsize,
}

impl Growth {
    const fn new() -> Self {
        Self { most: OnceLock::new(), given: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: u32) -> bool {
        let most = self.most.get().copied().unwrap_or(usize::MAX);
        let taken = |given: usize| given.checked_add(bytes as usize).filter(|sum| *sum <= most);
        // The count stands for itself: nothing else is published with it.
        self.given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: u32) {
        self.given.fetch_sub(bytes as usize, Ordering::Relaxed);
    }
}

/// How much we may still send.
#[derive(Debug, Clone, Copy)]
pub struct SendCredit(u32);

/// The peer granted more than a stream can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl SendCredit {
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it begins open, which `default` would not say")]
    pub const fn new() -> Self {
        Self(INITIAL_WINDOW)
    }

    #[must_use]
    pub const fn available(self) -> usize {
        self.0 as usize
    }

    /// Takes `bytes` that were sent; the caller sends no more than `available`.
    pub fn spend(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.available());
        self.0 = self.0.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Adds what the peer granted.
    ///
    /// # Errors
    /// When the sum does not fit.
    pub fn grant(&mut self, bytes: u32) -> Result<(), Overflow> {
        self.0 = self.0.checked_add(bytes).ok_or(Overflow)?;
        Ok(())
    }
}

/// How much the peer may still send, and what it will be granted.
#[derive(Debug)]
pub struct ReceiveWindow {
    /// Bytes the peer may send before it needs a grant.
    open: u32,
    /// Bytes the application took that were not granted again yet.
    owed: u32,
    window: u32,
    /// Bytes the application took since the window last grew or there was a backlog.
    proven: u32,
}

impl ReceiveWindow {
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it begins open, which `default` would not say")]
    pub const fn new() -> Self {
        Self { open: INITIAL_WINDOW, owed: 0, window: INITIAL_WINDOW, proven: 0 }
    }

    /// The peer sent `bytes`.
    ///
    /// # Errors
    /// When that is more than it was granted.
    pub fn received(&mut self, bytes: usize) -> Result<(), Overflow> {
        let bytes = u32::try_from(bytes).map_err(|_| Overflow)?;
        self.open = self.open.checked_sub(bytes).ok_or(Overflow)?;
        Ok(())
    }

    /// The kernel took `bytes` for an application that does not read: they are granted again when it does.
    pub fn withheld(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.proven = 0;
    }

    /// The application took `bytes`; `drained` says that nothing waits for it now. The window grows to
    /// `most`, and shrinks to it. Returns the credit to send, zero when it is not worth a frame yet.
    pub fn taken(&mut self, bytes: usize, drained: bool, most: u32) -> u32 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.owed = self.owed.saturating_add(bytes);
        self.proven = if drained { self.proven.saturating_add(bytes) } else { 0 };
        if self.owed < self.window / 2 {
            return 0;
        }
        let mut grant = self.owed;
        if self.window > most {
            let cut = grant.min(self.window - most);
            GROWTH.give_back(cut);
            self.window -= cut;
            grant -= cut;
        } else if self.proven >= PROOF * self.window && self.window < most {
            self.proven = 0;
            let growth = self.window.min(most - self.window);
            if GROWTH.take(growth) {
                self.window += growth;
                grant += growth;
            }
        }
        self.owed = 0;
        self.open += grant;
        grant
    }
}

impl Drop for ReceiveWindow {
    fn drop(&mut self) {
        GROWTH.give_back(self.window - INITIAL_WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stalled_reader_is_owed_nothing_new() {
        let mut window = ReceiveWindow::new();
        window.received(INITIAL_WINDOW as usize).unwrap();
        assert_eq!(window.received(1), Err(Overflow));
    }

    #[test]
    fn a_large_window_shrinks_when_others_come() {
        let (mut window, mut credit) = (ReceiveWindow::new(), SendCredit::new());
        for round in 0..80 {
            let sent = credit.available();
            credit.spend(sent);
            window.received(sent).unwrap();
            credit
                .grant(window.taken(sent, true, if round < 40 { MAX_WINDOW } else { SHARED_WINDOW }))
                .unwrap();
        }
        assert_eq!(credit.available(), SHARED_WINDOW as usize);
    }

    #[test]
    fn a_draining_reader_earns_a_larger_window() {
        let mut window = ReceiveWindow::new();
        let mut credit = SendCredit::new();
        for _ in 0..40 {
            let sent = credit.available();
            credit.spend(sent);
            window.received(sent).unwrap();
            credit.grant(window.taken(sent, true, MAX_WINDOW)).unwrap();
        }
        assert_eq!(credit.available(), MAX_WINDOW as usize);
    }

    #[test]
    fn growth_is_given_out_until_there_is_none() {
        let growth = Growth::new();
        assert!(growth.take(u32::MAX), "without a bound there is always more");
        growth.give_back(u32::MAX);
        growth.most.set(100).unwrap();
        assert!(growth.take(60) && !growth.take(60) && growth.take(40));
        growth.give_back(60);
        assert!(growth.take(60));
    }

    proptest! {
        /// Whatever the order of sending and taking, both sides agree and nothing exceeds the window.
        #[test]
        fn both_sides_agree(steps in prop::collection::vec((0usize..200_000, any::<bool>()), 1..200)) {
            let (mut credit, mut window) = (SendCredit::new(), ReceiveWindow::new());
            let mut queued = 0usize;
            for (step, (amount, send)) in steps.into_iter().enumerate() {
                let most = if step < 100 { MAX_WINDOW } else { SHARED_WINDOW };
                if send {
                    let bytes = amount.min(credit.available());
                    credit.spend(bytes);
                    prop_assert!(window.received(bytes).is_ok());
                    queued += bytes;
                } else {
                    let bytes = amount.min(queued);
                    queued -= bytes;
                    let grant = window.taken(bytes, queued == 0, most);
                    prop_assert!(credit.grant(grant).is_ok());
                }
                prop_assert!(queued + credit.available() <= MAX_WINDOW as usize);
                // Never stuck: with nothing queued, the sender may send.
                prop_assert!(queued > 0 || credit.available() > 0);
            }
        }
    }
}
