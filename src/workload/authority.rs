//! A filter in front of HTTP/2 that lets clients in whose `:authority` is not one.
//!
//! On a UNIX socket, gRPC in Python, C++ and Ruby sends the percent-encoded path of the socket as
//! `:authority`, and in Java the bare path. Ours refuses such a stream before anybody sees it. Nothing
//! here depends on the header, so the filter replaces the bytes that are not allowed in it, one for one:
//! every length, and with it both ends' header tables, stay as they are.
//!
//! [`Filter`] is the stream that HTTP/2 reads from. [`Rewriter`] follows the frames in it and [`Fields`]
//! the header fields in those, byte by byte, so that it does not matter how they are cut up. What they do
//! not understand passes as it is: HTTP/2 has the last word on everything.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// What a client of HTTP/2 says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of a priority in a HEADERS frame.
const PRIORITY_BYTES: usize = 5;

const NAME: &[u8] = b":authority";
/// `:authority` in the static table of HPACK.
const NAME_INDEX: u64 = 1;
/// Longest integer that is followed; beyond it HTTP/2 will refuse the header list anyway.
const MAX_INTEGER: u64 = 1 << 24;
const ALLOWED: &[u8] = b".-_";
const INSTEAD: u8 = b'-';

/// A connection whose first bytes are those of HTTP/2.
pub(super) struct Filter {
    stream: UnixStream,
    /// Bytes of the preface that HTTP/2 has not read again.
    preface: &'static [u8],
    rewriter: Rewriter,
}

impl Filter {
    /// Reads the preface.
    ///
    /// # Errors
    /// `InvalidData` when it is something else; as `read(2)`.
    pub(super) async fn accept(mut stream: UnixStream) -> io::Result<Self> {
        let mut first = [0; PREFACE.len()];
        stream.read_exact(&mut first).await?;
        if &first != PREFACE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2"));
        }
        Ok(Self { stream, preface: PREFACE, rewriter: Rewriter::default() })
    }
}

