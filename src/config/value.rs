//! The tree both notations are parsed into: values that remember where they stand in the file.
//!
//! Objects keep the order of their entries and repeated keys, because HCL gives repeated blocks a
//! meaning; the decoder decides what a repetition means for each key.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// Deepest nesting of objects and lists; parsing recurses, so this bounds the stack.
pub(super) const MAX_DEPTH: usize = 64;
/// Largest file that is read, in bytes; a thousand times the size of an ordinary service file.
pub(super) const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Half-open range of byte offsets in the text of a file, on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// From the start of this span to the end of `other`.
    pub(super) const fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<Entry>),
    /// Stands where the text was faulty; the fault is already reported.
    Invalid,
}

/// One key of an object with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) form: Form,
    pub(super) value: Value,
}

/// How an entry was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `key = value`, or a member of a JSON object.
    Assignment,
    /// `key { … }`.
    Block,
    /// The label of a block: `key "label" { … }` holds an object whose only key is the label.
    Label,
}

impl Value {
    pub(super) const fn new(kind: Kind, span: Span) -> Self {
        Self { kind, span }
    }

    /// What the value is, for messages.
    pub(super) const fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) => "a number",
            Kind::Float(_) => "a fraction",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Object(_) => "an object",
            Kind::Invalid => "not readable",
        }
    }

    /// JSON's word for the type, as Go's errors use it.
    pub(super) const fn json_type(&self) -> &'static str {
        match self.kind {
            Kind::Null | Kind::Invalid => "null",
            Kind::Bool(_) => "bool",
            Kind::Int(_) | Kind::Float(_) => "number",
            Kind::Text(_) => "string",
            Kind::List(_) => "array",
            Kind::Object(_) => "object",
        }
    }

    /// Whether this says nothing: Go's zero value, which Consul's clients send for unset fields.
    pub(super) fn is_unset(&self) -> bool {
        match &self.kind {
            Kind::Null | Kind::Invalid => true,
            Kind::Bool(value) => !value,
            Kind::Int(value) => *value == 0,
            Kind::Float(value) => *value == 0.0,
            Kind::Text(text) => text.is_empty(),
            Kind::List(items) => items.is_empty(),
            Kind::Object(entries) => entries.iter().all(|entry| entry.value.is_unset()),
        }
    }

    /// The plain value, for settings that are kept as they are.
    pub(super) fn to_json(&self) -> Json {
        match &self.kind {
            Kind::Null | Kind::Invalid => Json::Null,
            Kind::Bool(value) => Json::Bool(*value),
            Kind::Int(value) => Json::from(*value),
            Kind::Float(value) => Json::from(*value),
            Kind::Text(text) => Json::String(text.clone()),
            Kind::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Kind::Object(entries) => Json::Object(to_json_map(entries).into_iter().collect()),
        }
    }
}

/// The entries as plain values. Of a repeated key the last counts, but repeated blocks become a list.
pub(super) fn to_json_map(entries: &[Entry]) -> BTreeMap<String, Json> {
    let mut map = BTreeMap::new();
    let mut blocks: BTreeMap<&str, Vec<Json>> = BTreeMap::new();
    for entry in entries {
        let value = entry.value.to_json();
        if entry.form == Form::Block {
            blocks.entry(&entry.key).or_default().push(value);
        } else {
            map.insert(entry.key.clone(), value);
        }
    }
    for (key, mut all) in blocks {
        let value = if all.len() > 1 { Json::Array(all) } else { all.pop().unwrap_or_default() };
        map.insert(key.to_owned(), value);
    }
    map
}
