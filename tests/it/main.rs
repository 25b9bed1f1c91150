//! All integration tests link once, as one program.

#![allow(
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed assumption fails the test, and nothing outside uses these helpers"
)]

mod architecture;
mod plane;
mod tunnel;
