//! The frames of `weft/1`, encoded and decoded without I/O.
//!
//! A frame is an eight-byte header (type, 24-bit length, 32-bit stream id, big endian) and a payload.
//! The decoder takes bytes in pieces of any size and hands DATA on as it comes, never waiting for a
//! whole frame; all other frames are short and are kept until they are complete.

use crate::model::Reason;

/// Bytes before each payload.
pub const HEADER_BYTES: usize = 8;
/// Longest DATA payload: what one read of an application gives.
pub const MAX_DATA_BYTES: usize = 256 * 1024;
/// Longest payload of any other frame.
pub const MAX_CONTROL_BYTES: usize = 1024;
/// Longest explanation that REFUSED and RESET carry; a longer one is cut.
pub const MAX_DETAIL_BYTES: usize = 512;

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const CREDIT: u8 = 5;
const FIN: u8 = 6;
const RESET: u8 = 7;
const GOAWAY: u8 = 8;

/// What a peer may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    #[error("a frame of type {kind} has {bytes} bytes, more than allowed")]
    TooLong { kind: u8, bytes: usize },
    #[error("a frame of type {0} has a malformed payload")]
    Malformed(u8),
    #[error("a frame of type {0} is on the wrong stream")]
    Stream(u8),
}

/// One thing a peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The dialling side opens a stream to a service; `port` 0 means its only one.
    Open { stream: u32, port: u16, service: String },
    /// The far application is connected.
    Opened { stream: u32 },
    /// The stream will not be; no application saw a byte of it.
    Refused { stream: u32, reason: Reason, detail: String },
    /// A piece of a stream's bytes; one frame may come as several pieces.
    Data { stream: u32, bytes: &'a [u8] },
    /// The receiver of this stream takes so many bytes more.
    Credit { stream: u32, bytes: u32 },
    /// This direction has ended cleanly.
    Fin { stream: u32 },
    /// Both directions are broken off.
    Reset { stream: u32, reason: Reason, detail: String },
    /// Streams above `last` were not looked at; open nothing more here.
    GoAway { last: u32, reason: Reason },
}

/// The header of a DATA frame whose payload has `bytes`, at most `MAX_DATA_BYTES`.
#[must_use]
pub fn data_header(stream: u32, bytes: usize) -> [u8; HEADER_BYTES] {
    header(DATA, bytes, stream)
}

/// Appends a frame. DATA is cut into frames of at most `MAX_DATA_BYTES`.
pub fn put(out: &mut Vec<u8>, event: &Event<'_>) {
    match event {
        Event::Open { stream, port, service } => {
            put_header(out, OPEN, 2 + service.len(), *stream);
            out.extend_from_slice(&port.to_be_bytes());
            out.extend_from_slice(service.as_bytes());
        }
        Event::Opened { stream } => put_header(out, OPENED, 0, *stream),
        Event::Refused { stream, reason, detail } => put_reason(out, REFUSED, *stream, *reason, detail),
        Event::Data { stream, bytes } => {
            for piece in bytes.chunks(MAX_DATA_BYTES) {
                put_header(out, DATA, piece.len(), *stream);
                out.extend_from_slice(piece);
            }
        }
        Event::Credit { stream, bytes } => {
            put_header(out, CREDIT, 4, *stream);
            out.extend_from_slice(&bytes.to_be_bytes());
        }
        Event::Fin { stream } => put_header(out, FIN, 0, *stream),
        Event::Reset { stream, reason, detail } => put_reason(out, RESET, *stream, *reason, detail),
        Event::GoAway { last, reason } => {
            put_header(out, GOAWAY, 5, 0);
            out.extend_from_slice(&last.to_be_bytes());
            out.push(reason.code());
        }
    }
}

fn put_header(out: &mut Vec<u8>, kind: u8, bytes: usize, stream: u32) {
    out.extend_from_slice(&header(kind, bytes, stream));
}

