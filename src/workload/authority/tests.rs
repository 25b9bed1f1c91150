//! The filter changes what it has to, and nothing else.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A frame.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    [&head, payload].concat()
}

/// A string without Huffman coding, shorter than 127 bytes.
fn string(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// A literal field whose name is at an index of the static table.
fn indexed_name(first: u8, value: &[u8]) -> Vec<u8> {
    [&[first][..], &string(value)].concat()
}

fn passed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    Rewriter::default().pass(&mut bytes);
    bytes
}

const END_HEADERS: u8 = 4;
const SOCKET: &[u8] = b"tmp%2Fweft%2Fworkload.sock";
const CLEAN: &[u8] = b"tmp-2Fweft-2Fworkload.sock";

#[test]
fn the_authority_is_cleaned_in_each_form_of_a_literal() {
    for first in [0x41, 0x01, 0x11] {
        let fields = |authority: &[u8]| {
            // :method POST, a path that keeps its slashes, the authority, and what comes after it.
            [&[0x83][..], &indexed_name(0x44, b"/a%/b"), &indexed_name(first, authority), &[0x86]]
                .concat()
        };
        let frames = |authority: &[u8]| frame(HEADERS, END_HEADERS, &fields(authority));
        assert_eq!(passed(&frames(SOCKET)), frames(CLEAN), "{first:x}");
        assert_eq!(passed(&frames(b"/run/w@ft.sock")), frames(b"-run-w-ft.sock"));
    }
    for first in [0x40, 0x00, 0x10] {
        let field = |name: &[u8], value: &[u8]| [&[first][..], &string(name), &string(value)].concat();
        let frames = |name: &[u8], value: &[u8]| frame(HEADERS, END_HEADERS, &field(name, value));
        assert_eq!(passed(&frames(b":authority", SOCKET)), frames(b":authority", CLEAN));
        for other in [&b":authoritx"[..], b":authorit", b":authority2", b"x", b""] {
            assert_eq!(passed(&frames(other, SOCKET)), frames(other, SOCKET), "{other:?}");
        }
    }
}

#[test]
fn padding_priority_continuation_and_long_values_are_followed() {
    let long: Vec<u8> = SOCKET.iter().copied().cycle().take(300).collect();
    let clean: Vec<u8> = CLEAN.iter().copied().cycle().take(300).collect();
    // 300 = 127 + 173, and 173 = 0b1_0101101.
    let field = |value: &[u8]| [&[0x41, 0x7f, 0xad, 0x01][..], value].concat();
    let lead = [4, 0, 0, 0, 0, 9]; // four bytes of padding, and a priority
    let padding = [0x41, 2, b'/', b'/']; // looks like a field
    let frames = |value: &[u8]| {
        let (first, rest) = field(value).split_at(50).to_owned_pair();
        let headers = [&lead[..], &first, &padding].concat();
        let data = frame(0, 0, &[0x41, 1, b'/']);
        let ends = frame(CONTINUATION, END_HEADERS, &rest);
        [frame(4, 0, &[]), frame(HEADERS, PADDED | PRIORITY, &headers), ends, data].concat()
    };
    let (given, wanted) = (frames(&long), frames(&clean));
    assert_eq!(passed(&given), wanted);
    // However it is cut up.
    for size in 1..40 {
        let (mut rewriter, mut bytes) = (Rewriter::default(), given.clone());
        bytes.chunks_mut(size).for_each(|chunk| rewriter.pass(chunk));
        assert_eq!(bytes, wanted, "{size}");
    }
}

#[test]
fn what_is_coded_or_not_a_header_stays() {
    let huffman = [&[0x41, 0x80 | 3][..], b"/%/"].concat();
    let frames = [
        frame(HEADERS, END_HEADERS, &huffman),
        frame(0, 0, &indexed_name(0x41, SOCKET)),
        frame(HEADERS, END_HEADERS, &[0x3f, 0xe1, 0x1f, 0xbe, 0x20]), // table sizes, an indexed field
        frame(
            HEADERS,
            END_HEADERS,
            &[&[0x5f; 1][..], &[0xff; 20], &indexed_name(0x41, SOCKET)].concat(),
        ),
    ];
    assert_eq!(passed(&frames.concat()), frames.concat());
    // A block that was lost does not take the next one with it.
    let next = |value: &[u8]| [frames.concat(), frame(HEADERS, 4, &indexed_name(0x41, value))].concat();
    assert_eq!(passed(&next(SOCKET)), next(CLEAN));
}

trait ToOwnedPair {
    fn to_owned_pair(self) -> (Vec<u8>, Vec<u8>);
}

impl ToOwnedPair for (&[u8], &[u8]) {
    fn to_owned_pair(self) -> (Vec<u8>, Vec<u8>) {
        (self.0.to_vec(), self.1.to_vec())
    }
}

proptest! {
    /// Whatever comes, it keeps its length, and does not depend on how it was cut up.
    #[test]
    fn anything_passes(bytes in vec(any::<u8>(), 0..600), size in 1..50_usize) {
        let whole = passed(&bytes);
        prop_assert_eq!(whole.len(), bytes.len());
        let (mut rewriter, mut cut) = (Rewriter::default(), bytes.clone());
        cut.chunks_mut(size).for_each(|chunk| rewriter.pass(chunk));
        prop_assert_eq!(&cut, &whole);
        // Every change puts one byte in the place of one that is not allowed.
        for (before, after) in bytes.iter().zip(&whole) {
            prop_assert!(before == after || *after == INSTEAD);
        }
    }

    /// Frames with random fields in them.
    #[test]
    fn any_header_block_passes(payload in vec(any::<u8>(), 0..300), flags in any::<u8>()) {
        let frames = [frame(HEADERS, flags, &payload), frame(HEADERS, 4, &indexed_name(0x41, SOCKET))].concat();
        let after = passed(&frames);
        prop_assert!(after.ends_with(CLEAN), "the next block is followed again");
    }
}
