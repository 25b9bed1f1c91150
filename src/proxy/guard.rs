//! Every tunnel connection of a worker, so that a ban reaches those that are open.
//!
//! The verifier keeps banned peers out; `worker` calls [`Guard::enforce`] when the bans have changed.
//! Both directions and Connect mode are in here, whatever pool or list keeps them otherwise.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::model::{Bans, Reason};
use crate::tunnel::Lane;

#[derive(Default)]
pub(super) struct Guard {
    lanes: RefCell<HashMap<u64, Lane>>,
    next: Cell<u64>,
}

/// A connection in the guard's list, for as long as it lives.
pub(super) struct Guarded {
    guard: Rc<Guard>,
    number: u64,
}

impl Guard {
    /// Takes a new connection in. `bans` are those of now: the handshake may have been judged by older
    /// ones.
    pub(super) fn admit(self: &Rc<Self>, lane: &Lane, bans: &Bans) -> Guarded {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.lanes.borrow_mut().insert(number, lane.clone());
        cut_if_banned(lane, bans);
        Guarded { guard: Rc::clone(self), number }
    }

    /// Cuts every connection whose peer is banned, and with it all its streams.
    pub(super) fn enforce(&self, bans: &Bans) {
        if !bans.is_empty() {
            self.lanes.borrow().values().for_each(|lane| cut_if_banned(lane, bans));
        }
    }
}

fn cut_if_banned(lane: &Lane, bans: &Bans) {
    let Some(subject) = lane.ban(bans) else { return };
    tracing::warn!(peer = %lane.peer(), by = subject.kind(), "cut a connection: the peer is banned");
    lane.abort(Reason::Denied, &format!("the peer is banned by its {}", subject.kind()));
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.guard.lanes.borrow_mut().remove(&self.number);
    }
}
