//! One connection, one small message at a time: what the way there and back takes.

use std::time::{Duration, Instant};

use crate::fault::Outcome;
use crate::stats::Latencies;
use crate::talk;

/// Round trips before any is counted.
const WARM_UP: usize = 200;

pub fn run(port: u16, span: Duration) -> Outcome<Latencies> {
    let mut socket = super::connect(port, talk::ECHO)?;
    for _ in 0..WARM_UP {
        super::echo(&mut socket)?;
    }
    let mut latencies = Latencies::default();
    let began = Instant::now();
    let mut sent = began;
    while sent - began < span {
        super::echo(&mut socket)?;
        let now = Instant::now();
        latencies.add(now - sent);
        sent = now;
    }
    Ok(latencies)
}
