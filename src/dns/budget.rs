//! Bounds what the port can be made to send to somebody who never asked. Pure: the time is passed in.
//!
//! The sender of a datagram may be invented. Answers up to a few times the question are always given;
//! what is beyond comes out of an allowance of the network that seems to ask. When that is used up, the
//! answer is that there is more over TCP, where senders cannot be invented. Loopback is not counted.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::limits::{ALLOWANCE_BYTES, ALLOWANCE_BYTES_PER_SECOND, FREE_FACTOR};

/// Networks that are told apart; those that fall together share an allowance.
const NETWORKS: usize = 4096;

/// The allowances of all networks.
pub(super) struct Budget {
    start: Instant,
    allowances: Vec<Allowance>,
}

#[derive(Clone, Copy)]
struct Allowance {
    bytes: u64,
    /// Since the start.
    at: Duration,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        let full = Allowance { bytes: ALLOWANCE_BYTES, at: Duration::ZERO };
        Self { start: now, allowances: vec![full; NETWORKS] }
    }

    /// Whether an answer may go to a client as it is.
    pub(super) fn admits(
        &mut self,
        client: SocketAddr,
        asked_bytes: usize,
        answer_bytes: usize,
        now: Instant,
    ) -> bool {
        if client.ip().is_loopback() || answer_bytes <= FREE_FACTOR * asked_bytes {
            return true;
        }
        let now = now.saturating_duration_since(self.start);
        let Some(allowance) = self.allowances.get_mut(place_of(client.ip())) else { return false };
        let earned =
            now.saturating_sub(allowance.at).as_millis() * u128::from(ALLOWANCE_BYTES_PER_SECOND);
        let earned = u64::try_from(earned / 1000).unwrap_or(u64::MAX);
        if earned > 0 {
            allowance.bytes = allowance.bytes.saturating_add(earned).min(ALLOWANCE_BYTES);
            allowance.at = now;
        }
        let left = allowance.bytes.checked_sub(answer_bytes as u64);
        allowance.bytes = left.unwrap_or(allowance.bytes);
        left.is_some()
    }
}

/// The place of the network of an address: 24 bits of IPv4, 56 of IPv6.
fn place_of(ip: IpAddr) -> usize {
    let network = match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
        IpAddr::V6(ip) => u64::try_from(u128::from(ip) >> 72).unwrap_or_default(),
    };
    // Fibonacci hashing: the upper bits depend on all of the number.
    let hash = network.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(hash >> (u64::BITS - NETWORKS.ilog2())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 53)
    }

    #[test]
    fn an_invented_sender_is_sent_its_allowance_and_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut sent = 0;
        for millisecond in 0..10_000 {
            for host in 0..10 {
                let victim = client(&format!("192.0.2.{host}"));
                let now = start + Duration::from_millis(millisecond);
                sent += if budget.admits(victim, 40, 4000, now) { 4000 } else { 0 };
            }
        }
        let most = ALLOWANCE_BYTES + 10 * ALLOWANCE_BYTES_PER_SECOND;
        assert!(sent <= most && sent > most / 2, "{sent} of {most}");
        // Nobody else pays for it.
        assert!(budget.admits(client("198.51.100.1"), 40, 4000, start + Duration::from_secs(10)));
        assert!(budget.admits(client("2001:db8::1"), 40, 4000, start + Duration::from_secs(10)));
    }

    #[test]
    fn small_answers_and_loopback_are_free() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        for _ in 0..100_000 {
            assert!(budget.admits(client("192.0.2.1"), 40, 40 * FREE_FACTOR, now));
            assert!(budget.admits(client("127.0.0.1"), 40, 8000, now));
            assert!(budget.admits(client("::1"), 40, 8000, now));
        }
        let mut admitted = 0;
        while budget.admits(client("192.0.2.1"), 40, 8000, now) {
            admitted += 1;
        }
        assert_eq!(admitted, ALLOWANCE_BYTES / 8000);
        assert!(!budget.admits(client("::ffff:192.0.2.9"), 40, 8000, now), "the same network");
        assert!(budget.admits(client("192.0.2.1"), 40, 8000, now + Duration::from_secs(1)));
    }
}
