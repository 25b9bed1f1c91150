//! `/v1/agent/host`: the machine, as far as the kernel tells.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::response::Response;
use serde_json::{Value, json};

use crate::api::query::Params;
use crate::api::reply;
use crate::model::time::epoch_ms;

pub(in crate::api) async fn host(params: Params) -> Response {
    // Files of /proc are made in memory and never wait for a disk.
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let system = rustix::system::uname();
    let shape = json!({
        "Memory": memory(&read("/proc/meminfo")),
        "CPU": cpus(&read("/proc/cpuinfo")),
        "Host": {
            "hostname": system.nodename().to_string_lossy(),
            "uptime": uptime_s(&read("/proc/uptime")),
            "os": std::env::consts::OS,
            "kernelVersion": system.release().to_string_lossy(),
            "kernelArch": system.machine().to_string_lossy(),
        },
        "CollectionTime": epoch_ms(SystemTime::now()).saturating_mul(1_000_000),
        "Errors": null,
    });
    reply::json(params.layout, &shape)
}

/// Bytes, from kibibytes by name.
fn memory(text: &str) -> Value {
    let sizes: BTreeMap<&str, u64> = text.lines().filter_map(size).collect();
    let of = |name: &str| sizes.get(name).copied().unwrap_or(0);
    let (total, available) = (of("MemTotal"), of("MemAvailable"));
    json!({
        "total": total,
        "available": available,
        "used": total.saturating_sub(available),
        "free": of("MemFree"),
        "active": of("Active"),
        "inactive": of("Inactive"),
        "buffers": of("Buffers"),
        "cached": of("Cached"),
        "shared": of("Shmem"),
        "slab": of("Slab"),
        "pagetables": of("PageTables"),
        "swapcached": of("SwapCached"),
        "commitlimit": of("CommitLimit"),
        "committedas": of("Committed_AS"),
        "swaptotal": of("SwapTotal"),
        "swapfree": of("SwapFree"),
    })
}

fn size(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let kibibytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, kibibytes.saturating_mul(1024)))
}

fn cpus(text: &str) -> Vec<Value> {
    let models = text.lines().filter(|line| line.starts_with("model name"));
    let name = |line: &str| line.split_once(':').map_or("", |(_, name)| name.trim()).to_owned();
    let cpu = |(number, line): (usize, &str)| json!({ "cpu": number, "modelName": name(line) });
    models.enumerate().map(cpu).collect()
}

fn uptime_s(text: &str) -> u64 {
    let whole = text.split(['.', ' ']).next().unwrap_or_default();
    whole.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let memory =
            memory("MemTotal:       24684084 kB\nMemAvailable:   24000000 kB\nHugePages_Total:  0\n");
        assert_eq!(
            (&memory["total"], &memory["used"]),
            (&25_276_502_016_u64.into(), &700_502_016.into())
        );
        let cpus = cpus("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n\nmodel name\t: B\n");
        assert_eq!(cpus[1], json!({ "cpu": 1, "modelName": "B" }));
        assert_eq!(uptime_s("350735.47 234388.90"), 350_735);
    }
}
