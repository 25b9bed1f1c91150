//! Runs checks: probes over HTTP, TCP, UDP, gRPC and HTTP/2, programs, TTL clocks and aliases.
//!
//! `app` starts a `Runner` for the checks of a node or of a sidecar and forwards its reports to the
//! catalog or the control plane. Thresholds are in `model::check`; `board` decides what is news;
//! `probe` and `dial` own the sockets; `runner` owns the tasks. Whatever a check does, its memory and
//! its time are bounded, and a slow receiver of reports never delays a check.

mod board;
mod command;
mod dial;
mod h2ping;
mod http;
mod probe;
mod runner;
mod udp;

pub use runner::{Runner, Workload};
