//! All integration tests link once, as one program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod api;
mod architecture;
mod cli;
mod config_corpus;
mod connect_mode;
mod control;
mod http;
mod plane;
mod tunnel;
