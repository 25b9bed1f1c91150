//! The task behind a lane: reads, decodes and delivers; seals and writes what has gathered.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::io::{Interest, Ready};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, timeout};

use super::bell::{Bell, let_others};
use super::codec::Decoder;
use super::handshake::Established;
use super::lane::{Inner, Lane, LaneEnd, Mode, State};
use super::scratch;
use super::session::SEALED_RECORD_BYTES;
use super::stream::{End, OpenRequest, Stream, Verdict};
use super::traffic::Scales;
use super::wire::{Fault, Read, Wire};
use crate::model::Reason;
use crate::net::{limits, socket};

/// Reads after a failed write: as much as a peer says before it closes.
const READS_TO_HEAR: u32 = 8;
/// A read takes so much at first, and more from a peer that fills it with long frames. Many short ones
/// would hold up the thread.
const FIRST_READ_BYTES: usize = 32 * 1024;
const LONG_FRAME_BYTES: usize = 4 * 1024;
/// What a peer seals in one go; a read of just that ends where a frame ends.
const MOST_READ_BYTES: usize = scratch::RECORDS * SEALED_RECORD_BYTES;

/// How long a lane that we have closed waits for the peer to close, too.
const LINGER: Duration = Duration::from_secs(1);

/// Called for each stream that the peer opens.
type OnOpen = Box<dyn Fn(Stream)>;

/// Runs a lane; see the module.
pub struct Driver {
    pub(super) lane: Lane,
    pub(super) decoder: Decoder,
    pub(super) on_open: Option<OnOpen>,
    /// Dropped when the lane has ended.
    _held: Option<Box<dyn std::any::Any>>,
    /// What came together with the end of the handshake, until it is handled.
    early: Option<Vec<u8>>,
    expires: Instant,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Watches for a reset while nothing is read, which would notice it.
    reset: Option<Pin<Box<dyn Future<Output = io::Result<Ready>>>>>,
    /// The peer has sent at least one frame.
    pub(super) heard: bool,
    /// How much the next read takes.
    appetite: usize,
}

impl Driver {
    /// A lane over a finished handshake, and the driver that must be run on this thread.
    ///
    /// `on_open` is there on the side that accepts. `expires` is when the first of both leaves does.
    #[must_use]
    pub fn new(established: Established, expires: SystemTime, on_open: Option<OnOpen>) -> (Lane, Self) {
        let Established { socket, tls, plain, input, closed, peer, mode, .. } = established;
        let lane = Lane(Rc::new(Inner {
            socket,
            peer,
            mode,
            state: std::cell::RefCell::new(State::default()),
            bell: Bell::default(),
            driving: std::cell::Cell::new(false),
            waiting: std::cell::RefCell::default(),
            blocked: std::cell::Cell::new(false),
            wire: std::cell::RefCell::new(Wire::new(tls, input, closed)),
            scales: std::cell::Cell::new(Scales::new(Instant::now())),
        }));
        let left = expires.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        let expires = Instant::now() + left;
        let driver = Self {
            lane: lane.clone(),
            decoder: Decoder::default(),
            on_open,
            _held: None,
            early: Some(plain),
            expires,
            idle_since: None,
            timer: Box::pin(tokio::time::sleep_until(expires)),
            reset: None,
            heard: false,
            appetite: FIRST_READ_BYTES,
        };
        (lane, driver)
    }

    /// Keeps a value for as long as the lane lives.
    #[must_use]
    pub fn holding(mut self, value: impl std::any::Any) -> Self {
        self._held = Some(Box::new(value));
        self
    }

    /// Runs until the lane is closed or broken; every stream still on it is told, even when this is
    /// cancelled.
    pub async fn run(mut self) -> LaneEnd {
        let end = poll_fn(|cx| self.poll(cx)).await;
        self.close(&end);
        if end.reason == Reason::Ok {
            // It is closed for the streams already; whether the peer answers changes nothing.
            let _late = timeout(LINGER, self.linger()).await;
        }
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LaneEnd> {
        let lane = self.lane.clone();
        lane.0.bell.listen(cx);
        lane.0.driving.set(true);
        lane.weigh(Instant::now());
        let turn = self.turn(cx);
        lane.0.driving.set(false);
        match turn {
            Ok(Some(end)) | Err(end) => Poll::Ready(end),
            Ok(None) => Poll::Pending,
        }
    }

    /// Goes on until there is nothing to do, or one read was handled: others have their turn then, or a
    /// peer that always has something to say would keep the thread to itself.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Option<LaneEnd>, LaneEnd> {
        loop {
            self.begin()?;
            let read = self.read_if_ready(cx)?;
            self.flush_or_hear()?;
            if let Some(end) = self.end_reached() {
                return Ok(Some(end));
            }
            if read {
                let_others(cx);
                return Ok(None);
            } else if !self.is_writable_again(cx)? && !self.is_time(cx)? {
                return Ok(None);
            }
        }
    }