#[allow(clippy::cast_possible_truncation, reason = "callers cut frames to `MAX_DATA_BYTES`")]
fn header(kind: u8, bytes: usize, stream: u32) -> [u8; HEADER_BYTES] {
    debug_assert!(bytes <= MAX_DATA_BYTES);
    let [_, l0, l1, l2] = (bytes as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [kind, l0, l1, l2, s0, s1, s2, s3]
}

fn put_reason(out: &mut Vec<u8>, kind: u8, stream: u32, reason: Reason, detail: &str) {
    let mut end = detail.len().min(MAX_DETAIL_BYTES);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    put_header(out, kind, 1 + end, stream);
    out.push(reason.code());
    out.extend_from_slice(&detail.as_bytes()[..end]);
}

/// Where the decoder stands between two pieces of input.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Header and payload of a control frame, or of a header, that is not complete yet.
    partial: Vec<u8>,
    /// Stream and bytes left of the DATA frame under way.
    data: Option<(u32, usize)>,
}

impl Decoder {
    /// Takes the next event from the front of `input`; `None` when more input is needed, in which
    /// case `input` is used up.
    ///
    /// # Errors
    /// When the peer breaks the protocol; the lane must be closed.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, CodecError> {
        loop {
            if let Some((stream, left)) = self.data {
                return Ok(self.take_data(stream, left, input));
            }
            if !self.fill(HEADER_BYTES, input) {
                return Ok(None);
            }
            let header = Header::parse(&self.partial)?;
            if header.kind == DATA {
                self.partial.clear();
                if header.bytes > 0 {
                    self.data = Some((header.stream, header.bytes));
                }
                continue;
            }
            if !self.fill(HEADER_BYTES + header.bytes, input) {
                return Ok(None);
            }
            let event = header.control(&self.partial[HEADER_BYTES..]);
            self.partial.clear();
            return event.map(Some);
        }
    }

    fn take_data<'a>(&mut self, stream: u32, left: usize, input: &mut &'a [u8]) -> Option<Event<'a>> {
        if input.is_empty() {
            return None;
        }
        let (bytes, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        self.data = (left > bytes.len()).then_some((stream, left - bytes.len()));
        Some(Event::Data { stream, bytes })
    }

    /// Moves input over until `partial` has `wanted` bytes; says whether it has.
    fn fill(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.partial.len()).min(input.len());
        let (bytes, rest) = input.split_at(missing);
        self.partial.extend_from_slice(bytes);
        *input = rest;
        self.partial.len() >= wanted
    }
}

struct Header {
    kind: u8,
    bytes: usize,
    stream: u32,
}

impl Header {
    fn parse(header: &[u8]) -> Result<Self, CodecError> {
        let [kind, a, b, c, s0, s1, s2, s3, ..] = *header else {
            return Err(CodecError::Malformed(0)); // the caller has filled eight bytes
        };
        let bytes = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let most = match kind {
            DATA => MAX_DATA_BYTES,
            OPEN..=GOAWAY => MAX_CONTROL_BYTES,
            _ => return Err(CodecError::UnknownType(kind)),
        };
        if bytes > most {
            return Err(CodecError::TooLong { kind, bytes });
        }
        if (stream == 0) != (kind == GOAWAY) {
            return Err(CodecError::Stream(kind));
        }
        Ok(Self { kind, bytes, stream })
    }

    fn control<'a>(&self, payload: &[u8]) -> Result<Event<'a>, CodecError> {
        let malformed = || CodecError::Malformed(self.kind);
        let stream = self.stream;
        let event = match (self.kind, payload) {
            (OPEN, [p0, p1, service @ ..]) => Event::Open {
                stream,
                port: u16::from_be_bytes([*p0, *p1]),
                service: std::str::from_utf8(service).map_err(|_| malformed())?.to_owned(),
            },
            (OPENED, []) => Event::Opened { stream },
            (FIN, []) => Event::Fin { stream },
            (CREDIT, [a, b, c, d]) => {
                Event::Credit { stream, bytes: u32::from_be_bytes([*a, *b, *c, *d]) }
            }
            (REFUSED | RESET, [code, detail @ ..]) => {
                // A newer peer may know reasons that we do not.
                let reason = Reason::from_code(*code).unwrap_or(Reason::PeerReset);
                let detail = String::from_utf8_lossy(detail).into_owned();
                if self.kind == REFUSED {
                    Event::Refused { stream, reason, detail }
                } else {
                    Event::Reset { stream, reason, detail }
                }
            }
            (GOAWAY, [a, b, c, d, code]) => Event::GoAway {
                last: u32::from_be_bytes([*a, *b, *c, *d]),
                reason: Reason::from_code(*code).unwrap_or(Reason::Drained),
            },
            _ => return Err(malformed()),
        };
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples() -> Vec<Event<'static>> {
        vec![
            Event::Open { stream: 1, port: 5432, service: "db".to_owned() },
            Event::Data { stream: 1, bytes: b"hello" },
            Event::Opened { stream: 1 },
            Event::Credit { stream: 1, bytes: 65_536 },
            Event::Refused { stream: 3, reason: Reason::Denied, detail: "web -> db deny".to_owned() },
            Event::Reset { stream: 9, reason: Reason::AppReset, detail: String::new() },
            Event::Fin { stream: 1 },
            Event::GoAway { last: 7, reason: Reason::Drained },
        ]
    }

