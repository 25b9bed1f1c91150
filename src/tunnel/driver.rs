//! The task behind a lane: reads, opens, decodes and delivers; seals and writes what has gathered.

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use rustls::Connection;
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{CodecError, Decoder, Event};
use super::handshake::{Established, NonBlocking};
use super::lane::{Inner, Lane, LaneEnd, Mode, State};
use super::stream::{End, OpenRequest, Stream, StreamCell, Verdict};
use super::{flow, scratch};
use crate::model::Reason;
use crate::net::{limits, socket};

/// Reads in a row before the other tasks of the thread have their turn: readiness alone never makes
/// this task wait, so a peer that always has something to say would keep the thread to itself.
const READS_IN_A_ROW: u32 = 8;
/// How long a lane that we have closed waits for the peer to close, too.
const LINGER: Duration = Duration::from_secs(1);

/// Called for each stream that the peer opens.
type OnOpen = Box<dyn Fn(Stream)>;

/// Runs a lane; see the module.
pub struct Driver {
    lane: Lane,
    tls: Connection,
    decoder: Decoder,
    on_open: Option<OnOpen>,
    /// Dropped when the lane has ended.
    _held: Option<Box<dyn std::any::Any>>,
    expires: Instant,
    idle_since: Instant,
    /// What came together with the end of the handshake was looked at.
    begun: bool,
    reads_in_a_row: u32,
    /// The peer has sent at least one frame.
    heard: bool,
    /// The peer's close_notify came.
    peer_finished: bool,
    /// Ours was sent.
    finished: bool,
}

