//! A lane as streams and the pool see it: shared state on one thread.
//!
//! The driver task owns the socket's TLS session; everyone else only appends frames to `outgoing` and
//! wakes the driver, which sends what has gathered in one go. No reference to the state is held
//! across an await.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::bell::Bell;
use super::cell::StreamCell;
use super::codec::{self, Event};
use super::stream::{OpenRequest, Stream, Verdict};
use super::traffic::{Scales, Weight};
use super::wire::{Fault, Wire};
use super::{flow, scratch};
use crate::model::ban::Subject;
use crate::model::{Bans, Reason, ServiceName, SpiffeId};
use crate::net::limits;
use crate::tls;

/// What runs inside the TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Many streams in frames (ALPN `weft/1`).
    Lane,
    /// One stream of raw bytes (Connect mode).
    Raw,
}

/// Why a lane is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneEnd {
    pub reason: Reason,
    pub detail: String,
    /// The peer's TLS refused us before it had read a single frame: no application saw anything.
    pub refused_by_tls: bool,
}

/// A shared handle to a lane.
#[derive(Clone)]
pub struct Lane(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) socket: TcpStream,
    pub(super) peer: tls::Peer,
    pub(super) mode: Mode,
    pub(super) state: RefCell<State>,
    /// Wakes the driver.
    pub(super) bell: Bell,
    /// The driver is at work, and looks at everything before it rests.
    pub(super) driving: Cell<bool>,
    /// Streams that wait for room in `outgoing`.
    pub(super) waiting: RefCell<Vec<Rc<StreamCell>>>,
    /// Bytes of ciphertext wait for the socket.
    pub(super) blocked: Cell<bool>,
    /// Borrowed for the length of one read or write.
    pub(super) wire: RefCell<Wire>,
    pub(super) scales: Cell<Scales>,
}

#[derive(Default)]
pub(super) struct State {
    /// Plaintext (frames, or raw bytes) that was not sealed yet.
    pub(super) outgoing: Vec<u8>,
    pub(super) streams: HashMap<u32, Rc<StreamCell>>,
    /// Highest stream id used so far, by whichever side opens streams.
    pub(super) last_id: u32,
    /// No new streams here: we said or heard GOAWAY, or the lane ends.
    pub(super) retired: bool,
    /// Close now, whatever runs.
    pub(super) abort: Option<LaneEnd>,
    /// Raw mode: send close_notify once `outgoing` is sealed.
    pub(super) finish: bool,
    pub(super) end: Option<LaneEnd>,
    /// Why a stream could not send; the driver ends the lane for it.
    fault: Option<Fault>,
}

impl State {
    /// `outgoing`, with a buffer of the thread when it has none.
    fn outgoing(&mut self) -> &mut Vec<u8> {
        if self.outgoing.capacity() == 0 {
            self.outgoing = scratch::spare();
        }
        &mut self.outgoing
    }
}

impl Lane {
    #[must_use]
    pub fn peer(&self) -> &SpiffeId {
        &self.0.peer.id
    }

