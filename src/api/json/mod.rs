//! The shapes of all answers, as pure functions from catalog records. Names, casing and order of the
//! fields are those of Consul's answers; `weft` holds the shapes of Weft's own endpoints.

pub(super) mod agent;
pub mod ca;
pub(super) mod check;
pub(super) mod intention;
pub(super) mod kv;
pub(super) mod metrics;
pub(super) mod node;
pub(super) mod roots;
pub(super) mod service;
pub mod tokens;
pub mod weft;

use serde::Serialize;

/// `{}`: a block that has nothing to show.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Empty {}
