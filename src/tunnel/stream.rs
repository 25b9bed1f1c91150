//! One application connection on a lane, as `proxy` sees it: asked for, answered, pumped, ended.
//!
//! Everything of a stream runs on the lane's thread.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tokio::net::TcpStream;

use super::cell::StreamCell;
use super::codec::{self, Event, HEADER_BYTES};
use super::flow::INITIAL_WINDOW;
use super::lane::{Lane, Mode};
use super::pump::Pump;
use crate::model::Reason;
use crate::net::socket;

/// A read of so many bytes is sent at once: gathering it with others would cost a copy and save nothing.
pub(super) const LONG_BYTES: usize = 16 * 1024;

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

/// One end of a stream. Dropping it before its end resets the stream.
pub struct Stream {
    pub(super) lane: Lane,
    pub(super) cell: Rc<StreamCell>,
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

    /// Application bytes so far: sent to the peer, received from it.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let state = self.cell.state.borrow();
        (state.bytes_sent, state.bytes_received)
    }

    /// Waits for the peer's verdict. Cancel-safe.
    pub async fn verdict(&self) -> Verdict {
        poll_fn(|cx| {
            self.cell.bell.listen(cx);
            self.cell.state.borrow().verdict.clone().map_or(Poll::Pending, Poll::Ready)
        })
        .await
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
        let mut pump = Pump::new(self, app);
        let end = poll_fn(|cx| pump.poll(cx)).await;
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

    pub(super) fn is_raw(&self) -> bool {
        self.lane.mode() == Mode::Raw
    }

    /// Sends bytes for which there is credit.
    fn send(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.spend(bytes.len());
            self.lane.put(&Event::Data { stream: self.cell.id, bytes });
        }
    }

    /// As [`Self::send`], of bytes behind room for a header. Many go at once, few are gathered with those
    /// of other streams.
    pub(super) fn send_framed(&self, frame: &mut [u8]) {
        let bytes = frame.len() - HEADER_BYTES;
        if bytes < LONG_BYTES {
            return self.send(&frame[HEADER_BYTES..]);
        }
        self.spend(bytes);
        if self.is_raw() {
            self.lane.send(&frame[HEADER_BYTES..]);
        } else {
            frame[..HEADER_BYTES].copy_from_slice(&codec::data_header(self.cell.id, bytes));
            self.lane.send(frame);
        }
    }

    fn spend(&self, bytes: usize) {
        let mut state = self.cell.state.borrow_mut();
        if !self.is_raw() {
            state.credit.spend(bytes);
        }
        state.bytes_sent += bytes as u64;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cell.app.borrow_mut().take();
        self.say_reset(Reason::PeerReset, "given up");
    }
}
