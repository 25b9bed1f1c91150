//! Moves the bytes of one stream between its application and its lane, and ends it as TCP would.
//!
//! [`super::Stream::pump`] polls it, in the task of the connection. It owns no buffer: what it reads
//! goes into the lane's, and what the application does not take yet is in the stream's cell.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::bell::let_others;
use super::cell::StreamCell;
use super::codec::{Event, HEADER_BYTES};
use super::scratch;
use super::stream::{End, LONG_BYTES, Stream};
use crate::model::Reason;
use crate::net::{limits, socket};

/// See the module.
pub(super) struct Pump<'a> {
    stream: &'a Stream,
    app: &'a Rc<TcpStream>,
    half_closed: HalfClosed,
    /// Watches for a reset while nothing is read, which would notice it.
    reset: Option<Pin<Box<dyn Future<Output = io::Result<Ready>>>>>,
}

/// Whether something may have moved, so that it is worth to look again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    Nothing,
    Some,
    /// So much that others shall have their turn.
    Much,
}

/// What a pump waits for.
#[derive(Clone, Copy)]
struct Wants {
    read: bool,
    write: bool,
    room: bool,
    half_closed: bool,
}

impl<'a> Pump<'a> {
    pub(super) fn new(stream: &'a Stream, app: &'a Rc<TcpStream>) -> Self {
        Self { stream, app, half_closed: HalfClosed::default(), reset: None }
    }

    fn cell(&self) -> &'a Rc<StreamCell> {
        &self.stream.cell
    }

    /// Goes on until it has to wait; ready when the stream has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.cell().bell.listen(cx);
        loop {
            if let Some(end) = self.settle() {
                return Poll::Ready(end);
            }
            let wants = self.wants();
            if self.half_closed.is_over(self.cell(), wants.half_closed) {
                let detail = "nothing moved after one side had finished";
                return Poll::Ready(End::new(Reason::IdleTimeout, detail));
            }
            match self.move_some(cx, wants) {
                Ok(Moved::Much) => {
                    let_others(cx);
                    return Poll::Pending;
                }
                Ok(Moved::Some) => {}
                Ok(Moved::Nothing) if self.half_closed.poll(cx).is_ready() => {}
                Ok(Moved::Nothing) => return Poll::Pending,
                Err(error) => return Poll::Ready(app_reset(&error)),
            }
        }
    }

    /// Does what needs no waiting: passes on what is there, and the ends behind it.
    fn settle(&self) -> Option<End> {
        let most = self.stream.lane.most_window(self.cell());
        let written = match self.cell().write_pending(self.app, most) {
            Ok(written) => written,
            Err(error) => return Some(app_reset(&error)),
        };
        if written.bytes > 0 && self.stream.is_raw() {
            self.stream.lane.wake_driver(); // it reads on once the backlog is gone
        } else if written.credit > 0 {
            self.stream.lane.put(&Event::Credit { stream: self.cell().id, bytes: written.credit });
        }
        self.pass_fin().or_else(|| self.end_reached())
    }

    /// Passes the peer's FIN on once everything before it was written.
    fn pass_fin(&self) -> Option<End> {
        let mut state = self.cell().state.borrow_mut();
        if state.fin_received && !state.fin_passed && state.pending.is_empty() {
            state.fin_passed = true;
            // The application may have gone after its own FIN; then nobody misses ours.
            if let Err(error) = socket::shut_write(self.app)
                && !state.fin_sent
            {
                return Some(app_reset(&error));
            }
        }
        None
    }

    fn end_reached(&self) -> Option<End> {
        let state = self.cell().state.borrow();
        if state.fin_sent && state.fin_passed {
            return Some(End::new(Reason::Ok, ""));
        }
        state.reset.clone()
    }

    fn wants(&self) -> Wants {
        let state = self.cell().state.borrow();
        let may_send = !state.fin_sent && (self.stream.is_raw() || state.credit.available() > 0);
        let congested = self.stream.lane.is_congested();
        Wants {
            read: may_send && !congested,
            room: may_send && congested,
            write: !state.pending.is_empty(),
            half_closed: state.fin_sent || state.fin_received,
        }
    }

    fn move_some(&mut self, cx: &mut Context<'_>, wants: Wants) -> io::Result<Moved> {
        let mut moved = Moved::Nothing;
        if wants.write
            && let Poll::Ready(ready) = self.app.poll_write_ready(cx)
        {
            ready?;
            moved = Moved::Some; // the next look writes
        }
        if wants.read {
            self.reset = None;
            if let Poll::Ready(ready) = self.app.poll_read_ready(cx) {
                ready?;
                moved = if self.read_app()? >= LONG_BYTES { Moved::Much } else { Moved::Some };
            }
        } else {
            self.watch_for_reset(cx)?;
        }
        if wants.room {
            self.stream.lane.tell_when_roomy(self.cell());
        }
        Ok(moved)
    }

    fn watch_for_reset(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let watch = self.reset.get_or_insert_with(|| {
            let app = Rc::clone(self.app);
            Box::pin(async move { app.ready(Interest::ERROR).await })
        });
        match watch.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(_) => Err(socket::error_of(self.app)),
        }
    }

    /// Reads once from the application and sends it on.
    fn read_app(&self) -> io::Result<usize> {
        let credit = match self.stream.is_raw() {
            true => self.stream.lane.room(), // which is not zero, or nothing would be read
            false => self.cell().state.borrow().credit.available(),
        };
        let read = scratch::with_application_buffer(|buffer| {
            // Room for the header of a frame, so that both together fill records.
            let end = buffer.len().min(credit.saturating_add(HEADER_BYTES));
            let read = socket::read(self.app, &mut buffer[HEADER_BYTES..end])?;
            self.stream.send_framed(&mut buffer[..HEADER_BYTES + read]);
            Ok::<_, io::Error>(read)
        });
        match read {
            Ok(0) => {
                self.cell().state.borrow_mut().fin_sent = true;
                self.stream.lane.put(&Event::Fin { stream: self.cell().id });
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }
}

fn app_reset(error: &io::Error) -> End {
    End::new(Reason::AppReset, format!("the local application broke off: {error}"))
}

/// The deadline of a half-closed stream: armed while one direction has ended, put off by every byte.
#[derive(Default)]
struct HalfClosed {
    deadline: Option<Pin<Box<Sleep>>>,
    progress: u64,
}

impl HalfClosed {
    fn is_over(&mut self, cell: &StreamCell, half_closed: bool) -> bool {
        if !half_closed {
            return false;
        }
        let progress = cell.progress();
        match &mut self.deadline {
            Some(deadline) if self.progress == progress => return deadline.is_elapsed(),
            Some(deadline) => deadline.as_mut().reset(Instant::now() + limits::HALF_CLOSED_IDLE),
            none => *none = Some(Box::pin(tokio::time::sleep(limits::HALF_CLOSED_IDLE))),
        }
        self.progress = progress;
        false
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
