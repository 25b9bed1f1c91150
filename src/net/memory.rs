//! Memory that was freed goes back to the system after a crowd has left.
//!
//! The C library keeps what it frees for its next allocations, which a process that once had thousands
//! of connections may never make: 5,000 idle ones cost some 11 MiB that stayed for ever. `proxy` runs
//! [`give_back_after_crowds`]; nobody else frees by hand.

use std::time::Duration;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// A crowd is at least so many; what fewer leave behind is not worth the work.
const CROWD: usize = 200;

/// Asks `held` how many connections there are, for ever, and gives memory back when most of a crowd has
/// gone.
pub async fn give_back_after_crowds(held: impl Fn() -> usize) {
    let mut crowd = Crowd::default();
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        if crowd.has_left(held()) {
            // It takes milliseconds, in which those who carry traffic go on.
            let _done = tokio::task::spawn_blocking(give_back).await;
        }
    }
}

/// The most that were there since memory was last given back.
#[derive(Debug, Default)]
struct Crowd(usize);

impl Crowd {
    fn has_left(&mut self, now: usize) -> bool {
        self.0 = self.0.max(now);
        let left = self.0 - now >= CROWD && now <= self.0 / 2;
        if left {
            self.0 = now;
        }
        left
    }
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::malloc_trim(0);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the C library's function has no safe binding; it takes no pointer")]
mod glibc {
    // SAFETY: malloc_trim(3) may be called by any thread at any time with any number. It takes the
    // allocator's own locks and touches nothing that is in use.
    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crowds_count_and_each_once() {
        let mut crowd = Crowd::default();
        let seen = [0, 150, 10, 900, 800, 460, 440, 300, 0, 0, 5000, 2600, 2500, 0];
        let left: Vec<usize> = seen.into_iter().filter(|now| crowd.has_left(*now)).collect();
        assert_eq!(left, [440, 0, 2500, 0]);
    }
}
