//! All integration tests link once, as one program.

mod architecture;
mod connect_mode;
mod plane;
mod tunnel;
