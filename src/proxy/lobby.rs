//! Peers that have not proved who they are yet. There is room for so many; one more makes the oldest
//! leave, which is hardly ever one that means it: a handshake takes milliseconds, silence takes long.
//!
//! `inbound` lets every TLS handshake wait here; one lobby for each worker.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

/// See the module.
pub(super) struct Lobby {
    most: usize,
    /// By arrival.
    guests: RefCell<BTreeMap<u64, Rc<Notify>>>,
    arrivals: Cell<u64>,
}

/// A place in the lobby.
pub(super) struct Guest<'l> {
    lobby: &'l Lobby,
    number: u64,
    leave: Rc<Notify>,
}

impl Lobby {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), guests: RefCell::default(), arrivals: Cell::new(0) }
    }

    /// Takes one more in; says whether the oldest had to leave for it.
    pub(super) fn enter(&self) -> (Guest<'_>, bool) {
        let number = self.arrivals.get();
        self.arrivals.set(number + 1);
        let mut guests = self.guests.borrow_mut();
        let crowded = guests.len() >= self.most;
        if crowded && let Some((_, oldest)) = guests.pop_first() {
            oldest.notify_one();
        }
        let leave = Rc::new(Notify::new());
        guests.insert(number, Rc::clone(&leave));
        drop(guests);
        (Guest { lobby: self, number, leave }, crowded)
    }
}

impl Guest<'_> {
    /// Waits until it has to leave for another one. Cancel-safe.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.lobby.guests.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_oldest_leaves_for_one_more() {
        let lobby = Lobby::new(2);
        let (first, crowded) = lobby.enter();
        assert!(!crowded);
        let (second, _) = lobby.enter();
        let (third, crowded) = lobby.enter();
        assert!(crowded);
        assert!(first.asked_to_leave().now_or_never().is_some());
        assert!(second.asked_to_leave().now_or_never().is_none());
        drop((first, second));
        let (_fourth, crowded) = lobby.enter();
        assert!(!crowded, "those who are done make room");
        assert!(third.asked_to_leave().now_or_never().is_none());
    }
}
