//! What the driver of a lane and the pump of a stream know of one stream, on the lane's thread.
//!
//! The driver delivers what arrives straight into the application's socket and keeps only what the
//! socket does not take (bounded by credit); the pump learns of everything else by the bell.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::bell::Bell;
use super::flow::{Overflow, ReceiveWindow, SendCredit};
use super::stream::{End, OpenRequest, Verdict};
use super::traffic::Account;
use crate::net::socket;

/// So much is held for an application before the kernel is asked to queue more than it would.
const HELD_BYTES: usize = 64 * 1024;

/// A backlog grows by an eighth, which it may waste, or by so much.
const LEAST_GROWTH_BYTES: usize = 1024;

/// State shared by the driver and the pump.
pub(super) struct StreamCell {
    pub(super) id: u32,
    pub(super) app: RefCell<Option<Rc<TcpStream>>>,
    pub(super) state: RefCell<StreamState>,
    pub(super) bell: Bell,
    /// It is among those that the lane tells when it has room again.
    pub(super) waits_for_room: Cell<bool>,
    pub(super) account: Cell<Account>,
}

pub(super) struct StreamState {
    pub(super) request: OpenRequest,
    pub(super) credit: SendCredit,
    pub(super) window: ReceiveWindow,
    /// Bytes for the application that its socket did not take yet.
    pub(super) pending: VecDeque<u8>,
    pub(super) verdict: Option<Verdict>,
    pub(super) reset: Option<End>,
    pub(super) fin_sent: bool,
    pub(super) fin_received: bool,
    /// FIN was passed on to the application.
    pub(super) fin_passed: bool,
    pub(super) app_broken: bool,
    /// The kernel was told to queue all it can for an application that lags behind.
    deep: bool,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl StreamCell {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            app: RefCell::new(None),
            state: RefCell::new(StreamState {
                request: OpenRequest::default(),
                credit: SendCredit::new(),
                window: ReceiveWindow::new(),
                pending: VecDeque::new(),
                verdict: None,
                reset: None,
                fin_sent: false,
                fin_received: false,
                fin_passed: false,
                app_broken: false,
                deep: false,
                bytes_sent: 0,
                bytes_received: 0,
            }),
            bell: Bell::default(),
            waits_for_room: Cell::new(false),
            account: Cell::default(),
        }
    }

    pub(super) fn set_request(&self, request: OpenRequest) {
        self.state.borrow_mut().request = request;
    }

    /// The first verdict stands.
    pub(super) fn decide(&self, verdict: Verdict) {
        self.state.borrow_mut().verdict.get_or_insert(verdict);
        self.bell.ring();
    }

    /// The peer, or the end of the lane, broke the stream off.
    pub(super) fn reset(&self, end: End) {
        let mut state = self.state.borrow_mut();
        if !(state.fin_received && state.fin_sent) {
            state.reset.get_or_insert(end);
        }
        drop(state);
        self.bell.ring();
    }

    pub(super) fn finish(&self) {
        self.state.borrow_mut().fin_received = true;
        self.bell.ring();
    }

    pub(super) fn grant(&self, bytes: u32) -> Result<(), Overflow> {
        self.state.borrow_mut().credit.grant(bytes)?;
        self.bell.ring();
        Ok(())
    }

    /// Bytes of memory that its backlog takes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.state.borrow().pending.capacity()
    }

    /// Grows whenever a byte gets on: to the peer, from it, or into the application.
    pub(super) fn progress(&self) -> u64 {
        let state = self.state.borrow();
        state.bytes_sent + 2 * state.bytes_received - state.pending.len() as u64
    }

    /// Bytes of the application so far, both ways.
    pub(super) fn moved(&self) -> u64 {
        let state = self.state.borrow();
        state.bytes_sent + state.bytes_received
    }

    /// Bytes that wait for the application.
    pub(super) fn backlog(&self) -> usize {
        self.state.borrow().pending.len()
    }

    /// Takes bytes from the peer; returns the credit to grant for them (0: none yet). `most` is the
    /// largest window where the peer must have had credit for them.
    pub(super) fn deliver(&self, bytes: &[u8], most: Option<u32>) -> Result<u32, Overflow> {
        let mut state = self.state.borrow_mut();
        if state.fin_received {
            return Err(Overflow); // FIN ended its credit
        }
        if most.is_some() {
            state.window.received(bytes.len())?;
        }
        state.bytes_received += bytes.len() as u64;
        let mut rest = bytes;
        if state.pending.is_empty()
            && let Some(app) = self.app.borrow().as_ref()
        {
            match socket::write(app, rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => {
                    state.app_broken = true;
                    self.bell.ring();
                    return Ok(0);
                }
            }
        }
        let taken = bytes.len() - rest.len();
        if !rest.is_empty() {
            keep(&mut state.pending, rest);
            if state.pending.len() > HELD_BYTES && !std::mem::replace(&mut state.deep, true) {
                // What was granted to a quick reader comes now that it is slow: better there than here.
                self.app.borrow().as_deref().map(socket::queue_all);
            }
            self.bell.ring();
        }
        let drained = state.pending.is_empty();
        Ok(most.map_or(0, |most| state.window.taken(taken, drained, most)))
    }

    /// Writes what waits for the application; returns the credit to grant for it, in a window of at most
    /// `most`.
    ///
    /// # Errors
    /// When the application is gone.
    pub(super) fn write_pending(&self, app: &TcpStream, most: u32) -> io::Result<Written> {
        let mut state = self.state.borrow_mut();
        let mut written = Written::default();
        while !state.pending.is_empty() {
            match socket::write(app, state.pending.as_slices().0) {
                Ok(taken) => {
                    state.pending.drain(..taken);
                    written.bytes += taken;
                    written.credit += {
                        let drained = state.pending.is_empty();
                        state.window.taken(taken, drained, most)
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if written.bytes > 0 && state.pending.capacity() > 2 * state.pending.len() {
            state.pending.shrink_to_fit(); // what the kernel has taken need not stay, and nothing of it when idle
        }
        if state.deep && state.pending.is_empty() {
            state.deep = false;
            socket::queue_little(app);
        }
        if state.app_broken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(written) }
    }
}

/// Appends to a backlog. Doubling it would waste as much as it holds, for as long as its reader stalls;
/// growing it to the byte would move all of it for each small frame.
fn keep(backlog: &mut VecDeque<u8>, bytes: &[u8]) {
    if backlog.capacity() - backlog.len() < bytes.len() {
        backlog.reserve_exact(bytes.len().max(backlog.len() / 8).max(LEAST_GROWTH_BYTES));
    }
    backlog.extend(bytes);
}

/// What [`StreamCell::write_pending`] came to.
#[derive(Default)]
pub(super) struct Written {
    pub(super) bytes: usize,
    /// Without meaning in Connect mode, which knows no credit.
    pub(super) credit: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::flow::{INITIAL_WINDOW, MAX_WINDOW};

    /// A peer that sends single bytes to a reader that stalls must not have all of them moved each time.
    #[test]
    fn a_backlog_grows_in_few_steps_and_wastes_little() {
        let cell = StreamCell::new(1);
        let (mut steps, mut capacity) = (0, 0);
        for _ in 0..INITIAL_WINDOW {
            cell.deliver(&[7], Some(MAX_WINDOW)).unwrap();
            let now = cell.state.borrow().pending.capacity();
            steps += usize::from(now != capacity);
            capacity = now;
        }
        assert!(steps < 64, "{steps} steps");
        assert!(capacity <= INITIAL_WINDOW as usize * 9 / 8 + LEAST_GROWTH_BYTES, "{capacity} bytes");
    }
}
