//! New connections, some at a time: connect, one message there and back, close, again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fault::{Doing, Outcome};
use crate::poller::{Interest, Poller, begin_connect};
use crate::stats::Latencies;
use crate::talk;

/// A connection that has not had its echo by then has failed.
const STUCK: Duration = Duration::from_secs(5);
/// How often to look for stuck ones when nothing else happens.
const LOOK: Duration = Duration::from_millis(500);
/// Runs with more failures than this end early: they measure nothing, and would only burn ports.
const MOST_FAILURES: u64 = 1000;

const MESSAGE: [u8; 1 + talk::MESSAGE_BYTES] = {
    let mut message = [0x5a; 1 + talk::MESSAGE_BYTES];
    message[0] = talk::ECHO;
    message
};

#[derive(Default)]
pub struct Connections {
    pub latencies: Latencies,
    pub failures: u64,
    pub seconds: f64,
}

struct Attempt {
    socket: TcpStream,
    began: Instant,
    /// Whether the message was sent, and how much of its echo came.
    sent: bool,
    got: usize,
}

enum Progress {
    Waits,
    Done,
}

/// Keeps `at_once` connections under way for `span`, and lets the last ones finish.
pub fn run(port: u16, at_once: usize, span: Duration) -> Outcome<Connections> {
    let mut poller = Poller::new().doing("epoll")?;
    let mut slots: Vec<Option<Attempt>> = (0..at_once).map(|_| None).collect();
    let mut seen = Connections::default();
    let began = Instant::now();
    loop {
        let goes_on = began.elapsed() < span && seen.failures <= MOST_FAILURES;
        if goes_on {
            for (token, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
                match Attempt::begin(port, &poller, token as u64) {
                    Ok(attempt) => *slot = Some(attempt),
                    Err(_) => seen.failures += 1,
                }
            }
        } else if slots.iter().all(Option::is_none) {
            break;
        }
        for token in poller.wait(Some(LOOK)).doing("epoll")? {
            let slot = &mut slots[token as usize];
            let Some(attempt) = slot else { continue };
            match attempt.advance(&poller, token) {
                Ok(Progress::Waits) => continue,
                Ok(Progress::Done) => seen.latencies.add(attempt.began.elapsed()),
                Err(_) => seen.failures += 1,
            }
            *slot = None;
        }
        for slot in &mut slots {
            if slot.as_ref().is_some_and(|attempt| attempt.began.elapsed() > STUCK) {
                seen.failures += 1;
                *slot = None;
            }
        }
    }
    seen.seconds = began.elapsed().as_secs_f64();
    Ok(seen)
}

impl Attempt {
    fn begin(port: u16, poller: &Poller, token: u64) -> io::Result<Self> {
        let began = Instant::now();
        let socket = begin_connect(port)?;
        socket.set_nodelay(true)?;
        poller.add(&socket, token, Interest::Write)?;
        Ok(Self { socket, began, sent: false, got: 0 })
    }

    fn advance(&mut self, poller: &Poller, token: u64) -> io::Result<Progress> {
        if !self.sent {
            // Reports a failed connect, too; a fresh socket has room for the whole message.
            self.socket.write_all(&MESSAGE)?;
            self.sent = true;
            poller.change(&self.socket, token, Interest::Read)?;
            return Ok(Progress::Waits);
        }
        let mut echo = [0; talk::MESSAGE_BYTES];
        let bytes = match self.socket.read(&mut echo) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waits),
            Err(error) => return Err(error),
        };
        if MESSAGE[1..].get(self.got..self.got + bytes) != Some(&echo[..bytes]) {
            return Err(ErrorKind::InvalidData.into());
        }
        self.got += bytes;
        Ok(if self.got == talk::MESSAGE_BYTES { Progress::Done } else { Progress::Waits })
    }
}
