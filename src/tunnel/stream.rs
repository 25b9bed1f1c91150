//! One application connection on a lane: the verdict on it, its credit, and the pump that moves its
//! bytes.
//!
//! The driver delivers what arrives straight into the application's socket and keeps only what the
//! socket does not take (bounded by credit). The pump, one task per connection, does everything else.
//! Both run on the lane's thread.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::codec::{Event, MAX_DATA_BYTES};
use super::flow::{INITIAL_WINDOW, Overflow, ReceiveWindow, SendCredit};
use super::lane::{Lane, Mode};
use super::scratch;
use crate::model::Reason;
use crate::net::{limits, socket};

/// What became of an OPEN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The far application is connected.
    Opened,
    /// The peer said no; its application saw nothing.
    Refused { reason: Reason, detail: String },
    /// The lane ended first. `untouched` when it is certain that the peer's application saw nothing.
    Lost { reason: Reason, detail: String, untouched: bool },
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub reason: Reason,
    pub detail: String,
}

impl End {
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// What a peer asks for when it opens a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenRequest {
    /// Empty in Connect mode: whatever this sidecar serves.
    pub service: String,
    pub port: u16,
}

/// State shared by the driver and the pump.
pub(super) struct StreamCell {
    pub(super) id: u32,
    app: RefCell<Option<Rc<TcpStream>>>,
    state: RefCell<StreamState>,
    notify: Notify,
}

struct StreamState {
    request: OpenRequest,
    credit: SendCredit,
    window: ReceiveWindow,
    /// Bytes for the application that its socket did not take yet.
    pending: BytesMut,
    verdict: Option<Verdict>,
    reset: Option<End>,
    fin_sent: bool,
    fin_received: bool,
    /// FIN was passed on to the application.
    fin_passed: bool,
    app_broken: bool,
    bytes_sent: u64,
    bytes_received: u64,
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
                pending: BytesMut::new(),
                verdict: None,
                reset: None,
                fin_sent: false,
                fin_received: false,
                fin_passed: false,
                app_broken: false,
                bytes_sent: 0,
                bytes_received: 0,
            }),
            notify: Notify::new(),
        }
    }

    pub(super) fn set_request(&self, request: OpenRequest) {
        self.state.borrow_mut().request = request;
    }

    /// The first verdict stands.
    pub(super) fn decide(&self, verdict: Verdict) {
        self.state.borrow_mut().verdict.get_or_insert(verdict);
        self.notify.notify_one();
    }

    /// The peer, or the end of the lane, broke the stream off.
    pub(super) fn reset(&self, end: End) {
        let mut state = self.state.borrow_mut();
        if !(state.fin_received && state.fin_sent) {
            state.reset.get_or_insert(end);
        }
        drop(state);
        self.notify.notify_one();
    }

    pub(super) fn finish(&self) {
        self.state.borrow_mut().fin_received = true;
        self.notify.notify_one();
    }

    pub(super) fn grant(&self, bytes: u32) -> Result<(), Overflow> {
        self.state.borrow_mut().credit.grant(bytes)?;
        self.notify.notify_one();
        Ok(())
    }

    /// Bytes of memory that its backlog takes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.state.borrow().pending.capacity()
    }

    /// Bytes that wait for the application.
    pub(super) fn backlog(&self) -> usize {
        self.state.borrow().pending.len()
    }

    /// Takes bytes from the peer; returns the credit to grant for them (0: none yet). `limited` says
    /// that the peer must have had credit for them.
    pub(super) fn deliver(&self, bytes: &[u8], limited: bool) -> Result<u32, Overflow> {
        let mut state = self.state.borrow_mut();
        if state.fin_received {
            return Err(Overflow); // FIN ended its credit
        }
        if limited {
            state.window.received(bytes.len())?;
        }
        state.bytes_received += bytes.len() as u64;
        let mut rest = bytes;
        if state.pending.is_empty()
            && let Some(app) = self.app.borrow().as_ref()
        {
            match app.try_write(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => {
                    state.app_broken = true;
                    self.notify.notify_one();
                    return Ok(0);
                }
            }
        }
        let taken = bytes.len() - rest.len();
        if !rest.is_empty() {
            state.pending.extend_from_slice(rest);
            self.notify.notify_one();
        }
        let drained = state.pending.is_empty();
        Ok(if limited { state.window.taken(taken, drained) } else { 0 })
    }
}