impl AsyncRead for Filter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.preface.is_empty() {
            let (now, later) = this.preface.split_at(this.preface.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.preface = later;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        this.rewriter.pass(buffer.filled_mut().get_mut(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Filter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Follows the frames of one direction.
#[derive(Debug, Default)]
struct Rewriter {
    header: [u8; FRAME_HEADER_BYTES],
    /// Bytes of `header` that are there.
    got: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
    /// Of these, bytes before the header fields: length of the padding, and priority.
    lead: usize,
    /// The next byte is the length of the padding.
    at_padding_length: bool,
    /// And bytes after them.
    padding: usize,
    fields: Fields,
}

impl Rewriter {
    /// Rewrites what comes next.
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.got < FRAME_HEADER_BYTES {
                let (first, rest) = bytes.split_at_mut(1);
                self.frame_header(first[0]);
                bytes = rest;
                continue;
            }
            let (now, rest) = bytes.split_at_mut(self.left.min(bytes.len()));
            if matches!(self.header[3], HEADERS | CONTINUATION) {
                now.iter_mut().for_each(|byte| self.payload(byte));
            } else {
                self.left -= now.len();
            }
            bytes = rest;
            if self.left == 0 {
                self.got = 0;
            }
        }
    }

    fn frame_header(&mut self, byte: u8) {
        self.header[self.got] = byte;
        self.got += 1;
        if self.got < FRAME_HEADER_BYTES {
            return;
        }
        let [a, b, c, kind, flags, ..] = self.header;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        (self.lead, self.padding, self.at_padding_length) = (0, 0, false);
        if kind == HEADERS {
            self.at_padding_length = flags & PADDED != 0;
            let priority = if flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
            self.lead = usize::from(self.at_padding_length) + priority;
            // A new block of fields, however the one before ended.
            self.fields.state = State::Field;
        }
        if self.left == 0 {
            self.got = 0;
        }
    }

    /// One byte of a frame that carries header fields.
    fn payload(&mut self, byte: &mut u8) {
        if self.lead > 0 {
            self.lead -= 1;
            if std::mem::take(&mut self.at_padding_length) {
                self.padding = usize::from(*byte);
            }
        } else if self.left > self.padding {
            self.fields.byte(byte);
        }
        self.left -= 1;
    }
}

/// Follows header fields in HPACK's form (RFC 7541, section 6).
#[derive(Debug, Default)]
struct Fields {
    state: State,
    /// The field at hand is `:authority`, as far as is known.
    is_authority: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A field begins.
    #[default]
    Field,
    /// More of an integer: what it is so far, where its next seven bits go, and what it says.
    Integer { value: u64, shift: u32, what: Integer },
    /// A string begins with its length.
    Length(Part),
    /// Inside a string.
    Text { part: Part, left: u64, at: usize, is_plain: bool },
    /// Something that HTTP/2 will refuse.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integer {
    /// Index of a whole field, or a size of the table: nothing follows.
    Whole,
    /// Index of a name, whose value follows.
    Name,
    /// Length of a string.
    Length { part: Part, is_plain: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Value,
}

impl Fields {
    fn byte(&mut self, byte: &mut u8) {
        self.state = match self.state {
            State::Field => {
                self.is_authority = false;
                let (prefix_bits, what) = match *byte {
                    0x80.. => (7, Integer::Whole),
                    0x40..0x80 => (6, Integer::Name),
                    0x20..0x40 => (5, Integer::Whole),
                    ..0x20 => (4, Integer::Name),
                };
                self.begin(*byte, prefix_bits, what)
            }
            State::Length(part) => {
                let is_plain = *byte & 0x80 == 0;
                self.begin(*byte, 7, Integer::Length { part, is_plain })
            }
            State::Integer { value, shift, what } => {
                let value = value + (u64::from(*byte & 0x7f) << shift);
                if value > MAX_INTEGER || shift > 21 {
                    State::Lost
                } else if *byte & 0x80 != 0 {
                    State::Integer { value, shift: shift + 7, what }
                } else {
                    self.known(value, what)
                }
            }
            State::Text { part, left, at, is_plain } => {
                match part {
                    Part::Name => {
                        self.is_authority &= is_plain && NAME.get(at).is_some_and(|want| want == byte);
                    }
                    Part::Value if self.is_authority && is_plain => {
                        if !byte.is_ascii_alphanumeric() && !ALLOWED.contains(byte) {
                            *byte = INSTEAD;
                        }
                    }
                    Part::Value => {}
                }
                match left {
                    1 => after(part),
                    _ => State::Text { part, left: left - 1, at: at + 1, is_plain },
                }
            }
            State::Lost => State::Lost,
        };
    }

    /// The first byte of an integer.
    fn begin(&mut self, byte: u8, prefix_bits: u32, what: Integer) -> State {
        let most = (1_u64 << prefix_bits) - 1;
        match u64::from(byte) & most {
            value if value == most => State::Integer { value, shift: 0, what },
            value => self.known(value, what),
        }
    }

    /// The integer is complete.
    fn known(&mut self, value: u64, what: Integer) -> State {
        match what {
            Integer::Whole => State::Field,
            Integer::Name if value == 0 => State::Length(Part::Name),
            Integer::Name => {
                self.is_authority = value == NAME_INDEX;
                State::Length(Part::Value)
            }
            Integer::Length { part, is_plain } => {
                if part == Part::Name {
                    self.is_authority = value == NAME.len() as u64;
                }
                match value {
                    0 => after(part),
                    left => State::Text { part, left, at: 0, is_plain },
                }
            }
        }
    }
}

/// What follows a string.
fn after(part: Part) -> State {
    match part {
        Part::Name => State::Length(Part::Value),
        Part::Value => State::Field,
    }
}

#[cfg(test)]
mod tests;
