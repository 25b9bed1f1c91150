//! What processes and the whole machine used, read from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// The given processes and everything that descends from them (nginx has workers).
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Fields of `/proc/PID/stat` after the name, which may contain anything: the state is at 0.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Seconds of CPU, user and system, that process trees have used, with children they have waited for.
pub fn cpu_s(roots: &[u32]) -> f64 {
    let of = |pid| {
        let fields = stat(pid)?;
        fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()
    };
    let ticks: u64 = tree(roots).into_iter().filter_map(of).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds of CPU that this very process has used, without its children.
pub fn own_cpu_s() -> f64 {
    let fields = stat(std::process::id()).unwrap_or_default();
    let ticks: u64 =
        fields.get(11..13).into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds of CPU that everything on this machine has used since it started: user, nice, system, irq,
/// softirq.
pub fn machine_cpu_s() -> f64 {
    all_cores_s(&[0, 1, 2, 5, 6])
}

/// Seconds of CPU that the hypervisor gave to other machines while this one wanted them.
pub fn stolen_cpu_s() -> f64 {
    all_cores_s(&[7])
}

/// Sum of these columns of `/proc/stat`.
fn all_cores_s(columns: &[usize]) -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let ticks: u64 = columns.iter().filter_map(|&index| fields.get(index)).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Memory of process trees, in KiB.
#[derive(Default, Clone, Copy)]
pub struct Memory {
    pub rss_kib: f64,
    /// Shared pages counted in part: what the processes really add.
    pub pss_kib: f64,
}

pub fn memory(roots: &[u32]) -> Memory {
    let mut total = Memory::default();
    for pid in tree(roots) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(key), Some(kib)) =
                (words.next(), words.next().and_then(|word| word.parse::<f64>().ok()))
            else {
                continue;
            };
            match key {
                "Rss:" => total.rss_kib += kib,
                "Pss:" => total.pss_kib += kib,
                _ => {}
            }
        }
    }
    total
}

/// Threads of process trees.
pub fn threads(roots: &[u32]) -> usize {
    tree(roots)
        .into_iter()
        .filter_map(|pid| Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count()))
        .sum()
}

/// Waits until the machine does next to nothing, or until `most` has passed.
pub fn wait_until_quiet(share: f64, cores: usize, most: Duration) {
    const WINDOW: Duration = Duration::from_millis(300);
    let deadline = Instant::now() + most;
    loop {
        let before = machine_cpu_s();
        std::thread::sleep(WINDOW);
        let busy = (machine_cpu_s() - before) / WINDOW.as_secs_f64() / cores as f64;
        if busy <= share || Instant::now() >= deadline {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let own = [std::process::id()];
        let deadline = Instant::now() + Duration::from_secs(30);
        let before = own_cpu_s();
        while own_cpu_s() < before + 0.1 {
            assert!(
                Instant::now() < deadline,
                "reading /proc all the time uses CPU, and it is not seen"
            );
        }
        assert!(cpu_s(&own) >= before + 0.1 && machine_cpu_s() > cpu_s(&own));
        let memory = memory(&own);
        assert!(memory.rss_kib > 500.0 && memory.pss_kib > 0.0 && memory.pss_kib <= memory.rss_kib);
        assert!(threads(&own) >= 1);
    }
}