    /// Handles what the handshake left, once there may be reading.
    fn begin(&mut self) -> Result<(), LaneEnd> {
        if self.early.is_none() {
            return Ok(());
        }
        if self.lane.mode() == Mode::Raw && self.dialled() && self.lane.streams() == 0 {
            return Ok(()); // its one stream is about to be opened
        }
        let Some(early) = self.early.take() else { return Ok(()) };
        if self.lane.mode() == Mode::Raw && !self.dialled() {
            self.accept(1, OpenRequest::default())?;
            self.lane.0.state.borrow_mut().retired = true; // one stream, then the end
        }
        self.handle(&early)?;
        if self.peer_finished() { self.peer_closed() } else { Ok(()) }
    }

    /// In raw mode the socket is read only while there is an application that keeps up. Frames have
    /// credit, but a peer that lets our answers pile up is not listened to meanwhile.
    fn may_read(&self) -> bool {
        match self.lane.mode() {
            Mode::Lane => self.lane.0.state.borrow().outgoing.len() < limits::LANE_ANSWERS,
            Mode::Raw => !self.peer_finished() && self.lane.may_take() > 0,
        }
    }

    /// Says whether something was read, so that there may be more.
    fn read_if_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, LaneEnd> {
        if !self.may_read() {
            self.watch_for_reset(cx)?;
            return Ok(false);
        }
        self.reset = None;
        // Ready sockets may have nothing. Only one that is pending wakes this task.
        while let Poll::Ready(ready) = self.lane.0.socket.poll_read_ready(cx) {
            ready.map_err(|error| broken(&error))?;
            if self.read()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn watch_for_reset(&mut self, cx: &mut Context<'_>) -> Result<(), LaneEnd> {
        let watch = self.reset.get_or_insert_with(|| {
            let inner = Rc::clone(&self.lane.0);
            Box::pin(async move { inner.socket.ready(Interest::ERROR).await })
        });
        match watch.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(_) => Err(broken(&socket::error_of(&self.lane.0.socket))),
        }
    }

    fn is_writable_again(&self, cx: &mut Context<'_>) -> Result<bool, LaneEnd> {
        if !self.lane.0.blocked.get() {
            return Ok(false);
        }
        match self.lane.0.socket.poll_write_ready(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(broken(&error)),
        }
    }

    /// Says whether a deadline has come, and does what it asks for.
    fn is_time(&mut self, cx: &mut Context<'_>) -> Result<bool, LaneEnd> {
        let deadline = self.deadline();
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        if Instant::now() >= self.expires {
            return Err(end(Reason::CertExpired, "a certificate of this connection has expired"));
        }
        self.lane.retire(Reason::IdleTimeout);
        Ok(true)
    }

    fn deadline(&self) -> Instant {
        match self.idle_since {
            Some(since) if self.dialled() && self.lane.is_open() => {
                self.expires.min(since + limits::LANE_IDLE)
            }
            _ => self.expires,
        }
    }

    fn peer_finished(&self) -> bool {
        self.lane.0.wire.borrow().peer_finished()
    }

    pub(super) fn dialled(&self) -> bool {
        self.on_open.is_none()
    }

    fn end_reached(&mut self) -> Option<LaneEnd> {
        let mut state = self.lane.0.state.borrow_mut();
        if let Some(end) = state.abort.take() {
            return Some(end);
        }
        if !state.streams.is_empty() {
            self.idle_since = None;
            return None;
        }
        self.idle_since.get_or_insert_with(Instant::now);
        let sent = state.outgoing.is_empty() && self.lane.0.wire.borrow().is_flushed();
        (state.retired && sent).then(|| end(Reason::Ok, ""))
    }

    /// Reads what is there, up to one buffer, and handles it; says whether there was something.
    fn read(&mut self) -> Result<bool, LaneEnd> {
        scratch::with_plain(|plain| {
            let had_finished = self.peer_finished();
            let lane = Rc::clone(&self.lane.0);
            let most = self.appetite.min(self.lane.may_take());
            let read = lane.wire.borrow_mut().read(&lane.socket, most, plain);
            // What came before a fault was meant.
            let events = self.handle(plain)?;
            self.appetite = match events * LONG_FRAME_BYTES <= plain.len() {
                true if plain.len() * 8 > self.appetite * 7 => MOST_READ_BYTES.min(2 * self.appetite),
                true => self.appetite,
                false => FIRST_READ_BYTES,
            };
            if self.peer_finished() && !had_finished {
                self.peer_closed()?;
            }
            match read {
                Ok(Read::Nothing) => Ok(false),
                Ok(Read::Some) => Ok(true),
                Ok(Read::End) => Err(self.truncated()),
                Err(fault) => Err(self.fault(&fault)),
            }
        })
    }

    /// Flushes; when that fails, hears first what the peer said before it closed, which explains more
    /// and may be the promise that it did not look at our streams.
    fn flush_or_hear(&mut self) -> Result<(), LaneEnd> {
        let Err(fault) = self.lane.flush() else { return Ok(()) };
        for _ in 0..READS_TO_HEAR {
            if !self.may_read() || !self.read()? {
                break;
            }
        }
        Err(self.fault(&fault))
    }

    /// Tells every stream, then the peer.
    fn close(&mut self, end: &LaneEnd) {
        let streams: Vec<_> = {
            let mut state = self.lane.0.state.borrow_mut();
            state.retired = true;
            state.end = Some(end.clone());
            state.streams.values().cloned().collect()
        };
        let reason = if end.reason == Reason::Ok { Reason::PeerReset } else { end.reason };
        for cell in streams {
            let (detail, untouched) = (end.detail.clone(), end.refused_by_tls);
            cell.decide(Verdict::Lost { reason, detail: detail.clone(), untouched });
            cell.reset(End { reason, detail });
        }
        self.lane.tell_room();
        let socket = &self.lane.0.socket;
        let mut wire = self.lane.0.wire.borrow_mut();
        if end.reason == Reason::Ok {
            wire.finish();
        }
        // close_notify, or an alert. Without close_notify the peer sees that this is no clean end.
        let _last = wire.flush(socket);
        drop(wire);
        if end.reason != Reason::Ok && self.lane.mode() == Mode::Raw {
            socket::reset_on_close(socket);
        } else {
            // Streams may hold the socket for a while, but the peer shall know now.
            let _gone = socket::shut_write(socket);
        }
    }

    /// Reads on until the peer has closed, too: a close over unread bytes is a reset, which may reach
    /// the peer before what we said last.
    async fn linger(&self) {
        let socket = &self.lane.0.socket;
        while socket.readable().await.is_ok() {
            let read = scratch::with_input(|input| socket::read(socket, input));
            match read {
                Ok(0) => return,
                Ok(_) => yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => return,
            }
        }
    }

    fn truncated(&self) -> LaneEnd {
        if self.peer_finished() || (self.lane.streams() == 0 && self.lane.mode() == Mode::Lane) {
            return end(Reason::Ok, "");
        }
        end(Reason::PeerReset, "the peer vanished without closing the connection")
    }

    fn fault(&self, fault: &Fault) -> LaneEnd {
        let error = match fault {
            Fault::Io(error) => return broken(error),
            Fault::Tls(error) => error,
        };
        let alert = matches!(error, rustls::Error::AlertReceived(_));
        LaneEnd {
            reason: Reason::TlsHandshake,
            detail: format!("the peer's TLS gave up: {error}"),
            refused_by_tls: alert && !self.heard,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.lane.0.state.borrow().end.is_none() {
            self.close(&end(Reason::PeerReset, "the connection was given up"));
        }
    }
}

pub(super) fn end(reason: Reason, detail: impl Into<String>) -> LaneEnd {
    LaneEnd { reason, detail: detail.into(), refused_by_tls: false }
}

fn broken(error: &io::Error) -> LaneEnd {
    end(Reason::PeerReset, format!("connection to the peer broke: {error}"))
}
