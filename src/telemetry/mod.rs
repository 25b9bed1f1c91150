//! What is seen from outside: metric names, access log, log set-up, readiness and the admin endpoint.
//!
//! Everyone holds handles of this module (`ProxyMetrics`, `Readiness`, …) and calls plain methods on
//! them; nobody else names a metric or an access-log field. Nothing here ever waits or fails on the
//! data path: handles are resolved once per connection and then only add to atomics.

pub mod access;
pub mod admin;
pub mod edges;
pub mod feed;
mod lines;
pub mod logging;
pub mod metrics;
mod process;
pub mod readiness;
pub mod reading;
pub mod server;

pub use access::{AccessRecord, Emitted};
pub use edges::EdgeMetrics;
pub use metrics::{LaneGuard, ProxyMetrics};
pub use readiness::{Pending, Readiness};
pub use reading::{EdgeReading, Reading};
pub use server::ServerMetrics;

/// Label and log word of the side that dials for its application.
pub const OUTBOUND: &str = "outbound";
/// Label and log word of the side that accepts for its application.
pub const INBOUND: &str = "inbound";