impl Driver {
    /// A lane over a finished handshake, and the driver that must be run on this thread.
    ///
    /// `on_open` is there on the side that accepts. `expires` is when the first of both leaves does.
    #[must_use]
    pub fn new(established: Established, expires: SystemTime, on_open: Option<OnOpen>) -> (Lane, Self) {
        let Established { socket, mut tls, peer, mode, .. } = established;
        tls.set_buffer_limit(None); // `outgoing` is bounded instead
        let lane = Lane(Rc::new(Inner {
            socket,
            peer,
            mode,
            state: std::cell::RefCell::new(State::default()),
            wake: Notify::new(),
            room: Notify::new(),
            blocked: std::cell::Cell::new(false),
        }));
        let left = expires.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        let now = Instant::now();
        let driver = Self {
            lane: lane.clone(),
            tls,
            decoder: Decoder::default(),
            on_open,
            _held: None,
            expires: now + left,
            idle_since: now,
            begun: false,
            reads_in_a_row: 0,
            heard: false,
            peer_finished: false,
            finished: false,
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
        let end = match self.drive().await {
            Ok(end) | Err(end) => end,
        };
        self.close(&end);
        if end.reason == Reason::Ok {
            // It is closed for the streams already; whether the peer answers changes nothing.
            let _late = timeout(LINGER, self.linger()).await;
        }
        end
    }

    async fn drive(&mut self) -> Result<LaneEnd, LaneEnd> {
        if self.lane.mode() == Mode::Raw && self.on_open.is_some() {
            self.accept(1, OpenRequest::default())?;
            self.lane.0.state.borrow_mut().retired = true; // one stream, then the end
        }
        loop {
            if !self.begun && self.may_read() {
                self.begun = true;
                self.process()?;
            }
            self.flush_or_hear()?;
            if let Some(end) = self.end_reached() {
                return Ok(end);
            }
            let inner = Rc::clone(&self.lane.0);
            let may_read = self.may_read();
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = inner.wake.notified() => {}
                ready = inner.socket.readable(), if may_read => {
                    ready.map_err(|error| self.broken(&error))?;
                    self.read_in_turn().await?;
                }
                _ready = inner.socket.ready(Interest::ERROR), if !may_read => {
                    let error = inner.socket.take_error().ok().flatten();
                    return Err(self.broken(&error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())));
                }
                ready = inner.socket.writable(), if inner.blocked.get() => {
                    ready.map_err(|error| self.broken(&error))?;
                }
                () = sleep_until(deadline) => self.tick()?,
            }
        }
    }

    /// In raw mode the socket is read only while there is an application that keeps up. Frames have
    /// credit, but a peer that lets our answers pile up is not listened to meanwhile.
    fn may_read(&self) -> bool {
        match self.lane.mode() {
            Mode::Lane => self.lane.0.state.borrow().outgoing.len() < limits::LANE_ANSWERS,
            Mode::Raw => {
                let keeps_up = |cell: &StreamCell| cell.backlog() < flow::INITIAL_WINDOW as usize;
                !self.peer_finished && self.lane.find(1).is_some_and(|cell| keeps_up(&cell))
            }
        }
    }

    fn deadline(&self) -> Instant {
        let idle = self.idle_since + limits::LANE_IDLE;
        let may_idle_out = self.dialled() && self.lane.is_open() && self.lane.streams() == 0;
        if may_idle_out { idle.min(self.expires) } else { self.expires }
    }

    fn dialled(&self) -> bool {
        self.on_open.is_none()
    }

    fn tick(&mut self) -> Result<(), LaneEnd> {
        if Instant::now() >= self.expires {
            return Err(end(Reason::CertExpired, "a certificate of this connection has expired"));
        }
        if self.lane.streams() == 0 && self.idle_since.elapsed() >= limits::LANE_IDLE {
            self.lane.retire(Reason::IdleTimeout);
        }
        Ok(())
    }

    fn end_reached(&mut self) -> Option<LaneEnd> {
        let mut state = self.lane.0.state.borrow_mut();
        if let Some(end) = state.abort.take() {
            return Some(end);
        }
        if !state.streams.is_empty() {
            self.idle_since = Instant::now();
            return None;
        }
        let sent = state.outgoing.is_empty() && !self.tls.wants_write();
        (state.retired && sent).then(|| end(Reason::Ok, ""))
    }

    async fn read_in_turn(&mut self) -> Result<(), LaneEnd> {
        self.read()?;
        self.reads_in_a_row += 1;
        if self.reads_in_a_row >= READS_IN_A_ROW {
            self.reads_in_a_row = 0;
            yield_now().await;
        }
        Ok(())
    }

    /// Reads what is there, up to one buffer, and handles it; says whether there was something.
    fn read(&mut self) -> Result<bool, LaneEnd> {
        scratch::with_lane_buffers(|cipher, plain| {
            let count = match self.lane.0.socket.try_read(cipher) {
                Ok(0) => return Err(self.truncated()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(self.broken(&error)),
            };
            let mut input = &cipher[..count];
            // Nothing counts after close_notify, and rustls takes no more of it.
            while !input.is_empty() && !self.peer_finished {
                self.tls.read_tls(&mut input).map_err(|error| self.broken(&error))?;
                self.open_records(plain)?;
            }
            Ok(true)
        })
    }

    fn process(&mut self) -> Result<(), LaneEnd> {
        scratch::with_lane_buffers(|_, plain| self.open_records(plain))
    }

    fn open_records(&mut self, plain: &mut [u8]) -> Result<(), LaneEnd> {
        if let Err(error) = self.tls.process_new_packets() {
            return Err(self.refused(&error));
        }
        loop {
            match self.tls.reader().read(plain) {
                Ok(0) => {
                    self.peer_finished = true;
                    return self.peer_closed();
                }
                Ok(count) => self.handle(&plain[..count])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn handle(&mut self, mut bytes: &[u8]) -> Result<(), LaneEnd> {
        self.heard = true;
        if self.lane.mode() == Mode::Raw {
            return self.deliver(1, bytes, false);
        }
        while let Some(event) = self.decoder.next(&mut bytes).map_err(|error| violated(&error))? {
            self.dispatch(event)?;
        }
        Ok(())
    }

    fn dispatch(&mut self, event: Event<'_>) -> Result<(), LaneEnd> {
        match event {
            Event::Open { stream, port, service } => self.accept(stream, OpenRequest { service, port }),
            Event::Data { stream, bytes } => self.deliver(stream, bytes, true),
            Event::Opened { .. } | Event::Refused { .. } if !self.dialled() => {
                Err(end(Reason::PeerReset, "the peer broke the protocol: it answered its own stream"))
            }
            Event::Opened { stream } => self.with(stream, |cell| cell.decide(Verdict::Opened)),
            Event::Refused { stream, reason, detail } => {
                self.with(stream, |cell| cell.decide(Verdict::Refused { reason, detail }))
            }
            Event::Fin { stream } => self.with(stream, |cell| cell.finish()),
            Event::Reset { stream, reason, detail } => self.with(stream, |cell| {
                let (lost, untouched) = (detail.clone(), false);
                cell.decide(Verdict::Lost { reason, detail: lost, untouched });
                cell.reset(End::new(reason, detail));
            }),
            Event::Credit { stream, bytes } => match self.find(stream)? {
                Some(cell) => cell.grant(bytes).map_err(|_| overflow()),
                None => Ok(()),
            },
            Event::GoAway { last, reason } => {
                self.gone_away(last, reason);
                Ok(())
            }
        }
    }

    fn with(&self, stream: u32, action: impl FnOnce(&StreamCell)) -> Result<(), LaneEnd> {
        if let Some(cell) = self.find(stream)? {
            action(&cell);
        }
        Ok(())
    }

    /// A stream that is not there any more was reset by us while the peer's frame was on its way; one
    /// that never was breaks the protocol.
    fn find(&self, stream: u32) -> Result<Option<Rc<StreamCell>>, LaneEnd> {
        let found = self.lane.find(stream);
        if found.is_none() && stream > self.lane.0.state.borrow().last_id {
            return Err(end(
                Reason::PeerReset,
                "the peer broke the protocol: nobody opened that stream",
            ));
        }
        Ok(found)
    }

    fn deliver(&self, stream: u32, bytes: &[u8], limited: bool) -> Result<(), LaneEnd> {
        let Some(cell) = self.find(stream)? else { return Ok(()) };
        let credit = cell.deliver(bytes, limited).map_err(|_| overflow())?;
        if credit > 0 {
            self.lane.put(&Event::Credit { stream, bytes: credit });
        }
        Ok(())
    }

    fn accept(&self, id: u32, request: OpenRequest) -> Result<(), LaneEnd> {
        let Some(on_open) = &self.on_open else {
            return Err(end(Reason::PeerReset, "the peer opened a stream on a lane that we dialled"));
        };
        match self.lane.accept(id, request) {
            Ok(Some(stream)) => on_open(stream),
            Ok(None) => {}
            Err(_reused) => return Err(end(Reason::PeerReset, "the peer used a stream id twice")),
        }
        Ok(())
    }

    fn gone_away(&self, last: u32, reason: Reason) {
        let mut state = self.lane.0.state.borrow_mut();
        state.retired = true;
        for (id, cell) in &state.streams {
            if self.dialled() && *id > last {
                let detail = "the peer takes no new streams here".to_owned();
                cell.decide(Verdict::Lost { reason, detail, untouched: true });
            }
        }
    }

    /// The peer's close_notify: the clean end of a raw stream; for a lane, the end of everything.
    fn peer_closed(&self) -> Result<(), LaneEnd> {
        match self.lane.mode() {
            Mode::Raw => self.with(1, |cell| cell.finish()),
            Mode::Lane if self.lane.streams() == 0 => Err(end(Reason::Ok, "")),
            Mode::Lane => Err(end(Reason::PeerReset, "the peer closed the connection")),
        }
    }

    /// Flushes; when that fails, hears first what the peer said before it closed, which explains more
    /// and may be the promise that it did not look at our streams.
    fn flush_or_hear(&mut self) -> Result<(), LaneEnd> {
        let Err(broken) = self.flush() else { return Ok(()) };
        for _ in 0..READS_IN_A_ROW {
            if !self.may_read() || !self.read()? {
                break;
            }
        }
        Err(broken)
    }

    /// Seals what has gathered and writes as much as the socket takes.
    fn flush(&mut self) -> Result<(), LaneEnd> {
        let inner = Rc::clone(&self.lane.0);
        loop {
            if !self.tls.wants_write() && !self.seal() {
                inner.blocked.set(false);
                return Ok(());
            }
            match self.tls.write_tls(&mut NonBlocking(&inner.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    inner.blocked.set(true);
                    return Ok(());
                }
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// Moves `outgoing` into TLS records; says whether there is something to write now.
    fn seal(&mut self) -> bool {
        let mut state = self.lane.0.state.borrow_mut();
        let sealing = std::mem::take(&mut state.outgoing);
        let finish = state.finish && !self.finished;
        drop(state);
        if !sealing.is_empty() {
            // Writing to an unlimited buffer in memory cannot fail.
            let _buffered = self.tls.writer().write_all(&sealing);
            scratch::give_back(sealing);
        }
        if finish {
            self.finished = true;
            self.tls.send_close_notify();
        }
        self.lane.0.blocked.set(false);
        self.lane.0.room.notify_waiters();
        self.tls.wants_write()
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
        self.lane.0.room.notify_waiters();
        if end.reason == Reason::Ok {
            if !self.finished {
                self.tls.send_close_notify();
            }
            let _last = self.tls.write_tls(&mut NonBlocking(&self.lane.0.socket));
            // Streams may hold the socket for a while, but the peer shall know now.
            let _gone = socket::shut_write(&self.lane.0.socket);
        } else {
            // An alert may wait to be sent; without close_notify the peer sees that this is no clean end.
            let _alert = self.tls.write_tls(&mut NonBlocking(&self.lane.0.socket));
            if self.lane.mode() == Mode::Raw {
                socket::reset_on_close(&self.lane.0.socket);
            } else {
                let _gone = socket::shut_write(&self.lane.0.socket);
            }
        }
    }

    /// Reads on until the peer has closed, too: a close over unread bytes is a reset, which may reach
    /// the peer before what we said last.
    async fn linger(&self) {
        let socket = &self.lane.0.socket;
        while socket.readable().await.is_ok() {
            let read = scratch::with_lane_buffers(|cipher, _| socket.try_read(cipher));
            match read {
                Ok(0) => return,
                Ok(_) => yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => return,
            }
        }
    }

    fn truncated(&self) -> LaneEnd {
        if self.peer_finished || (self.lane.streams() == 0 && self.lane.mode() == Mode::Lane) {
            return end(Reason::Ok, "");
        }
        end(Reason::PeerReset, "the peer vanished without closing the connection")
    }

    fn broken(&self, error: &io::Error) -> LaneEnd {
        end(Reason::PeerReset, format!("connection to the peer broke: {error}"))
    }

    fn refused(&self, error: &rustls::Error) -> LaneEnd {
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

fn end(reason: Reason, detail: impl Into<String>) -> LaneEnd {
    LaneEnd { reason, detail: detail.into(), refused_by_tls: false }
}

fn violated(error: &CodecError) -> LaneEnd {
    end(Reason::PeerReset, format!("the peer broke the protocol: {error}"))
}

fn overflow() -> LaneEnd {
    end(Reason::PeerReset, "the peer broke the protocol: more bytes than it had credit for")
}
