//! Expression and schema to what is asked of each item: every selector exists, every operator fits its
//! field, every value has the field's type, every pattern compiles. Nothing can fail after this.

use std::sync::Arc;

use regex_lite::{Regex, RegexBuilder};

use super::schema::{Field, Kind};
use super::{Expression, FilterError, Match, Operator, Schema, Test, text};
use crate::api::limits::{MAX_FILTER_DEPTH, MAX_FILTER_PATTERN_MEMORY, MAX_FILTER_PATTERNS};
use crate::api::query::parse_bool;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Match(Bound),
}

/// A test of one field.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) selector: Vec<String>,
    pub(super) operator: Operator,
    pub(super) value: Wanted,
}

/// What a field is compared with.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Nothing,
    Text(String),
    Number(i64),
    Bool(bool),
    Pattern(Arc<Regex>),
}

pub(super) fn bind(expression: &Expression, schema: Schema) -> Result<Node, FilterError> {
    Binder { schema, patterns: 0 }.node(expression)
}

struct Binder {
    schema: Schema,
    patterns: usize,
}

impl Binder {
    fn node(&mut self, expression: &Expression) -> Result<Node, FilterError> {
        Ok(match expression {
            Expression::Not(inner) => Node::Not(Box::new(self.node(inner)?)),
            Expression::All(parts) => Node::All(self.nodes(parts)?),
            Expression::Any(parts) => Node::Any(self.nodes(parts)?),
            Expression::Match(found) => Node::Match(self.bound(found)?),
        })
    }

    fn nodes(&mut self, parts: &[Expression]) -> Result<Vec<Node>, FilterError> {
        parts.iter().map(|part| self.node(part)).collect()
    }

    fn bound(&mut self, found: &Match) -> Result<Bound, FilterError> {
        let kind = kind_of(&found.selector, self.schema)?;
        let selector = found.selector.join(".");
        if !allows(kind, found.operator.test) {
            let name = found.operator.name();
            return Err(invalid(format!("Invalid match operator {name:?} for selector {selector:?}")));
        }
        let value = match &found.value {
            None => Wanted::Nothing,
            Some(raw) if found.operator.test == Test::Matches => self.pattern(raw)?,
            Some(raw) => typed(kind, raw).map_err(|why| {
                invalid(format!("Failed to coerce value {raw:?} for selector {selector:?}: {why}"))
            })?,
        };
        Ok(Bound { selector: found.selector.clone(), operator: found.operator, value })
    }

    fn pattern(&mut self, raw: &str) -> Result<Wanted, FilterError> {
        self.patterns += 1;
        if self.patterns > MAX_FILTER_PATTERNS {
            return Err(FilterError::TooManyPatterns);
        }
        let depth = u32::try_from(MAX_FILTER_DEPTH).unwrap_or(u32::MAX);
        let built =
            RegexBuilder::new(raw).size_limit(MAX_FILTER_PATTERN_MEMORY).nest_limit(depth).build();
        let pattern = built.map_err(|fault| {
            invalid(format!("Failed to compile regular expression {raw:?}: {fault}"))
        })?;
        Ok(Wanted::Pattern(Arc::new(pattern)))
    }
}

fn invalid(detail: String) -> FilterError {
    FilterError::Invalid(detail)
}

fn kind_of(selector: &[String], schema: Schema) -> Result<&'static Kind, FilterError> {
    let mut found: Option<&'static Kind> = None;
    for (depth, name) in selector.iter().enumerate() {
        let next = match found {
            None => field(schema, name),
            Some(Kind::Object(fields) | Kind::List(fields)) => field(fields, name),
            Some(Kind::Map(values)) => Some(*values),
            Some(Kind::Text | Kind::Number | Kind::Bool | Kind::Texts) => None,
        };
        let selector = || selector[..=depth].join(".");
        found = Some(next.ok_or_else(|| invalid(format!("Selector {:?} is not valid", selector())))?);
    }
    found.ok_or_else(|| invalid("Invalid selector: \"\"".to_owned()))
}

fn field(fields: &'static [Field], name: &str) -> Option<&'static Kind> {
    fields.iter().find(|field| field.name == name).map(|field| &field.kind)
}

/// Whether a field of this kind can be asked this.
const fn allows(kind: &Kind, test: Test) -> bool {
    match kind {
        Kind::Text => matches!(test, Test::Equal | Test::In | Test::Matches),
        Kind::Number | Kind::Bool => matches!(test, Test::Equal),
        Kind::Texts | Kind::Map(_) => matches!(test, Test::In | Test::Empty),
        Kind::List(_) => matches!(test, Test::Empty),
        Kind::Object(_) => false,
    }
}

fn typed(kind: &Kind, raw: &str) -> Result<Wanted, String> {
    match kind {
        Kind::Number => text::parse_int(raw)
            .map(Wanted::Number)
            .map_err(|why| format!("strconv.ParseInt: parsing {raw:?}: {why}")),
        Kind::Bool => parse_bool(raw)
            .map(Wanted::Bool)
            .ok_or_else(|| format!("strconv.ParseBool: parsing {raw:?}: invalid syntax")),
        Kind::Text | Kind::Texts | Kind::Map(_) | Kind::List(_) | Kind::Object(_) => {
            Ok(Wanted::Text(raw.to_owned()))
        }
    }
}
