//! As many bytes as go through, on some connections at a time, in either direction; a thread each.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::fault::{Doing, Fault, Outcome};
use crate::talk;

#[derive(Clone, Copy)]
pub enum Direction {
    Upload,
    Download,
}

/// What arrived, and how long it took.
pub struct Moved {
    pub bytes: u64,
    pub seconds: f64,
}

impl Moved {
    pub fn gigabytes(&self) -> f64 {
        self.bytes as f64 / 1e9
    }

    pub fn gbit_s(&self) -> f64 {
        self.gigabytes() * 8.0 / self.seconds
    }
}

/// Runs one stream for each of `directions`.
pub fn run(port: u16, directions: &[Direction], span: Duration) -> Outcome<Moved> {
    let began = Instant::now();
    let until = began + span;
    let bytes = thread::scope(|scope| {
        let streams: Vec<_> = directions
            .iter()
            .map(|&direction| {
                scope.spawn(move || match direction {
                    Direction::Upload => upload(port, until),
                    Direction::Download => download(port, until),
                })
            })
            .collect();
        let ended = streams
            .into_iter()
            .map(|s| s.join().unwrap_or_else(|_| Err(Fault::new("a stream panicked"))));
        ended.sum::<Outcome<u64>>()
    })?;
    Ok(Moved { bytes, seconds: began.elapsed().as_secs_f64() })
}

/// Writes blocks until the time is up, then waits until the backend has seen the last of them.
fn upload(port: u16, until: Instant) -> Outcome<u64> {
    let mut socket = super::connect(port, talk::UPLOAD)?;
    let mut block = vec![talk::MORE; talk::BLOCK_BYTES];
    let mut sent = block.len() as u64;
    while Instant::now() < until {
        socket.write_all(&block).doing("write a block")?;
        sent += block.len() as u64;
    }
    block[0] = talk::LAST;
    socket.write_all(&block).doing("write the last block")?;
    let mut total = [0; 8];
    socket.read_exact(&mut total).doing("read how much arrived")?;
    let arrived = u64::from_be_bytes(total);
    if arrived == sent {
        Ok(arrived)
    } else {
        Err(Fault::new(format!("{arrived} of {sent} bytes arrived")))
    }
}

fn download(port: u16, until: Instant) -> Outcome<u64> {
    let mut socket = super::connect(port, talk::DOWNLOAD)?;
    let mut buffer = vec![0; 2 * talk::BLOCK_BYTES];
    let mut arrived = 0;
    while Instant::now() < until {
        match socket.read(&mut buffer).doing("read a download")? {
            0 => return Err(Fault::new("a download ended")),
            bytes => arrived += bytes as u64,
        }
    }
    Ok(arrived)
}

/// A download that nobody reads: it fills every buffer on its way and stays so while it is held.
pub fn stalled_reader(port: u16) -> Outcome<impl Sized> {
    super::connect(port, talk::DOWNLOAD)
}