    /// The ban that applies to the peer, if any does.
    #[must_use]
    pub fn ban<'a>(&self, bans: &'a Bans) -> Option<&'a Subject> {
        bans.find(&self.0.peer.id, &self.0.peer.serial)
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Whether both handles are of one lane.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Streams under way.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.state.borrow().streams.len()
    }

    /// Whether new streams may be opened here.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.state.borrow().retired
    }

    /// Whether bytes pile up because the peer or the network is slower than our applications.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.0.blocked.get() || self.room() == 0
    }

    /// Bytes that may gather before the lane is congested.
    pub(super) fn room(&self) -> usize {
        let most = match self.0.mode {
            Mode::Lane => limits::LANE_BUFFER,
            Mode::Raw => limits::RAW_BUFFER,
        };
        most.saturating_sub(self.0.state.borrow().outgoing.len())
    }

    /// Bytes that may be read from the peer at once: without credit no more than may be kept if the
    /// application stalls, and none without an application.
    pub(super) fn may_take(&self) -> usize {
        match self.0.mode {
            Mode::Lane => usize::MAX,
            Mode::Raw => {
                self.find(1).map_or(0, |cell| limits::RAW_BUFFER.saturating_sub(cell.backlog()))
            }
        }
    }

    /// Finds out which streams are heavy now, if it is time to.
    pub(super) fn weigh(&self, now: Instant) {
        let mut scales = self.0.scales.get();
        if scales.is_due(now) {
            let state = self.0.state.borrow();
            scales.weigh(now, state.streams.values().map(|cell| (&cell.account, cell.moved())));
            self.0.scales.set(scales);
        }
    }

    /// Whether a stream that is opened here would have a heavy one beside it.
    pub(super) fn carries_bulk(&self) -> bool {
        self.weigh(Instant::now());
        self.0.scales.get().heavy > 0
    }

    /// The largest window for a stream, for what is under way on it is in front of the others.
    pub(super) fn most_window(&self, cell: &StreamCell) -> u32 {
        let itself = usize::from(cell.account.get().weight == Weight::Light);
        let light = self.0.scales.get().light.saturating_sub(itself);
        if light > 0 { flow::SHARED_WINDOW } else { flow::MAX_WINDOW }
    }

    /// Opens a stream to a service of the peer. `None` when the lane takes no new streams.
    #[must_use]
    pub fn open(&self, service: &ServiceName, port: u16) -> Option<Stream> {
        let mut state = self.0.state.borrow_mut();
        if state.retired {
            return None;
        }
        let Some(stream) = state.last_id.checked_add(1) else {
            drop(state);
            self.retire(Reason::Ok); // every id was used: the next lane begins anew
            return None;
        };
        state.last_id = stream;
        let cell = Rc::new(StreamCell::new(stream));
        match self.0.mode {
            Mode::Lane => {
                let service = service.as_str().to_owned();
                codec::put(state.outgoing(), &Event::Open { stream, port, service });
            }
            Mode::Raw => {
                state.retired = true;
                cell.decide(Verdict::Opened);
            }
        }
        state.streams.insert(stream, Rc::clone(&cell));
        drop(state);
        self.wake_driver();
        Some(Stream::new(self.clone(), cell))
    }

    /// Takes no new streams; the lane closes when the last one has ended. Says so to the peer.
    pub fn retire(&self, reason: Reason) {
        let mut state = self.0.state.borrow_mut();
        if state.retired {
            return;
        }
        state.retired = true;
        if self.0.mode == Mode::Lane {
            let last = state.last_id;
            codec::put(state.outgoing(), &Event::GoAway { last, reason });
        }
        drop(state);
        self.wake_driver();
    }

    /// Breaks the lane off, and with it every stream.
    pub fn abort(&self, reason: Reason, detail: &str) {
        let mut state = self.0.state.borrow_mut();
        state.retired = true;
        state.abort.get_or_insert_with(|| LaneEnd {
            reason,
            detail: detail.to_owned(),
            refused_by_tls: false,
        });
        drop(state);
        self.wake_driver();
    }

    /// Seals what has gathered and writes as much as the socket takes.
    ///
    /// # Errors
    /// When the connection broke, now or before.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        if let Some(fault) = self.0.state.borrow_mut().fault.take() {
            return Err(fault);
        }
        let inner = &*self.0;
        let mut wire = inner.wire.borrow_mut();
        loop {
            inner.blocked.set(!wire.flush(&inner.socket)?);
            if inner.blocked.get() {
                return Ok(());
            }
            let (gathered, finish) = {
                let mut state = inner.state.borrow_mut();
                (std::mem::take(&mut state.outgoing), state.finish)
            };
            if !gathered.is_empty() {
                self.send_gathered(&mut wire, gathered)?;
            } else if finish && !wire.finished() {
                wire.finish();
            } else {
                break;
            }
        }
        drop(wire);
        self.tell_room();
        Ok(())
    }

    /// Sends until the socket is full; the rest stays gathered.
    fn send_gathered(&self, wire: &mut Wire, mut gathered: Vec<u8>) -> Result<(), Fault> {
        let mut sent = 0;
        while sent < gathered.len() {
            let chunk = &gathered[sent..gathered.len().min(sent + scratch::BYTES)];
            sent += chunk.len();
            if !wire.send(&self.0.socket, chunk)? {
                break;
            }
        }
        if sent < gathered.len() {
            gathered.drain(..sent);
            self.0.state.borrow_mut().outgoing = gathered;
        } else {
            scratch::give_back(gathered);
        }
        Ok(())
    }

    /// Sends a long frame (or raw bytes) straight from the caller's buffer, behind what has gathered;
    /// gathers it when the socket is full. At most [`scratch::BYTES`].
    pub(super) fn send(&self, frame: &[u8]) {
        let result = self.flush().and_then(|()| {
            if self.0.blocked.get() {
                self.0.state.borrow_mut().outgoing().extend_from_slice(frame);
            } else {
                let all = self.0.wire.borrow_mut().send(&self.0.socket, frame)?;
                self.0.blocked.set(!all);
            }
            Ok(())
        });
        if let Err(fault) = result {
            self.0.state.borrow_mut().fault = Some(fault);
            self.wake_driver();
        } else if self.0.blocked.get() {
            self.wake_driver(); // it waits for the socket
        }
    }

    pub(super) fn wake_driver(&self) {
        if !self.0.driving.get() {
            self.0.bell.ring();
        }
    }

    /// Rings the stream's bell once [`Self::is_congested`] is over.
    pub(super) fn tell_when_roomy(&self, cell: &Rc<StreamCell>) {
        if !cell.waits_for_room.replace(true) {
            self.0.waiting.borrow_mut().push(Rc::clone(cell));
        }
    }

    pub(super) fn tell_room(&self) {
        for cell in self.0.waiting.take() {
            cell.waits_for_room.set(false);
            cell.bell.ring();
        }
    }

    /// Appends a frame and wakes the driver. In raw mode only what raw bytes can say is said.
    pub(super) fn put(&self, event: &Event<'_>) {
        let mut state = self.0.state.borrow_mut();
        match (self.0.mode, event) {
            (Mode::Lane, event) => codec::put(state.outgoing(), event),
            (Mode::Raw, Event::Data { bytes, .. }) => state.outgoing().extend_from_slice(bytes),
            (Mode::Raw, Event::Fin { .. }) => state.finish = true,
            (Mode::Raw, Event::Refused { reason, detail, .. } | Event::Reset { reason, detail, .. }) => {
                let (reason, detail) = (*reason, detail.clone());
                state.abort.get_or_insert(LaneEnd { reason, detail, refused_by_tls: false });
            }
            (Mode::Raw, _) => {}
        }
        drop(state);
        self.wake_driver();
    }

    /// Forgets a stream that has ended.
    pub(super) fn forget(&self, stream: u32) {
        let mut state = self.0.state.borrow_mut();
        state.streams.remove(&stream);
        if state.streams.is_empty() {
            drop(state);
            self.wake_driver(); // the driver may be waiting for the last one to close
        }
    }

    pub(super) fn find(&self, stream: u32) -> Option<Rc<StreamCell>> {
        self.0.state.borrow().streams.get(&stream).cloned()
    }

    /// The peer opened a stream. Refuses it here when a limit is reached.
    ///
    /// # Errors
    /// When the id was used before, which breaks the protocol.
    pub(super) fn accept(&self, id: u32, request: OpenRequest) -> Result<Option<Stream>, ReusedId> {
        let mut state = self.0.state.borrow_mut();
        if id <= state.last_id {
            return Err(ReusedId);
        }
        state.last_id = id;
        if state.retired {
            return Ok(None); // the peer's OPEN crossed our GOAWAY, which tells it to go elsewhere
        }
        if state.streams.len() >= limits::ACCEPTED_STREAMS_PER_LANE {
            drop(state);
            let detail = "too many streams on one connection".to_owned();
            self.put(&Event::Refused { stream: id, reason: Reason::Overloaded, detail });
            return Ok(None);
        }
        let cell = Rc::new(StreamCell::new(id));
        cell.set_request(request);
        state.streams.insert(id, Rc::clone(&cell));
        drop(state);
        Ok(Some(Stream::new(self.clone(), cell)))
    }
}

/// A peer used a stream id twice, or a lower one than before.
pub(super) struct ReusedId;
