//! The wire between two sidecars: frames, credit, lanes and the pool that keeps them.
//!
//! A *lane* is one mutual-TLS connection. With ALPN `weft/1` it carries many application streams in
//! small frames; without it (Connect mode, as Consul's own proxies speak) it carries one stream as
//! raw bytes. Everything of a lane happens on the thread that made it: a driver task owns the TLS
//! session and the socket, and each stream's task moves bytes between its application and the lane.
//!
//! `proxy` is the only caller. The wire format is specified in `docs/tunnel.md`.

mod bell;
mod cell;
pub mod codec;
mod driver;
pub mod flow;
pub mod handshake;
mod incoming;
mod lane;
pub mod pool;
mod pump;
mod scratch;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod traffic;
mod wire;

pub use driver::Driver;
pub use lane::{Lane, LaneEnd, Mode};
pub use scratch::release as release_buffers;
pub use stream::{End, OpenRequest, Stream, Verdict};
