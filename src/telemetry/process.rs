//! What the kernel says about this process, read from `/proc/self` at each scrape.
//!
//! Elsewhere than on Linux, or without `/proc`, the metrics are absent.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::metrics::names::{self, Name};

/// Ticks per second in `/proc`: a constant of the kernel's interface, whatever the kernel runs at.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(bytes) = resident_bytes() {
            put(&mut encoder, names::PROCESS_MEMORY, &ConstGauge::new(bytes))?;
        }
        if let Some(count) = open_fds() {
            put(&mut encoder, names::PROCESS_FDS, &ConstGauge::new(count))?;
        }
        if let Some(times) = Times::read() {
            put(&mut encoder, names::PROCESS_CPU, &ConstCounter::new(times.cpu_seconds))?;
            put(&mut encoder, names::PROCESS_START, &ConstGauge::new(times.start_seconds))?;
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): Name,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = field(&status, "VmRSS:")?.parse::<u64>().ok()?;
    Some(kibibytes * 1024)
}

fn open_fds() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory that is being read.
    u64::try_from(entries.saturating_sub(1)).ok()
}

struct Times {
    cpu_seconds: f64,
    /// Unix time.
    start_seconds: f64,
}

impl Times {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        Self::parse(&stat, field(&system, "btime")?)
    }

    /// The second field of `stat`, the command, may hold anything, but its last `)` ends it.
    fn parse(stat: &str, boot_time: &str) -> Option<Self> {
        let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Numbers are those of proc(5), whose third field is our first.
        let ticks = |number: usize| rest.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            start_seconds: boot_time.parse::<f64>().ok()? + ticks(22)? / TICKS_PER_SECOND,
        })
    }
}

/// The first word after `name` at the start of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 0 -1 4 5 6 7 8 150 50 0 0 20 0 1 0 12345 1 2";
        let times = Times::parse(stat, "1000").unwrap();
        assert!((times.cpu_seconds - 2.0).abs() < 1e-9);
        assert!((times.start_seconds - 1_123.45).abs() < 1e-9);
        assert!(Times::parse("7 (short) S 1", "1000").is_none());
    }
}
