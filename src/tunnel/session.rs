//! A TLS session that owns no buffers: records are opened where they were read, and sealed straight
//! into the buffer that is written.
//!
//! The handshake and the wire of a lane call it. Between two calls a session holds keys only; whole
//! records are taken from the input. What is left stays with the caller, who shows it again at every
//! call: rustls remembers where in it the pieces of a handshake message are.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, Error};

/// Longest record on the wire (RFC 8446, 5.2): header, 2^14 bytes, and what encryption adds.
pub(super) const MAX_RECORD_BYTES: usize = 5 + 16_384 + 256;
/// A full record of the AEADs of TLS 1.3: header, type and tag around 2^14 bytes.
pub(super) const SEALED_RECORD_BYTES: usize = 16_384 + 22;
/// Room that is enough to seal `bytes`: each record of at most 2^14 bytes grows by 22, and a change of
/// keys may have to be said first.
pub(super) const fn sealed_bytes(bytes: usize) -> usize {
    bytes + (bytes / 16_384 + 1) * 32 + 512
}

/// One end of a TLS connection.
pub(super) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What [`Session::open`] came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Bytes of the input that are done with.
    pub(super) used: usize,
    /// The peer's close_notify was among them: it says nothing more.
    pub(super) closed: bool,
}

impl Session {
    /// What was negotiated.
    pub(super) fn facts(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }

    /// Handles the whole records at the front of `input`, decrypting in place. Appends their plaintext
    /// to `plain`, and what the session itself has to say to the peer to `reply`.
    ///
    /// # Errors
    /// What the peer did wrong. The alert that tells it so is in `reply`.
    pub(super) fn open(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        match self {
            Self::Client(connection) => open(connection, input, plain, reply),
            Self::Server(connection) => open(connection, input, plain, reply),
        }
    }

    /// Seals `words` into the front of `out`, which has at least [`sealed_bytes`]; returns how much of
    /// it is to be sent. `rest` is what [`Self::open`] left of its input.
    ///
    /// # Errors
    /// When the handshake is not over, or keys are used up and cannot be replaced.
    pub(super) fn seal(
        &mut self,
        rest: &mut [u8],
        words: Words<'_>,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        match self {
            Self::Client(connection) => seal(connection, rest, words, out),
            Self::Server(connection) => seal(connection, rest, words, out),
        }
    }
}

/// What can be said once the handshake is over.
#[derive(Clone, Copy)]
pub(super) enum Words<'a> {
    Data(&'a [u8]),
    /// close_notify.
    Close,
}

/// The part of rustls's two unbuffered connections that both have, which rustls gives no common name.
trait Records {
    type Data;
    fn step<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// Whether it has an alert, or else, to say.
    fn has_words(&self) -> bool;
}

impl Records for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;
    fn step<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn has_words(&self) -> bool {
        self.wants_write()
    }
}

impl Records for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;
    fn step<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn has_words(&self) -> bool {
        self.wants_write()
    }
}

fn open<C: Records>(
    connection: &mut C,
    input: &mut [u8],
    plain: &mut Vec<u8>,
    reply: &mut Vec<u8>,
) -> Result<Opened, Error> {
    let mut opened = Opened::default();
    loop {
        let UnbufferedStatus { mut discard, state } = connection.step(&mut input[opened.used..]);
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                put_alert(connection, &mut input[opened.used + discard..], reply);
                return Err(error);
            }
        };
        let more = match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                true
            }
            ConnectionState::EncodeTlsData(message) => {
                encode(message, reply)?;
                true
            }
            ConnectionState::TransmitTlsData(sent) => {
                sent.done(); // it is in `reply`, which the caller sends before it calls again
                true
            }
            ConnectionState::PeerClosed => {
                opened.closed = true;
                true
            }
            ConnectionState::Closed => {
                opened.closed = true;
                false
            }
            // Early data is never offered nor accepted.
            _ => false,
        };
        opened.used += discard;
        if !more {
            return Ok(opened);
        }
    }
}

/// After an error the session says what it has to say, and looks at nothing more.
fn put_alert<C: Records>(connection: &mut C, rest: &mut [u8], reply: &mut Vec<u8>) {
    while connection.has_words() {
        let Ok(ConnectionState::EncodeTlsData(message)) = connection.step(rest).state else { return };
        if encode(message, reply).is_err() {
            return;
        }
    }
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        message.encode(&mut [])
    {
        out.resize(start + required_size, 0);
    }
    message.encode(&mut out[start..]).map(drop).map_err(general)
}

fn seal<C: Records>(
    connection: &mut C,
    rest: &mut [u8],
    words: Words<'_>,
    out: &mut [u8],
) -> Result<usize, Error> {
    let mut written = 0;
    loop {
        let out = &mut out[written..];
        match connection.step(rest).state? {
            // An answer to the peer's change of keys.
            ConnectionState::EncodeTlsData(mut message) => {
                written += message.encode(out).map_err(general)?;
            }
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                let sealed: Result<usize, EncryptError> = match words {
                    Words::Data(plain) => traffic.encrypt(plain, out),
                    Words::Close => traffic.queue_close_notify(out),
                };
                return Ok(written + sealed.map_err(general)?);
            }
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

fn general(error: impl std::error::Error) -> Error {
    Error::General(error.to_string())
}
