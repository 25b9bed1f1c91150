//! What the driver of a lane does with what the peer says.
//!
//! Part of [`Driver`], which calls it with the plaintext of each read. Whatever breaks the protocol ends
//! the lane.

use std::rc::Rc;

use super::cell::StreamCell;
use super::codec::{CodecError, Event};
use super::driver::{Driver, end};
use super::lane::{LaneEnd, Mode};
use super::stream::{End, OpenRequest, Verdict};
use crate::model::Reason;

impl Driver {
    /// Returns how many things the peer said.
    pub(super) fn handle(&mut self, mut bytes: &[u8]) -> Result<usize, LaneEnd> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.heard = true;
        if self.lane.mode() == Mode::Raw {
            return self.deliver(1, bytes).map(|()| 1);
        }
        let mut events = 0;
        while let Some(event) = self.decoder.next(&mut bytes).map_err(|error| violated(&error))? {
            self.dispatch(event)?;
            events += 1;
        }
        Ok(events)
    }

    fn dispatch(&mut self, event: Event<'_>) -> Result<(), LaneEnd> {
        match event {
            Event::Open { stream, port, service } => self.accept(stream, OpenRequest { service, port }),
            Event::Data { stream, bytes } => self.deliver(stream, bytes),
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

    fn deliver(&self, stream: u32, bytes: &[u8]) -> Result<(), LaneEnd> {
        let Some(cell) = self.find(stream)? else { return Ok(()) };
        let framed = self.lane.mode() == Mode::Lane;
        let most = framed.then(|| self.lane.most_window(&cell));
        let credit = cell.deliver(bytes, most).map_err(|_| overflow())?;
        if credit > 0 {
            self.lane.put(&Event::Credit { stream, bytes: credit });
        }
        Ok(())
    }

    pub(super) fn accept(&self, id: u32, request: OpenRequest) -> Result<(), LaneEnd> {
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
    pub(super) fn peer_closed(&self) -> Result<(), LaneEnd> {
        match self.lane.mode() {
            Mode::Raw => self.with(1, |cell| cell.finish()),
            Mode::Lane if self.lane.streams() == 0 => Err(end(Reason::Ok, "")),
            Mode::Lane => Err(end(Reason::PeerReset, "the peer closed the connection")),
        }
    }
}

fn violated(error: &CodecError) -> LaneEnd {
    end(Reason::PeerReset, format!("the peer broke the protocol: {error}"))
}

fn overflow() -> LaneEnd {
    end(Reason::PeerReset, "the peer broke the protocol: more bytes than it had credit for")
}
