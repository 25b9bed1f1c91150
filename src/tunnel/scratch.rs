//! Buffers that belong to the thread, borrowed for the length of one read and given back, so that an
//! idle connection owns none.

use std::cell::RefCell;

/// Size of each buffer: as much as one read may take.
const BYTES: usize = 64 * 1024;
/// Spare buffers a thread keeps for lanes that have something to send, and the largest it keeps. More
/// lanes than this seldom send in one turn of the thread.
const SPARES: usize = 8;
const LARGEST_SPARE: usize = 512 * 1024;

thread_local! {
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PLAINTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static APPLICATION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn with<R>(buffer: &RefCell<Vec<u8>>, use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = buffer.borrow_mut();
    if buffer.is_empty() {
        buffer.resize(BYTES, 0);
    }
    use_it(&mut buffer)
}

/// Borrows the two buffers of a lane's read: ciphertext and plaintext.
pub(super) fn with_lane_buffers<R>(use_them: impl FnOnce(&mut [u8], &mut [u8]) -> R) -> R {
    CIPHERTEXT.with(|c| with(c, |cipher| PLAINTEXT.with(|p| with(p, |plain| use_them(cipher, plain)))))
}

/// An empty buffer that grows as needed, to be given back when it was sent.
pub(super) fn spare() -> Vec<u8> {
    SPARE.with(|spares| spares.borrow_mut().pop()).unwrap_or_default()
}

/// Takes a buffer back.
pub(super) fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    SPARE.with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARES && buffer.capacity() <= LARGEST_SPARE {
            spares.push(buffer);
        }
    });
}

/// Borrows the buffer of a read from an application.
pub(super) fn with_application_buffer<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    APPLICATION.with(|a| with(a, use_it))
}
