//! Some connections that are kept, with one request under way on each, from one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fault::{Doing, Fault, Outcome};
use crate::poller::{Interest, Poller};
use crate::stats::Latencies;
use crate::talk;

/// Load before anything is counted: connections, lanes and buffers are there then.
pub const WARM_UP: Duration = Duration::from_millis(300);
/// How long all connections may be silent before the run counts as stuck.
const SILENCE: Duration = Duration::from_secs(5);

pub struct Requests {
    pub latencies: Latencies,
    pub seconds: f64,
}

struct Connection {
    socket: TcpStream,
    sent: Instant,
    /// Bytes of the response that have come.
    got: usize,
}

/// Opens `count` connections and keeps them busy for the warm-up and for `span`.
pub fn run(port: u16, count: usize, span: Duration) -> Outcome<Requests> {
    let response = talk::http_response();
    let mut poller = Poller::new().doing("epoll")?;
    let mut connections = Vec::with_capacity(count);
    for token in 0..count {
        // The first byte of a request is its role.
        let mut socket = super::connect(port, talk::HTTP)?;
        socket.write_all(&talk::HTTP_REQUEST[1..]).doing("write the first request")?;
        socket.set_nonblocking(true).doing("make a socket non-blocking")?;
        poller.add(&socket, token as u64, Interest::Read).doing("epoll")?;
        connections.push(Connection { socket, sent: Instant::now(), got: 0 });
    }
    let begins = Instant::now() + WARM_UP;
    let ends = begins + span;
    let mut latencies = Latencies::default();
    let mut buffer = vec![0; 4096];
    let mut now = Instant::now();
    while now < ends {
        let ready = poller.wait(Some(SILENCE)).doing("epoll")?;
        let before = now;
        for token in ready {
            let Some(connection) = connections.get_mut(token as usize) else { continue };
            if connection.receive(&mut buffer, &response)? {
                now = Instant::now();
                if connection.sent >= begins {
                    latencies.add(now - connection.sent);
                }
                connection.socket.write_all(talk::HTTP_REQUEST).doing("write a request")?;
                connection.sent = now;
            }
        }
        now = Instant::now();
        if now - before >= SILENCE {
            return Err(Fault::new(format!("no response on {count} connections for {SILENCE:?}")));
        }
    }
    Ok(Requests { latencies, seconds: (now - begins).as_secs_f64() })
}

impl Connection {
    /// Whether the response is complete.
    fn receive(&mut self, buffer: &mut [u8], response: &[u8]) -> Outcome<bool> {
        let bytes = match self.socket.read(buffer) {
            Ok(0) => return Err(Fault::new("a connection ended before its response")),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).doing("read a response"),
        };
        if response.get(self.got..self.got + bytes) != Some(&buffer[..bytes]) {
            return Err(Fault::new("a response differs from what the backend sends"));
        }
        self.got = (self.got + bytes) % response.len();
        Ok(self.got == 0)
    }
}
