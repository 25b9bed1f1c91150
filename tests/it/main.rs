//! All integration tests link once, as one program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "in helpers of tests as in tests: a fault ends the test, and nobody else links this"
)]

mod architecture;
mod control;
mod plane;
mod tunnel;
