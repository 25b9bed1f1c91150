//! All integration tests link once, as one program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "in helpers of tests as in tests: a fault ends the test, and nobody else links this"
)]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes are cut on purpose")]

mod access;
mod api;
mod architecture;
mod bans;
mod cli;
mod config_corpus;
mod connect_mode;
mod connect_openssl;
mod consul;
mod control;
mod crowds;
mod dns;
mod etcd;
mod failover;
mod fidelity;
mod fuzz_corpus;
mod held_by;
mod hostile;
mod http;
mod kv;
mod mesh;
mod metrics;
mod netns;
mod overload;
mod pace;
mod plane;
mod process;
mod programs;
mod ttl;
mod tunnel;
mod workload;
