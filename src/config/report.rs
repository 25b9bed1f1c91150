//! Collects the faults of one file while it is parsed and decoded.

use super::diagnostic::{Code, Diagnostic, Severity};
use super::excerpt::Source;
use super::value::Span;

/// Most faults kept for one file; more would bury the first ones, and cost memory.
pub(super) const MAX_FAULTS: usize = 50;

/// Where a text comes from; the API has a few liberties that files do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    File,
    Api,
}

/// The faults of one source. Beyond `MAX_FAULTS` they are only counted.
pub(super) struct Report<'s> {
    source: &'s Source,
    origin: Origin,
    faults: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
    /// Whether part of the text could not be read, so that what seems to be missing may be there.
    damaged: bool,
    /// Takes the faults that are only counted, so that callers need not care.
    spare: Diagnostic,
}

impl<'s> Report<'s> {
    pub(super) fn new(source: &'s Source, origin: Origin) -> Self {
        let spare = Diagnostic::of_file(Severity::Error, Code::Limit, "", "");
        Self { source, origin, faults: Vec::new(), errors: 0, left_out: 0, damaged: false, spare }
    }

    pub(super) const fn source(&self) -> &'s Source {
        self.source
    }

    pub(super) fn is_api(&self) -> bool {
        self.origin == Origin::Api
    }

    /// Number of errors so far, also of those not kept.
    pub(super) const fn errors(&self) -> usize {
        self.errors
    }

    /// Whether further faults are only counted, so that no work need go into their words.
    pub(super) fn is_full(&self) -> bool {
        self.faults.len() >= MAX_FAULTS
    }

    pub(super) fn error(&mut self, code: Code, span: Span, message: impl AsRef<str>) -> &mut Diagnostic {
        self.errors += 1;
        self.add(Severity::Error, code, span, message.as_ref())
    }

    /// Something that must be there is not. In a damaged file it counts without a word.
    pub(super) fn missing(&mut self, span: Span, message: impl AsRef<str>) -> &mut Diagnostic {
        if self.damaged {
            self.errors += 1;
            return &mut self.spare;
        }
        self.error(Code::Missing, span, message)
    }

    /// From here on nothing is reported as missing.
    pub(super) const fn mark_damaged(&mut self) {
        self.damaged = true;
    }

    pub(super) fn warning(
        &mut self,
        code: Code,
        span: Span,
        message: impl AsRef<str>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning, code, span, message.as_ref())
    }

    /// All faults in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        if self.left_out > 0 {
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            let message = format!("{} more faults in this file are not shown", self.left_out);
            let mut rest = Diagnostic::of_file(severity, Code::Limit, &self.source.name, &message);
            rest.help("mend the ones above and check again");
            self.faults.push(rest);
        }
        self.faults
    }

    fn add(&mut self, severity: Severity, code: Code, span: Span, message: &str) -> &mut Diagnostic {
        if self.is_full() {
            self.left_out += 1;
            return &mut self.spare;
        }
        let fault = Diagnostic::at(self.source, span, severity, code, message);
        self.faults.push(fault);
        self.faults.last_mut().unwrap_or(&mut self.spare)
    }
}
