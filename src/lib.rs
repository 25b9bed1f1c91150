//! Weft: a service mesh in one binary.
pub mod agent;
pub mod api;
pub mod app;
pub mod ca;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod control;
pub mod health;
pub mod model;
pub mod net;
pub mod pb;
pub mod proxy;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
