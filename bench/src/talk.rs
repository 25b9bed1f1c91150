//! What the load generators and the backend say to each other. The first byte of a connection chooses
//! what the backend does with the rest, so that one backend, and so one tunnel, serves every measure,
//! several at the same time.

/// Everything that follows is sent back.
pub const ECHO: u8 = b'P';
/// Blocks follow; the total is reported after the last one.
pub const UPLOAD: u8 = b'U';
/// The backend sends without end.
pub const DOWNLOAD: u8 = b'D';
/// First byte of `HTTP_REQUEST`.
pub const HTTP: u8 = b'G';

/// Bytes of a message that is echoed.
pub const MESSAGE_BYTES: usize = 64;

/// An upload comes in blocks of this size. Also the size of one write of a bulk stream, as in iperf3.
pub const BLOCK_BYTES: usize = 128 * 1024;
/// First byte of a block that others follow.
pub const MORE: u8 = 1;
/// First byte of the last block.
pub const LAST: u8 = 0;

pub const HTTP_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.local\r\nAccept: */*\r\n\r\n";
/// Ends each request's head.
pub const HTTP_HEAD_END: &[u8] = b"\r\n\r\n";

/// The one answer there is; its body is 128 bytes.
pub fn http_response() -> Vec<u8> {
    let mut response =
        b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n"
            .to_vec();
    response.resize(response.len() + 128, b'w');
    response
}
