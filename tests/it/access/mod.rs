//! Who may use the HTTP API: every route with every kind of caller, and the program around it.

mod audit;
pub(crate) mod routes;
mod tokens;
