//! What went wrong, for a person: the one error of this program. Nothing is decided on its text.

use std::fmt;

#[derive(Debug)]
pub struct Fault(String);

pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when an error came up.
pub trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|cause| Fault(format!("{what}: {cause}")))
    }
}
