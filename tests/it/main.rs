//! All integration tests link once, as one program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "a program of tests has no outside")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes are cut on purpose")]

mod api;
mod architecture;
mod cli;
mod config_corpus;
mod connect_mode;
mod http;
mod plane;
mod tunnel;
