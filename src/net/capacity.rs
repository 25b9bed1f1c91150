//! How much a process may hold at a time: what the code can stand, cut down to what the limits on
//! descriptors and memory leave room for.
//!
//! `app` asks once at start, after it has raised the limit of open files. What is beyond is refused
//! with a reset and counted, so that `EMFILE` and the out-of-memory killer have nothing to do.

use std::fs;
use std::path::{Path, PathBuf};

use super::limits;

/// Most things of each kind that one process holds at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Sockets of applications and peers, all kinds together.
    pub descriptors: usize,
    /// Connections of applications to upstreams.
    pub connections: usize,
    /// Streams of peers to the application.
    pub streams: usize,
    /// TLS connections of peers.
    pub peers: usize,
    /// TLS connections of peers that have not proved who they are, for each worker.
    pub handshakes: usize,
    /// TLS connections of peers from one address.
    pub per_source: usize,
    /// Bytes that fast streams may have under way beyond what every stream may.
    pub window_growth: usize,
}

impl Capacity {
    /// What this process may hold.
    #[must_use]
    pub fn of_this_process() -> Self {
        let memory = fs::read_to_string("/proc/self/cgroup").ok();
        let memory = memory.and_then(|text| memory_limit(&text, |path| fs::read_to_string(path).ok()));
        let capacity = Self::derive(descriptor_limit(), memory);
        tracing::debug!(?capacity, memory, "limits of this process");
        capacity
    }

    /// From the limits on open files and, in bytes, on memory.
    #[must_use]
    pub fn derive(files: u64, memory: Option<u64>) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let descriptors = files.saturating_sub(limits::RESERVED_DESCRIPTORS).max(files / 4).max(8);
        let left = memory.map_or(usize::MAX, |bytes| {
            let left = bytes.saturating_sub(limits::BASE_BYTES).max(bytes / 4);
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        let room = (left / 2 / limits::CONNECTION_BYTES).max(8);
        let share = |most: usize, part: fn(usize) -> usize| most.min(part(descriptors)).min(part(room));
        let half = |all: usize| all / 2;
        let peers = share(limits::PEERS, half);
        Self {
            descriptors,
            // What applications bring may fill most of the room, what peers bring too, never all of it.
            connections: share(limits::CONNECTIONS, |all| all - all / 4),
            streams: share(limits::STREAMS, |all| all - all / 4),
            peers,
            handshakes: limits::HANDSHAKES.min(peers / 2),
            per_source: (peers - peers / 4).max(1),
            window_growth: left / 4,
        }
    }
}

fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The smallest memory limit of the control groups that `/proc/self/cgroup` names and of those above
/// them, for both versions; `None` when there is none.
fn memory_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut smallest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the host's, while the group itself is mounted at the top.
        let inside = Path::new(path.trim_start_matches('/'));
        for group in inside.ancestors().chain([Path::new("")]) {
            let file: PathBuf = [Path::new(mount), group, Path::new(file)].iter().collect();
            let limit = read(&file).and_then(|text| text.trim().parse::<u64>().ok());
            smallest = [smallest, limit.filter(|limit| *limit < UNLIMITED)].into_iter().flatten().min();
        }
    }
    smallest
}

/// Version 1 writes no limit as the largest number of whole pages.
const UNLIMITED: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_limits_the_code_decides() {
        let capacity = Capacity::derive(1 << 20, None);
        assert_eq!(capacity.connections, limits::CONNECTIONS);
        assert_eq!(capacity.streams, limits::STREAMS);
        assert_eq!(capacity.peers, limits::PEERS);
        assert_eq!(capacity.handshakes, limits::HANDSHAKES);
    }

    #[test]
    fn few_descriptors_leave_the_reserve_alone() {
        let capacity = Capacity::derive(256, None);
        assert_eq!(capacity.descriptors, 256 - limits::RESERVED_DESCRIPTORS);
        assert!(capacity.connections < capacity.descriptors);
        assert!(capacity.peers <= capacity.descriptors / 2);
    }

    proptest! {
        #[test]
        fn every_share_is_there_and_fits(files in 0u64..100_000, megabytes in prop::option::of(1u64..4096)) {
            let memory = megabytes.map(|m| m << 20);
            let all = Capacity::derive(files, memory);
            for share in [all.connections, all.streams, all.peers, all.handshakes, all.per_source] {
                prop_assert!(share >= 1, "{all:?}");
                prop_assert!(share <= all.descriptors, "{all:?}");
            }
            if let Some(bytes) = memory.filter(|bytes| *bytes >= 64 << 20) {
                let worst = (all.connections + all.streams) * limits::CONNECTION_BYTES;
                let worst = (worst + all.window_growth) as u64 + limits::BASE_BYTES;
                prop_assert!(worst <= bytes, "{all:?}");
            }
        }
    }

    #[test]
    fn the_smallest_memory_limit_counts() {
        let files = |path: &Path| {
            let text = match path.to_str().unwrap() {
                "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes" => "9223372036854771712",
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes" => "134217728\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "268435456\n",
                "/sys/fs/cgroup/pod/memory.max" => "max\n",
                "/sys/fs/cgroup/memory.max" => "67108864\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        for (groups, limit) in [
            ("4:cpu,cpuacct:/x\n3:memory:/a/b\n", Some(134_217_728)),
            ("3:memory:/elsewhere\n", Some(268_435_456)),
            ("0::/pod\n", Some(67_108_864)),
            ("0::/\n", Some(67_108_864)),
            ("5:cpu:/\nnonsense\n", None),
            ("", None),
        ] {
            assert_eq!(memory_limit(groups, files), limit, "{groups:?}");
        }
        assert_eq!(memory_limit("0::/\n", |_| Some("max".to_owned())), None);
    }
}
