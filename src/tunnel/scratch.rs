//! Buffers that belong to the thread, borrowed for the length of one read or write and given back, so
//! that an idle connection owns none.
//!
//! The tasks of lanes and streams borrow them, never across an await. [`release`] gives their memory
//! back after a time without traffic.

use std::cell::{Cell, RefCell};

use super::session::{MAX_RECORD_BYTES, sealed_bytes};

/// Records that one read takes, and one write: each call costs a good deal more than its bytes.
pub(super) const RECORDS: usize = 16;
/// Their plaintext.
pub(super) const BYTES: usize = RECORDS * 16_384;
/// Spare buffers a thread keeps for lanes that have something to send, and the largest it keeps. More
/// lanes than this seldom send in one turn of the thread.
const SPARES: usize = 8;
const LARGEST_SPARE: usize = 512 * 1024;

/// The buffers of one thread, each empty until it is first used.
#[derive(Default)]
struct Buffers {
    /// What was read from a lane.
    input: RefCell<Vec<u8>>,
    /// The plaintext of it.
    plain: RefCell<Vec<u8>>,
    /// What is written to a lane.
    sealed: RefCell<Vec<u8>>,
    /// What was read from an application.
    application: RefCell<Vec<u8>>,
    spares: RefCell<Vec<Vec<u8>>>,
    used: Cell<bool>,
}

thread_local! {
    static BUFFERS: Buffers = Buffers::default();
}

fn with<R>(
    choose: impl Fn(&Buffers) -> &RefCell<Vec<u8>>,
    bytes: usize,
    use_it: impl FnOnce(&mut [u8]) -> R,
) -> R {
    BUFFERS.with(|buffers| {
        buffers.used.set(true);
        let mut buffer = choose(buffers).borrow_mut();
        if buffer.is_empty() {
            *buffer = vec![0; bytes]; // pages that are never used cost nothing
        }
        use_it(&mut buffer)
    })
}

/// Borrows the buffer of a read from a lane: room for the beginning of a record and for what its peer
/// sealed in one go.
pub(super) fn with_input<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    with(|buffers| &buffers.input, sealed_bytes(BYTES) + MAX_RECORD_BYTES, use_it)
}

/// Borrows an empty buffer for the plaintext of one read.
pub(super) fn with_plain<R>(use_it: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    BUFFERS.with(|buffers| {
        let mut plain = buffers.plain.borrow_mut();
        plain.clear();
        use_it(&mut plain)
    })
}

/// Borrows the buffer of a write to a lane: room to seal [`BYTES`].
pub(super) fn with_sealed<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    with(|buffers| &buffers.sealed, sealed_bytes(BYTES), use_it)
}

/// Borrows the buffer of a read from an application.
pub(super) fn with_application_buffer<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    with(|buffers| &buffers.application, BYTES, use_it)
}

/// An empty buffer that grows as needed, to be given back when it was sent.
pub(super) fn spare() -> Vec<u8> {
    BUFFERS.with(|buffers| buffers.spares.borrow_mut().pop()).unwrap_or_default()
}

/// Takes a buffer back.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    BUFFERS.with(|buffers| {
        let mut spares = buffers.spares.borrow_mut();
        if spares.len() < SPARES && buffer.capacity() <= LARGEST_SPARE {
            spares.push(buffer);
        }
    });
}

/// Frees this thread's buffers when none was used since the last call.
pub fn release() {
    BUFFERS.with(|buffers| {
        if !buffers.used.replace(false) {
            for buffer in [&buffers.input, &buffers.plain, &buffers.sealed, &buffers.application] {
                buffer.take();
            }
            buffers.spares.take();
        }
    });
}
