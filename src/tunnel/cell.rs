//! What the driver of a lane and the pump of a stream know of one stream, on the lane's thread.
//!
//! The driver delivers what arrives straight into the application's socket and keeps only what the
//! socket does not take; the pump learns of everything else by the bell.
//!
//! An application that stops to read while it has a large window has been granted more than shall be kept
//! here. The kernel's queue has room for it, which it does not use as long as it is told to queue little
//! (so that the stall is noticed early). So what was granted is sunk there, all but a last byte: once the
//! kernel takes that, told again to queue little, the application reads, and not before it is owed credit.

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

/// So much is held for an application before it is sunk into the kernel's queue.
const HELD_BYTES: usize = 48 * 1024;

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
    lag: Lag,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

/// How far an application is behind what was granted to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lag {
    None,
    /// Its backlog was sunk into the kernel's queue.
    Sunk,
    /// So much that the kernel's queue is full.
    Full,
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
                lag: Lag::None,
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
        let drained = rest.is_empty();
        let credit = most.map_or(0, |most| state.window.taken(taken, drained, most));
        if !drained {
            keep(&mut state.pending, rest);
            if most.is_some()
                && state.pending.len() > HELD_BYTES
                && state.lag != Lag::Full
                && let Some(app) = self.app.borrow().as_deref()
            {
                state.sink(app);
            }
            self.bell.ring();
        }
        Ok(credit)
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
                    written.credit += state.took(taken, most);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if written.bytes > 0 {
            state.release();
        }
        if state.app_broken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(written) }
    }
}

impl StreamState {
    /// The application took bytes of its backlog; returns the credit to grant.
    fn took(&mut self, bytes: usize, most: u32) -> u32 {
        let drained = self.pending.is_empty();
        if self.lag != Lag::None && !drained {
            self.window.withheld(bytes);
            self.lag = Lag::Sunk; // there is room again
            return 0;
        }
        self.lag = Lag::None;
        self.window.taken(bytes, drained, most)
    }

    /// Leaves the backlog to the kernel's queue, all but a byte.
    fn sink(&mut self, app: &TcpStream) {
        socket::queue_all(app);
        self.lag = Lag::Sunk;
        while self.pending.len() > 1 {
            let (first, _) = self.pending.as_slices();
            let most = first.len().min(self.pending.len() - 1);
            // What went wrong with the connection, the next write of the pump tells, too.
            let Ok(taken) = socket::push(app, &first[..most]) else {
                self.lag = Lag::Full;
                break;
            };
            self.pending.drain(..taken);
            self.window.withheld(taken);
        }
        socket::queue_little(app);
        self.release();
    }

    /// Gives back what a backlog has no use for any more, and all of it when there is none.
    fn release(&mut self) {
        if self.pending.capacity() > 2 * self.pending.len() {
            self.pending.shrink_to_fit();
        }
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
