//! The application behind every tunnel, a process of its own: `weft-bench backend PORT`. One thread
//! serves all small talk (echo and HTTP); each bulk stream gets a thread, so that it delays nobody here.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::fault::{Doing, Fault, Outcome};
use crate::poller::{Interest, Poller};
use crate::talk;

const LISTENER: u64 = 0;

/// What a connection is for, once its first byte has said so.
enum Role {
    Unknown,
    Echo,
    /// Bytes of `HTTP_HEAD_END` that were seen last.
    Http(usize),
}

struct Connection {
    socket: TcpStream,
    role: Role,
}

/// What to do with a connection after it was served.
enum Next {
    Keep,
    Close,
    HandOver(u8),
}

/// Serves until the process is ended.
pub fn serve(port: u16) -> Outcome<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).doing(format!("listen on port {port}"))?;
    // The standard library's backlog of 128 would drop connections of a burst.
    rustix::net::listen(&listener, 4096).doing("listen")?;
    run(&listener).doing("serve")
}

fn run(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.add(listener, LISTENER, Interest::Read)?;
    let mut connections = HashMap::new();
    let mut last_token = LISTENER;
    let response = talk::http_response();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        for token in poller.wait(None)? {
            if token == LISTENER {
                accept(listener, &poller, &mut connections, &mut last_token)?;
                continue;
            }
            let Some(connection) = connections.get_mut(&token) else { continue };
            // A connection that fails is the load generator's to notice and to count.
            match connection.serve(&mut buffer, &response).unwrap_or(Next::Close) {
                Next::Keep => {}
                Next::Close => drop(connections.remove(&token)),
                Next::HandOver(role) => {
                    let Some(Connection { socket, .. }) = connections.remove(&token) else { continue };
                    poller.remove(&socket)?;
                    socket.set_nonblocking(false)?;
                    std::thread::spawn(move || bulk(socket, role));
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poller: &Poller,
    connections: &mut HashMap<u64, Connection>,
    last_token: &mut u64,
) -> io::Result<()> {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        *last_token += 1;
        poller.add(&socket, *last_token, Interest::Read)?;
        connections.insert(*last_token, Connection { socket, role: Role::Unknown });
    }
}

impl Connection {
    fn serve(&mut self, buffer: &mut [u8], response: &[u8]) -> io::Result<Next> {
        if matches!(self.role, Role::Unknown) {
            let mut first = [0];
            if self.socket.read(&mut first)? == 0 {
                return Ok(Next::Close);
            }
            self.role = match first[0] {
                talk::ECHO => Role::Echo,
                talk::HTTP => Role::Http(0),
                role @ (talk::UPLOAD | talk::DOWNLOAD) => return Ok(Next::HandOver(role)),
                _ => return Ok(Next::Close),
            };
        }
        let bytes = match self.socket.read(buffer) {
            Ok(0) => return Ok(Next::Close),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
            Err(error) => return Err(error),
        };
        // One message at a time is under way on a connection, so it always fits the socket's buffer.
        match &mut self.role {
            Role::Unknown => {}
            Role::Echo => self.socket.write_all(&buffer[..bytes])?,
            Role::Http(seen) => {
                for _ in 0..heads(seen, &buffer[..bytes]) {
                    self.socket.write_all(response)?;
                }
            }
        }
        Ok(Next::Keep)
    }
}

/// How many requests end in these bytes; `seen` is what of an end came before them.
fn heads(seen: &mut usize, bytes: &[u8]) -> usize {
    let mut found = 0;
    for byte in bytes {
        *seen = match *seen {
            n if *byte == talk::HTTP_HEAD_END[n] => n + 1,
            _ => usize::from(*byte == talk::HTTP_HEAD_END[0]),
        };
        if *seen == talk::HTTP_HEAD_END.len() {
            *seen = 0;
            found += 1;
        }
    }
    found
}

/// One bulk stream, to its end. How it ends is the load generator's to notice.
fn bulk(mut socket: TcpStream, role: u8) {
    let _ended = if role == talk::UPLOAD { upload(&mut socket) } else { download(&mut socket) };
}

fn upload(socket: &mut TcpStream) -> Outcome<()> {
    let mut buffer = vec![0; 2 * talk::BLOCK_BYTES];
    let mut total = 0;
    loop {
        let bytes = socket.read(&mut buffer).doing("read an upload")?;
        if bytes == 0 {
            return Err(Fault::new("an upload ended before its last block"));
        }
        let first_start = (talk::BLOCK_BYTES - total % talk::BLOCK_BYTES) % talk::BLOCK_BYTES;
        let last_start =
            (first_start..bytes).step_by(talk::BLOCK_BYTES).find(|&at| buffer[at] == talk::LAST);
        total += bytes;
        if last_start.is_some() {
            let missing = (talk::BLOCK_BYTES - total % talk::BLOCK_BYTES) % talk::BLOCK_BYTES;
            socket.read_exact(&mut buffer[..missing]).doing("read the last block")?;
            let total = (total + missing) as u64;
            return socket.write_all(&total.to_be_bytes()).doing("report an upload");
        }
    }
}

fn download(socket: &mut TcpStream) -> Outcome<()> {
    let block = vec![talk::MORE; talk::BLOCK_BYTES];
    loop {
        socket.write_all(&block).doing("write a download")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_however_they_are_cut() {
        let wire = talk::HTTP_REQUEST.repeat(3);
        for size in 1..wire.len() {
            let mut seen = 0;
            let found: usize = wire.chunks(size).map(|piece| heads(&mut seen, piece)).sum();
            assert_eq!(found, 3, "in pieces of {size}");
        }
        assert_eq!(heads(&mut 0, b"\r\n\r\r\n\r\n"), 1);
    }
}
