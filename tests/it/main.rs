//! All integration tests link once, as one program.

mod plane;
mod tunnel;
