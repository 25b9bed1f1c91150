//! The bytes of a lane: records from the socket opened, plaintext sealed into records for it.
//!
//! The driver owns one. It keeps what cannot be handled yet and nothing else: the beginning of a record
//! whose end has not come, and sealed bytes that the socket did not take. Everything between is in the
//! thread's buffers.

use std::io;

use tokio::net::TcpStream;

use super::scratch;
use super::session::{MAX_RECORD_BYTES, Session, Words, sealed_bytes};
use crate::net::socket;

/// See the module.
pub(super) struct Wire {
    tls: Session,
    /// Read, but not a whole record yet.
    input: Vec<u8>,
    /// Sealed, and written up to `sent`.
    unsent: Vec<u8>,
    sent: usize,
    /// The peer's close_notify came.
    peer_finished: bool,
    /// Ours was sealed.
    finished: bool,
}

/// Why nothing more passes.
pub(super) enum Fault {
    Io(io::Error),
    Tls(rustls::Error),
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Nothing,
    Some,
    /// The end of TCP, whatever TLS said before it.
    End,
}

impl Wire {
    /// Over a finished handshake that left `input` unread and may have heard the peer `closed`.
    pub(super) const fn new(tls: Session, input: Vec<u8>, closed: bool) -> Self {
        Self { tls, input, unsent: Vec::new(), sent: 0, peer_finished: closed, finished: false }
    }

    pub(super) const fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    pub(super) const fn finished(&self) -> bool {
        self.finished
    }

    /// Everything that was sealed is with the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Reads once, at most `most` bytes, and appends to `plain` what the peer says in them; some of that
    /// may be there even when it ends in a fault.
    ///
    /// # Errors
    /// When the connection broke, or the peer's records did. The alert about it waits in [`Self::flush`].
    pub(super) fn read(
        &mut self,
        socket: &TcpStream,
        most: usize,
        plain: &mut Vec<u8>,
    ) -> Result<Read, Fault> {
        scratch::with_input(|input| {
            let held = self.input.len();
            input[..held].copy_from_slice(&self.input);
            let room = held..input.len().min(held + most);
            let filled = match socket::read(socket, &mut input[room]) {
                Ok(0) => return Ok(Read::End),
                Ok(count) => held + count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(error) => return Err(Fault::Io(error)),
            };
            self.open(&mut input[..filled], plain).map(|()| Read::Some)
        })
    }

    fn open(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Fault> {
        if self.peer_finished {
            return Ok(()); // nothing counts after close_notify
        }
        let opened = self.tls.open(input, plain, &mut self.unsent).map_err(Fault::Tls)?;
        self.peer_finished = opened.closed;
        let rest = if opened.closed { &[] } else { &input[opened.used..] };
        if rest.len() > 2 * MAX_RECORD_BYTES {
            return Err(Fault::Io(io::ErrorKind::InvalidData.into())); // no honest record is so long
        }
        self.input.clear();
        if rest.len() > self.input.capacity() {
            self.input = Vec::with_capacity(rest.len()); // growing would double it, for as long as a stall lasts
        } else if rest.is_empty() {
            self.input = Vec::new();
        }
        self.input.extend_from_slice(rest);
        Ok(())
    }

    /// Writes what was sealed before; says whether all of it is with the kernel.
    ///
    /// # Errors
    /// When the connection broke.
    pub(super) fn flush(&mut self, socket: &TcpStream) -> Result<bool, Fault> {
        while self.sent < self.unsent.len() {
            match socket::write(socket, &self.unsent[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        self.sent = 0;
        self.unsent = Vec::new();
        Ok(true)
    }

    /// Seals at most [`scratch::BYTES`] and writes them, behind what was sealed before; says whether
    /// all of it is with the kernel.
    ///
    /// # Errors
    /// When the connection broke, or cannot be written to any more.
    pub(super) fn send(&mut self, socket: &TcpStream, plain: &[u8]) -> Result<bool, Fault> {
        scratch::with_sealed(|sealed| {
            let count =
                self.tls.seal(&mut self.input, Words::Data(plain), sealed).map_err(Fault::Tls)?;
            self.write(socket, &sealed[..count])
        })
    }

    fn write(&mut self, socket: &TcpStream, mut sealed: &[u8]) -> Result<bool, Fault> {
        while self.unsent.is_empty() && !sealed.is_empty() {
            match socket::write(socket, sealed) {
                Ok(count) => sealed = &sealed[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        self.unsent.extend_from_slice(sealed);
        Ok(self.unsent.is_empty())
    }

    /// Seals close_notify, once; [`Self::flush`] writes it.
    pub(super) fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            let start = self.unsent.len();
            self.unsent.resize(start + sealed_bytes(0), 0);
            // A session that cannot say goodbye ends without.
            let sealed = self.tls.seal(&mut self.input, Words::Close, &mut self.unsent[start..]);
            let count = sealed.unwrap_or(0);
            self.unsent.truncate(start + count);
        }
    }
}