/// One end of a stream. Dropping it before its end resets the stream.
pub struct Stream {
    lane: Lane,
    cell: Rc<StreamCell>,
    ended: bool,
}

impl Stream {
    pub(super) const fn new(lane: Lane, cell: Rc<StreamCell>) -> Self {
        Self { lane, cell, ended: false }
    }

    #[must_use]
    pub const fn lane(&self) -> &Lane {
        &self.lane
    }

    /// What the peer asked for.
    #[must_use]
    pub fn request(&self) -> OpenRequest {
        self.cell.state.borrow().request.clone()
    }

    /// Grows whenever a byte gets on: to the peer, from it, or into the application.
    fn progress(&self) -> u64 {
        let state = self.cell.state.borrow();
        state.bytes_sent + 2 * state.bytes_received - state.pending.len() as u64
    }

    /// Application bytes so far: sent to the peer, received from it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let state = self.cell.state.borrow();
        (state.bytes_sent, state.bytes_received)
    }

    /// Waits for the peer's verdict. Cancel-safe.
    pub async fn verdict(&self) -> Verdict {
        loop {
            if let Some(verdict) = self.cell.state.borrow().verdict.clone() {
                return verdict;
            }
            self.cell.notify.notified().await;
        }
    }

    /// Sends bytes ahead of the verdict; the caller keeps them within `INITIAL_WINDOW`.
    pub fn send_early(&self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= INITIAL_WINDOW as usize);
        self.send(bytes);
    }

    /// Tells the peer that the application is connected.
    pub fn accept(&self) {
        self.lane.put(&Event::Opened { stream: self.cell.id });
    }

    /// Tells the peer that no application will see this stream.
    pub fn refuse(mut self, reason: Reason, detail: &str) {
        self.ended = true;
        let detail = detail.to_owned();
        self.lane.put(&Event::Refused { stream: self.cell.id, reason, detail });
        self.lane.forget(self.cell.id);
    }

    /// Breaks the stream off.
    pub fn reset(mut self, reason: Reason, detail: &str) {
        self.say_reset(reason, detail);
    }

    fn say_reset(&mut self, reason: Reason, detail: &str) {
        if !self.ended {
            self.ended = true;
            let detail = detail.to_owned();
            self.lane.put(&Event::Reset { stream: self.cell.id, reason, detail });
            self.lane.forget(self.cell.id);
        }
    }

    /// Moves bytes both ways until both directions have ended or something broke. The caller drops
    /// `app` afterwards, which it has set to reset on close: only a clean end takes that back, so that
    /// the application cannot take a truncated stream for a whole one, even when this is cancelled.
    pub async fn pump(&mut self, app: &Rc<TcpStream>) -> End {
        *self.cell.app.borrow_mut() = Some(Rc::clone(app));
        let end = self.pump_until_end(app).await;
        self.cell.app.borrow_mut().take();
        if end.reason == Reason::Ok {
            socket::finish_on_close(app);
            self.ended = true;
            self.lane.forget(self.cell.id);
        } else {
            self.say_reset(end.reason, &end.detail);
        }
        end
    }

    async fn pump_until_end(&self, app: &TcpStream) -> End {
        let mut half_closed = HalfClosed::default();
        loop {
            if let Some(end) = self.write_pending(app).or_else(|| self.pass_fin(app)) {
                return end;
            }
            if let Some(end) = self.end_reached() {
                return end;
            }
            let wants = self.wants();
            if half_closed.is_over(self, wants) {
                return End::new(Reason::IdleTimeout, "nothing moved after one side had finished");
            }
            tokio::select! {
                biased;
                () = self.cell.notify.notified() => {}
                ready = app.readable(), if wants.read => {
                    if let Some(end) = ready.err().map(app_reset).or_else(|| self.read_app(app)) {
                        return end;
                    }
                }
                ready = app.writable(), if wants.write => {
                    if let Some(error) = ready.err() { return app_reset(error); }
                }
                ready = app.ready(Interest::ERROR), if !wants.read => {
                    drop(ready);
                    let error = app.take_error().ok().flatten();
                    return app_reset(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
                }
                () = self.lane.0.room.notified(), if wants.room => {}
                () = half_closed.wait(), if half_closed.is_armed() => {}
            }
        }
    }

    fn wants(&self) -> Wants {
        let state = self.cell.state.borrow();
        let may_send = !state.fin_sent && (state.credit.available() > 0 || self.is_raw());
        let congested = self.lane.is_congested();
        Wants {
            read: may_send && !congested,
            room: may_send && congested,
            write: !state.pending.is_empty(),
            half_closed: state.fin_sent || state.fin_received,
        }
    }

    fn is_raw(&self) -> bool {
        self.lane.mode() == Mode::Raw
    }

    /// Writes what waits for the application; an end when the application is gone.
    fn write_pending(&self, app: &TcpStream) -> Option<End> {
        let mut state = self.cell.state.borrow_mut();
        let (mut grant, mut wrote) = (0, false);
        while !state.pending.is_empty() {
            match app.try_write(&state.pending) {
                Ok(taken) => {
                    wrote = true;
                    state.pending.advance(taken);
                    let drained = state.pending.is_empty();
                    if !self.is_raw() {
                        grant += state.window.taken(taken, drained);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Some(app_reset(error)),
            }
        }
        if state.pending.is_empty() && state.pending.capacity() > 0 {
            state.pending = BytesMut::new(); // an idle stream owns no buffer
        }
        let broken = state.app_broken;
        drop(state);
        if self.is_raw() && wrote {
            self.lane.0.wake.notify_one(); // the driver reads on once the backlog is gone
        } else if grant > 0 {
            self.lane.put(&Event::Credit { stream: self.cell.id, bytes: grant });
        }
        broken.then(|| app_reset(io::ErrorKind::BrokenPipe.into()))
    }

    /// Passes the peer's FIN on once everything before it was written.
    fn pass_fin(&self, app: &TcpStream) -> Option<End> {
        let mut state = self.cell.state.borrow_mut();
        if state.fin_received && !state.fin_passed && state.pending.is_empty() {
            state.fin_passed = true;
            // The application may have gone after its own FIN; then nobody misses ours.
            if let Err(error) = socket::shut_write(app)
                && !state.fin_sent
            {
                return Some(app_reset(error));
            }
        }
        None
    }

    fn end_reached(&self) -> Option<End> {
        let state = self.cell.state.borrow();
        if state.fin_sent && state.fin_passed {
            return Some(End::new(Reason::Ok, ""));
        }
        state.reset.clone()
    }

    /// Reads once from the application and sends it on; an end when the application broke off.
    fn read_app(&self, app: &TcpStream) -> Option<End> {
        if self.lane.is_congested() {
            return None; // others filled it in this very turn
        }
        let credit =
            if self.is_raw() { MAX_DATA_BYTES } else { self.cell.state.borrow().credit.available() };
        let read = scratch::with_application_buffer(|buffer| {
            let most = buffer.len().min(credit).min(MAX_DATA_BYTES);
            let read = app.try_read(&mut buffer[..most])?;
            self.send(&buffer[..read]);
            Ok(read)
        });
        match read {
            Ok(0) => {
                self.cell.state.borrow_mut().fin_sent = true;
                self.lane.put(&Event::Fin { stream: self.cell.id });
                None
            }
            Ok(_) => None,
            Err(error) => {
                let error: io::Error = error;
                (error.kind() != io::ErrorKind::WouldBlock).then(|| app_reset(error))
            }
        }
    }

    fn send(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        {
            let mut state = self.cell.state.borrow_mut();
            if !self.is_raw() {
                state.credit.spend(bytes.len());
            }
            state.bytes_sent += bytes.len() as u64;
        }
        self.lane.put(&Event::Data { stream: self.cell.id, bytes });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cell.app.borrow_mut().take();
        self.say_reset(Reason::PeerReset, "given up");
    }
}

fn app_reset(error: io::Error) -> End {
    End::new(Reason::AppReset, format!("the local application broke off: {error}"))
}

/// What a pump waits for.
#[derive(Clone, Copy)]
struct Wants {
    read: bool,
    write: bool,
    room: bool,
    half_closed: bool,
}

/// The deadline of a half-closed stream: armed while one direction has ended, put off by every byte.
#[derive(Default)]
struct HalfClosed {
    deadline: Option<Instant>,
    progress: u64,
}

impl HalfClosed {
    fn is_over(&mut self, stream: &Stream, wants: Wants) -> bool {
        if !wants.half_closed {
            self.deadline = None;
            return false;
        }
        let progress = stream.progress();
        match self.deadline {
            Some(deadline) if self.progress == progress => Instant::now() >= deadline,
            _ => {
                self.progress = progress;
                self.deadline = Some(Instant::now() + limits::HALF_CLOSED_IDLE);
                false
            }
        }
    }

    const fn is_armed(&self) -> bool {
        self.deadline.is_some()
    }

    async fn wait(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}
