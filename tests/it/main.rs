//! All integration tests link once, as one program.

mod architecture;
mod plane;
mod tunnel;
