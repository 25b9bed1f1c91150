//! A counted limit that all threads share: whoever holds a seat counts, and gives it back by dropping it.
//!
//! `proxy` bounds with it what a process holds at a time. Invariant: no more seats are held than there
//! are, but for those that were taken with [`Seats::take_regardless`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many seats.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    taken: AtomicUsize,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Seats {
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0) })
    }

    /// A seat, if one is free.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        let free = |taken: usize| (taken < self.most).then_some(taken + 1);
        // The count stands for itself: nothing else is published with it.
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        taken.is_ok().then(|| Seat(Arc::clone(self)))
    }

    /// Seats held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A seat for what is needed however full it is; those who ask find less room.
    #[must_use]
    pub fn take_regardless(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_given_back() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take(), seats.take());
        assert!(one.is_some() && two.is_some() && seats.take().is_none());
        let needed = seats.take_regardless();
        drop(one);
        assert!(seats.take().is_none(), "the one that was needed counts");
        drop(needed);
        assert!(seats.take().is_some());
        assert!(Seats::new(0).take().is_none());
    }

    #[test]
    fn threads_together_never_hold_more() {
        let seats = Seats::new(3);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let Some(_seat) = seats.take() else { continue };
                        most.fetch_max(seats.held(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(seats.taken.load(Ordering::Relaxed), 0);
    }
}
