//! The HTTP API: answers compared with those of a real Consul 1.8.7, and its defences.

mod agent;
mod answers;
mod authority;
mod bans;
mod blocking;
mod config_entries;
mod connect;
mod conventions;
mod defence;
mod filter;
mod intentions;
mod shapes;
mod weft;
