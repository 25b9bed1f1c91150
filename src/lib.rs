//! Weft: a service mesh in one binary.
pub mod agent;
pub mod ca;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod health;
pub mod model;
pub mod pb;
pub mod store;
pub mod telemetry;
pub mod tls;