    /// Decodes `wire` in pieces of `step` bytes and glues DATA pieces of one stream together.
    fn decode(wire: &[u8], step: usize) -> Result<Vec<(String, Vec<u8>)>, CodecError> {
        let mut decoder = Decoder::default();
        let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
        for mut piece in wire.chunks(step) {
            while let Some(event) = decoder.next(&mut piece)? {
                match event {
                    Event::Data { stream, bytes } => {
                        let key = format!("data {stream}");
                        match seen.last_mut() {
                            Some((last, data)) if *last == key => data.extend_from_slice(bytes),
                            _ => seen.push((key, bytes.to_vec())),
                        }
                    }
                    other => seen.push((format!("{other:?}"), Vec::new())),
                }
            }
            assert!(piece.is_empty());
        }
        Ok(seen)
    }

    #[test]
    fn frames_survive_any_cutting() {
        let mut wire = Vec::new();
        for event in samples() {
            put(&mut wire, &event);
        }
        let whole = decode(&wire, wire.len()).unwrap();
        assert_eq!(whole.len(), samples().len());
        for step in 1..32 {
            assert_eq!(decode(&wire, step).unwrap(), whole, "in pieces of {step}");
        }
    }

    #[test]
    fn long_data_is_cut_into_frames() {
        let payload = vec![7u8; 3 * MAX_DATA_BYTES + 5];
        let mut wire = Vec::new();
        put(&mut wire, &Event::Data { stream: 2, bytes: &payload });
        assert_eq!(wire.len(), payload.len() + 4 * HEADER_BYTES);
        assert_eq!(decode(&wire, 1000).unwrap(), [("data 2".to_owned(), payload)]);
    }

    #[test]
    fn broken_frames_are_errors() {
        let header = |kind, len: u32, stream: u32| {
            let mut wire = len.to_be_bytes().to_vec();
            wire[0] = kind;
            wire.extend_from_slice(&stream.to_be_bytes());
            wire
        };
        for (wire, error) in [
            (header(0, 0, 1), CodecError::UnknownType(0)),
            (header(9, 0, 1), CodecError::UnknownType(9)),
            (header(DATA, 300_000, 1), CodecError::TooLong { kind: DATA, bytes: 300_000 }),
            (header(OPEN, 1025, 1), CodecError::TooLong { kind: OPEN, bytes: 1025 }),
            (header(DATA, 1, 0), CodecError::Stream(DATA)),
            (header(GOAWAY, 5, 1), CodecError::Stream(GOAWAY)),
            ([header(OPENED, 1, 1), vec![0]].concat(), CodecError::Malformed(OPENED)),
            ([header(OPEN, 3, 1), vec![0, 0, 0xff]].concat(), CodecError::Malformed(OPEN)),
        ] {
            assert_eq!(decode(&wire, 3), Err(error));
        }
    }

    #[test]
    fn long_details_are_cut() {
        let mut wire = Vec::new();
        let detail = "ä".repeat(1000);
        put(&mut wire, &Event::Refused { stream: 1, reason: Reason::Denied, detail });
        assert!(wire.len() <= HEADER_BYTES + 1 + MAX_DETAIL_BYTES);
        assert_eq!(decode(&wire, 100).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), step in 1usize..64) {
            let _verdict = decode(&bytes, step);
        }
    }
}
