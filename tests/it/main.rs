//! All integration tests link once, as one program.

mod api;
mod cli;
mod http;
mod plane;
mod tunnel;
