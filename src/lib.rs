//! Weft: a service mesh in one binary.
pub mod agent;
pub mod ca;
pub mod catalog;
pub mod control;
pub mod health;
pub mod model;
pub mod pb;
pub mod store;
pub mod telemetry;
pub mod tls;
