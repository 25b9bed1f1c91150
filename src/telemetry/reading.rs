//! What a server reads only when somebody scrapes: the state of the mesh, not events.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::metrics::names::{self, Name};

/// One reading. Labels come from the catalog and from authenticated sidecars; whoever reads bounds them.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub proxies_connected: usize,
    /// Number of entries of each kind: `nodes`, `services`, `instances`, `checks`, `intentions`, `kv_keys`,
    /// `kv_sessions`, `etcd_keys`, `etcd_leases`.
    pub catalog: Vec<(&'static str, usize)>,
    /// Number of checks in each status.
    pub checks: Vec<(&'static str, usize)>,
    pub edges: Vec<EdgeReading>,
}

/// Sums of one edge and one reason, since the server started.
#[derive(Debug, Clone)]
pub struct EdgeReading {
    pub source: String,
    pub destination: String,
    pub reason: &'static str,
    pub connections: u64,
    /// From the application that dialled.
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

/// Makes a reading.
pub type Read = dyn Fn() -> Reading + Send + Sync;

/// Encodes a reading; nothing before there is somebody who reads, and nothing after he has gone. The
/// reference is weak because what is read may hold handles of these metrics.
#[derive(Clone, Default)]
pub(super) struct Readings(pub(super) Arc<OnceLock<Weak<Read>>>);

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").field("set", &self.0.get().is_some()).finish()
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(read) = self.0.get().and_then(Weak::upgrade) else { return Ok(()) };
        let Reading { proxies_connected, catalog, checks, edges } = read();
        let connected = ConstGauge::new(gauge(proxies_connected));
        let (name, help) = names::PROXIES_CONNECTED;
        connected.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        let kinds = catalog.into_iter().map(|(kind, count)| ([("kind", kind)], gauge(count)));
        gauges(&mut encoder, names::CATALOG_SIZE, kinds)?;
        let statuses = checks.into_iter().map(|(status, count)| ([("status", status)], gauge(count)));
        gauges(&mut encoder, names::CATALOG_CHECKS, statuses)?;
        let connections = edges.iter().map(|edge| {
            let EdgeReading { source, destination, reason, connections, .. } = edge;
            ([("src", source.as_str()), ("dst", destination), ("reason", reason)], *connections)
        });
        counters(&mut encoder, names::EDGE_CONNECTIONS, connections)?;
        counters(&mut encoder, names::EDGE_BYTES, bytes(&edges))
    }
}

/// Bytes of each pair and way, over all reasons. Edges of one pair stand next to each other.
fn bytes(edges: &[EdgeReading]) -> impl Iterator<Item = ([(&str, &str); 3], u64)> {
    let pairs =
        edges.chunk_by(|one, next| (&one.source, &one.destination) == (&next.source, &next.destination));
    pairs.flat_map(|pair| {
        let sum = |of: fn(&EdgeReading) -> u64| pair.iter().map(of).fold(0, u64::saturating_add);
        let ways =
            [("sent", sum(|edge| edge.bytes_sent)), ("received", sum(|edge| edge.bytes_received))];
        pair.first().into_iter().flat_map(move |edge| {
            let labels = |way| [("src", edge.source.as_str()), ("dst", &edge.destination), ("way", way)];
            ways.map(|(way, bytes)| (labels(way), bytes))
        })
    })
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): Name,
    samples: impl Iterator<Item = (L, i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): Name,
    samples: impl Iterator<Item = (L, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
