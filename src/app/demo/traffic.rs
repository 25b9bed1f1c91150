//! The demo's traffic: a few requests a second from `web` to `api`, and one live line about them.

use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::http;

const PAUSE: Duration = Duration::from_millis(200);
/// Requests the figures are taken from.
const WINDOW: usize = 50;

/// Makes requests and keeps their figures.
pub(in crate::app) struct Source {
    api: SocketAddr,
    /// Make requests at all.
    active: bool,
    /// Keep one line on the terminal up to date.
    show: bool,
    taken: VecDeque<Duration>,
    passed: u64,
    failed: u64,
}

impl Source {
    pub(in crate::app) const fn new(api: SocketAddr, active: bool, show: bool) -> Self {
        Self { api, active, show, taken: VecDeque::new(), passed: 0, failed: 0 }
    }

    /// Runs until dropped.
    pub(in crate::app) async fn run(mut self) {
        if !self.active {
            std::future::pending::<()>().await;
        }
        let mut tick = tokio::time::interval(PAUSE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let started = Instant::now();
            match http::get(self.api, "/hello").await {
                Ok((200, _)) => {
                    self.passed += 1;
                    self.taken.push_back(started.elapsed());
                    if self.taken.len() > WINDOW {
                        self.taken.pop_front();
                    }
                }
                _ => self.failed += 1,
            }
            if self.show {
                self.print();
            }
        }
    }

    fn print(&self) {
        let mut out = std::io::stdout().lock();
        let line = format!(
            "\r  live      web→api {} ok, {} failed, p50 {:.1} ms, slowest {:.1} ms of the last {}   ",
            self.passed,
            self.failed,
            self.percentile(50).as_secs_f64() * 1e3,
            self.percentile(100).as_secs_f64() * 1e3,
            self.taken.len(),
        );
        // A closed terminal is no reason to stop the mesh.
        let _closed = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted: Vec<Duration> = self.taken.iter().copied().collect();
        sorted.sort_unstable();
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default()
    }
}
