//! How a command fails: what failed, the evidence, and the next step, in three lines; and the exit
//! codes that scripts rely on.

use std::fmt;

/// Exit codes of every command; shown in `weft --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// The answer is no: denied, unhealthy, invalid. Also faults that have no code of their own.
    Negative = 1,
    Usage = 2,
    Unreachable = 3,
    Permission = 4,
    NotFound = 5,
    Timeout = 6,
}

impl Exit {
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Classes of faults. Each has a code that stays the same when the words change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An argument or a variable of the environment cannot be used.
    Usage,
    Unreachable,
    Timeout,
    /// What answered is no weft server, or the server failed.
    Answer,
    Permission,
    NotFound,
    /// The server understood, and refused what was asked.
    Refused,
    /// Something on this machine: a file, a port, a process.
    Local,
    /// The command is not part of this build.
    NotBuiltIn,
}

impl Fault {
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Usage => "W0300",
            Self::Unreachable => "W0301",
            Self::Timeout => "W0302",
            Self::Answer => "W0303",
            Self::Permission => "W0304",
            Self::NotFound => "W0305",
            Self::Refused => "W0306",
            Self::Local => "W0307",
            Self::NotBuiltIn => "W0308",
        }
    }

    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Usage => Exit::Usage,
            Self::Unreachable => Exit::Unreachable,
            Self::Timeout => Exit::Timeout,
            Self::Permission => Exit::Permission,
            Self::NotFound => Exit::NotFound,
            Self::Answer | Self::Refused | Self::Local | Self::NotBuiltIn => Exit::Negative,
        }
    }
}

/// A failed command. `Display` is the three lines, without a newline at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    pub fault: Fault,
    pub what: String,
    /// Where the value at fault came from, or what was said.
    pub evidence: String,
    /// What to do next.
    pub next: String,
    /// What Consul's command line says in this case; `what` when there is nothing.
    pub consul: Option<String>,
}

impl CliError {
    pub fn new(
        fault: Fault,
        what: impl Into<String>,
        evidence: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        let (what, evidence, next) = (what.into(), evidence.into(), next.into());
        Self { fault, what, evidence, next, consul: None }
    }

    /// Says `text` when called as Consul.
    #[must_use]
    pub fn in_consul(self, text: impl Into<String>) -> Self {
        Self { consul: Some(text.into()), ..self }
    }

    /// The whole message when called as Consul.
    #[must_use]
    pub fn as_consul(&self) -> &str {
        self.consul.as_deref().unwrap_or(&self.what)
    }
}

/// Says what was tried before what went wrong, when called as Consul.
pub trait Lead<T> {
    /// Puts `lead` and a colon before Consul's message.
    ///
    /// # Errors
    /// Those of the result.
    fn lead(self, lead: impl fmt::Display) -> Result<T, CliError>;
}

impl<T> Lead<T> for Result<T, CliError> {
    fn lead(self, lead: impl fmt::Display) -> Self {
        self.map_err(|error| {
            let text = format!("{lead}: {}", error.as_consul());
            error.in_consul(text)
        })
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.fault.code(), self.what)?;
        writeln!(f, "  from: {}", self.evidence)?;
        write!(f, "  try:  {}", self.next)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_by_table() {
        let all = [
            (Fault::Usage, "W0300", 2),
            (Fault::Unreachable, "W0301", 3),
            (Fault::Timeout, "W0302", 6),
            (Fault::Answer, "W0303", 1),
            (Fault::Permission, "W0304", 4),
            (Fault::NotFound, "W0305", 5),
            (Fault::Refused, "W0306", 1),
            (Fault::Local, "W0307", 1),
            (Fault::NotBuiltIn, "W0308", 1),
        ];
        for (fault, code, exit) in all {
            assert_eq!((fault.code(), fault.exit().code()), (code, exit));
        }
    }

    #[test]
    fn an_error_has_three_lines() {
        let error =
            CliError::new(Fault::NotFound, "no service `wbe`", "3 services known", "weft services");
        assert_eq!(
            error.to_string(),
            "error[W0305]: no service `wbe`\n  from: 3 services known\n  try:  weft services"
        );
    }
}
