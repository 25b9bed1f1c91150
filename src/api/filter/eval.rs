//! Whether an item holds what a bound expression asks. Answers leave out fields that are empty, so a
//! field that is not there has the empty value of its kind; only keys of maps can be absent.

use serde_json::Value;

use super::bind::{Bound, Node, Wanted};
use super::schema::{Field, Kind};
use super::{Schema, Test};

const ABSENT: Value = Value::Null;

pub(super) fn holds(node: &Node, schema: Schema, item: &Value) -> bool {
    match node {
        Node::Not(inner) => !holds(inner, schema, item),
        Node::All(parts) => parts.iter().all(|part| holds(part, schema, item)),
        Node::Any(parts) => parts.iter().any(|part| holds(part, schema, item)),
        Node::Match(bound) => field_holds(bound, &bound.selector, schema, item),
    }
}

/// Goes on inside of an object.
fn field_holds(bound: &Bound, path: &[String], fields: &'static [Field], object: &Value) -> bool {
    let Some((name, rest)) = path.split_first() else { return false };
    let Some(field) = fields.iter().find(|field| field.name == name) else { return false };
    let value = object.get(name).unwrap_or(&ABSENT);
    value_holds(bound, rest, &field.kind, value)
}

fn value_holds(bound: &Bound, path: &[String], kind: &'static Kind, value: &Value) -> bool {
    let Some((key, rest)) = path.split_first() else {
        return test_holds(bound, value) != bound.operator.negated;
    };
    match kind {
        Kind::Object(fields) => field_holds(bound, path, fields, value),
        // One item is enough, also for the negated operators.
        Kind::List(fields) => value
            .as_array()
            .into_iter()
            .flatten()
            .any(|element| field_holds(bound, path, fields, element)),
        Kind::Map(values) => match value.get(key) {
            Some(found) => value_holds(bound, rest, values, found),
            // What is absent equals nothing, is in nothing, and is empty.
            None => (bound.operator.test == Test::Empty) != bound.operator.negated,
        },
        Kind::Text | Kind::Number | Kind::Bool | Kind::Texts => false,
    }
}

fn test_holds(bound: &Bound, value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    match (bound.operator.test, &bound.value) {
        (Test::Equal, Wanted::Text(wanted)) => text == wanted,
        (Test::Equal, Wanted::Number(wanted)) => value.as_i64().unwrap_or_default() == *wanted,
        (Test::Equal, Wanted::Bool(wanted)) => value.as_bool().unwrap_or_default() == *wanted,
        (Test::In, Wanted::Text(wanted)) => contains(value, wanted),
        (Test::Matches, Wanted::Pattern(pattern)) => pattern.is_match(text),
        (Test::Empty, _) => match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => true,
        },
        // `bind` lets no other pair through.
        _ => false,
    }
}

/// A key of a map, an element of a list, a part of a text.
fn contains(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Object(entries) => entries.contains_key(wanted),
        Value::Array(items) => items.iter().any(|item| item == wanted),
        Value::String(text) => text.contains(wanted),
        _ => wanted.is_empty(),
    }
}
