//! What is wrong with a file, where, and what to do about it.
//!
//! A diagnostic carries its excerpt, so that it can be shown long after the file was read. Nothing
//! in it is trusted: control characters are escaped, long lines are cut, and what follows a word
//! such as `token` is masked.

use std::fmt;

use serde::{Serialize, Serializer};

use super::excerpt::{Excerpt, Source, printable};
use super::value::Span;

/// Longest help that stands beside the caret; a longer one gets its own line.
const MAX_INLINE_HELP_CHARS: usize = 44;

/// Most characters of a message: it may quote what a file says, however long that is.
const MAX_TEXT_CHARS: usize = 400;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is used, but something in it has no effect or was adjusted.
    Warning,
    /// The configuration is refused.
    Error,
}

impl Severity {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The class of a fault; stable, so that scripts may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A path that is missing, cannot be read or has the wrong extension.
    File,
    /// A limit on size, depth or count was passed, or the bytes are not text.
    Limit,
    /// The text does not follow the notation.
    Syntax,
    /// A key nobody knows at this place.
    UnknownKey,
    /// A key of Consul's that is accepted and does nothing here.
    NoEffect,
    /// A key or value of Consul's that is refused, because leaving it out would change who may
    /// talk, where traffic goes or what is checked.
    Unsupported,
    /// A value of the wrong type.
    Type,
    /// A value outside what its key allows.
    Value,
    /// A key that must be there.
    Missing,
    /// The same thing twice.
    Duplicate,
    /// Keys that exclude each other.
    Conflict,
    /// A value that was changed to one that works, or will surprise.
    Adjusted,
}

impl Code {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "W0201",
            Self::Limit => "W0202",
            Self::Syntax => "W0203",
            Self::UnknownKey => "W0204",
            Self::NoEffect => "W0205",
            Self::Unsupported => "W0206",
            Self::Type => "W0207",
            Self::Value => "W0208",
            Self::Missing => "W0209",
            Self::Duplicate => "W0210",
            Self::Conflict => "W0211",
            Self::Adjusted => "W0212",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One fault. `Display` shows it as compilers do; `Serialize` gives the machine-readable form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    pub file: String,
    /// From 1; 0 when the fault is not at a place in the file.
    pub line: usize,
    /// From 1, in characters; 0 when the fault is not at a place in the file.
    pub column: usize,
    /// The column after the last marked character of that line.
    pub end_column: usize,
    pub message: String,
    pub help: Option<String>,
    /// What Consul's HTTP API answers to the same fault.
    #[serde(skip)]
    pub(super) consul: Option<String>,
    #[serde(skip)]
    pub(super) excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// A fault of a whole file or path.
    pub(super) fn of_file(severity: Severity, code: Code, file: &str, message: &str) -> Self {
        Self {
            severity,
            code,
            file: printable(file, MAX_TEXT_CHARS),
            line: 0,
            column: 0,
            end_column: 0,
            message: printable(message, MAX_TEXT_CHARS),
            help: None,
            consul: None,
            excerpt: None,
        }
    }

    /// A fault at a place in a text.
    pub(super) fn at(
        source: &Source,
        span: Span,
        severity: Severity,
        code: Code,
        message: &str,
    ) -> Self {
        let (place, excerpt) = source.show(span);
        Self {
            line: place.line,
            column: place.column,
            end_column: place.end_column,
            excerpt: Some(excerpt),
            ..Self::of_file(severity, code, &source.name, message)
        }
    }

    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Adds what to do next.
    pub(super) fn help(&mut self, help: impl AsRef<str>) -> &mut Self {
        self.help = Some(printable(help.as_ref(), MAX_TEXT_CHARS));
        self
    }

    /// Adds Consul's words for the same fault.
    pub(super) fn consul(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.consul = Some(text.as_ref().chars().take(MAX_TEXT_CHARS).collect());
        self
    }

    fn fmt_excerpt(&self, excerpt: &Excerpt, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = number.len();
        let inline = self.help.as_deref().filter(|help| is_inline(help));
        writeln!(f, "{:gutter$}--> {}:{}:{}", "", self.file, self.line, self.column)?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{number} | {}", excerpt.text)?;
        write!(
            f,
            "{:gutter$} | {:indent$}{:^<width$}",
            "",
            "",
            "",
            indent = excerpt.indent,
            width = excerpt.width
        )?;
        if let Some(help) = inline {
            write!(f, " {help}")?;
        }
        writeln!(f)
    }
}

fn is_inline(help: &str) -> bool {
    help.chars().count() <= MAX_INLINE_HELP_CHARS
}

impl fmt::Display for Diagnostic {
    /// Ends with a newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}[{}]: {}", self.severity.as_str(), self.code.as_str(), self.message)?;
        let gutter = self.line.to_string().len();
        match &self.excerpt {
            Some(excerpt) => self.fmt_excerpt(excerpt, f)?,
            None => writeln!(f, "{:gutter$}--> {}", "", self.file)?,
        }
        match &self.help {
            Some(help) if self.excerpt.is_none() || !is_inline(help) => {
                writeln!(f, "{:gutter$} = help: {help}", "")
            }
            _ => Ok(()),
        }
    }
}
