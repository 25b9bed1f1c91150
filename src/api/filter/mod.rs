//! Consul's `?filter=` expressions: the language of go-bexpr over the JSON that an endpoint answers.
//!
//! Handlers get a [`Filter`] from `query` and ask it about each item of their answer. Everything here
//! is pure. An expression is read by `parse`, checked against the [`Schema`] of the endpoint by `bind`,
//! and asked by `eval`; its bounds stand in `api::limits`. Texts of faults are those of Consul 1.8.7,
//! the expected tokens of a syntax fault included; only what follows `Failed to compile regular
//! expression "…": ` is our engine's.

mod bind;
mod eval;
mod parse;
pub mod schema;
mod text;

use serde::Serialize;

pub use schema::Schema;

use super::limits::{MAX_FILTER_BYTES, MAX_FILTER_DEPTH, MAX_FILTER_PATTERNS};

/// A compiled expression, bound to the items of one endpoint.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Nothing is asked by an empty expression.
    root: Option<bind::Node>,
    schema: Schema,
}

/// Why an expression was refused; the text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// In Consul's words.
    #[error("Failed to create boolean expression evaluator: {0}")]
    Invalid(String),
    #[error("the filter is longer than {MAX_FILTER_BYTES} bytes")]
    TooLong,
    #[error("the filter nests deeper than {MAX_FILTER_DEPTH} levels")]
    TooDeep,
    #[error("the filter has more than {MAX_FILTER_PATTERNS} regular expressions")]
    TooManyPatterns,
}

impl Filter {
    /// Reads an expression and checks its selectors, operators and values against `schema`. An empty
    /// one keeps everything.
    ///
    /// # Errors
    /// The expression is malformed, does not fit the schema, or is beyond a bound.
    pub fn compile(text: &str, schema: Schema) -> Result<Self, FilterError> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLong);
        }
        if text.is_empty() {
            return Ok(Self { root: None, schema });
        }
        let root = bind::bind(&parse::parse(text)?, schema)?;
        Ok(Self { root: Some(root), schema })
    }

    /// Whether an item of the answer is wanted. What cannot be written as JSON is not.
    pub fn keeps<T: Serialize + ?Sized>(&self, item: &T) -> bool {
        let Some(root) = &self.root else { return true };
        serde_json::to_value(item).is_ok_and(|value| eval::holds(root, self.schema, &value))
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.root.is_none()
    }
}

/// An expression as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Not(Box<Self>),
    /// Two or more, all of which must hold.
    All(Vec<Self>),
    /// Two or more, one of which must hold.
    Any(Vec<Self>),
    Match(Match),
}

/// `selector operator value`, whatever order they were written in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Match {
    selector: Vec<String>,
    operator: Operator,
    /// Unquoted. Only tests for emptiness have none.
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    test: Test,
    negated: bool,
}

/// What an operator asks. `contains` is `in` turned around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    In,
    Empty,
    Matches,
}

impl Operator {
    const fn is(test: Test) -> Self {
        Self { test, negated: false }
    }

    const fn not(test: Test) -> Self {
        Self { test, negated: true }
    }

    /// Its name in the texts of faults.
    const fn name(self) -> &'static str {
        match (self.test, self.negated) {
            (Test::Equal, false) => "Equal",
            (Test::Equal, true) => "Not Equal",
            (Test::In, false) => "In",
            (Test::In, true) => "Not In",
            (Test::Empty, false) => "Is Empty",
            (Test::Empty, true) => "Is Not Empty",
            (Test::Matches, false) => "Matches",
            (Test::Matches, true) => "Not Matches",
        }
    }
}

#[cfg(test)]
mod tests;
