//! What must hold for any bytes that a peer could send: the oracle of the codec's fuzz target.
//!
//! Used by `fuzz_targets/codec.rs` with what libFuzzer makes up, and by `tests/it/fuzz_corpus.rs` with
//! the corpus, so that every change is checked against what was ever found. It ends with a panic when
//! something does not hold.
//!
//! An input is one byte that says how many, that many bytes that say where to cut, and the wire.

use weft::tunnel::codec::{self, CodecError, Decoder, Event, MAX_DETAIL_BYTES};

/// Checks one input. Returns how many events it holds, so that a caller can tell an input that says
/// something from one that does not.
pub fn check(input: &[u8]) -> usize {
    let Some((&cuts, rest)) = input.split_first() else { return 0 };
    let (cuts, wire) = rest.split_at(usize::from(cuts).min(rest.len()));
    let (whole, error) = decode(wire, &[]);
    assert_eq!(decode(wire, cuts), (whole.clone(), error), "cutting changed what was read");

    let rewritten = encode(&whole);
    let (again, error) = decode(&rewritten, cuts);
    assert_eq!(error, None, "what we write was refused");
    assert_eq!(again, whole.iter().map(as_written).collect::<Vec<_>>(), "what we write reads otherwise");
    assert_eq!(encode(&again), rewritten, "writing what was read changed it");
    whole.len()
}

/// An event that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owned {
    /// All the bytes of a stream that follow each other, whatever frames and pieces they came in.
    Data(u32, Vec<u8>),
    Other(Event<'static>),
}

/// Everything in `wire`, up to the first error. `cuts` are the sizes of the pieces, over and over; a
/// size of zero is an empty read. Without any, it comes in one piece.
fn decode(wire: &[u8], cuts: &[u8]) -> (Vec<Owned>, Option<CodecError>) {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    let mut left = wire;
    let progresses = cuts.iter().any(|&size| size > 0);
    let mut sizes = cuts.iter().cycle();
    while !left.is_empty() {
        let size = sizes.next().filter(|_| progresses).map_or(left.len(), |&size| usize::from(size));
        let (mut piece, rest) = left.split_at(size.min(left.len()));
        left = rest;
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(event)) => push(&mut seen, event),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
        assert!(piece.is_empty(), "the decoder wants more but left {} bytes", piece.len());
    }
    (seen, None)
}

fn push(seen: &mut Vec<Owned>, event: Event<'_>) {
    let other = match event {
        Event::Data { stream, bytes } => {
            assert!(!bytes.is_empty(), "an empty piece of data");
            match seen.last_mut() {
                Some(Owned::Data(last, data)) if *last == stream => data.extend_from_slice(bytes),
                _ => seen.push(Owned::Data(stream, bytes.to_vec())),
            }
            return;
        }
        Event::Open { stream, port, service } => Event::Open { stream, port, service },
        Event::Opened { stream } => Event::Opened { stream },
        Event::Refused { stream, reason, detail } => Event::Refused { stream, reason, detail },
        Event::Credit { stream, bytes } => Event::Credit { stream, bytes },
        Event::Fin { stream } => Event::Fin { stream },
        Event::Reset { stream, reason, detail } => Event::Reset { stream, reason, detail },
        Event::GoAway { last, reason } => Event::GoAway { last, reason },
    };
    seen.push(Owned::Other(other));
}

fn encode(events: &[Owned]) -> Vec<u8> {
    let mut wire = Vec::new();
    for event in events {
        match event {
            Owned::Data(stream, bytes) => codec::put(&mut wire, &Event::Data { stream: *stream, bytes }),
            Owned::Other(event) => codec::put(&mut wire, event),
        }
    }
    wire
}

/// An event as our own writer says it: a longer explanation than it writes is cut.
fn as_written(event: &Owned) -> Owned {
    let mut event = event.clone();
    if let Owned::Other(Event::Refused { detail, .. } | Event::Reset { detail, .. }) = &mut event {
        let mut end = detail.len().min(MAX_DETAIL_BYTES);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        detail.truncate(end);
    }
    event
}
