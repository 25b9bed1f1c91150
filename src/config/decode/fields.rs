//! Typed access to the keys of one object: every getter reports what it does not like and then
//! behaves as if the key were absent.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::suggest::suggest;
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::{Entry, Form, Kind, Span, Value};
use crate::model::duration;
pub(super) use crate::model::upstream::is_key;

/// Keys that share one reason. After `; ` a reason says what to do instead.
pub(super) type Reasons = &'static [(&'static str, &'static [&'static str])];

/// The keys that may stand in an object, in snake case.
pub(super) struct Schema {
    what: &'static str,
    pub(super) keys: &'static [&'static str],
    refused: Reasons,
    ignored: Reasons,
    inside: &'static [(&'static str, &'static [&'static str])],
}

impl Schema {
    /// An object, called `what` in messages, with the keys it may have.
    pub(super) const fn of(what: &'static str, keys: &'static [&'static str]) -> Self {
        Self { what, keys, refused: &[], ignored: &[], inside: &[] }
    }

    /// Keys known to Consul that are an error here unless unset: without them something would be let
    /// in, sent elsewhere or not be checked.
    pub(super) const fn refusing(mut self, refused: Reasons) -> Self {
        self.refused = refused;
        self
    }

    /// Keys known to Consul that are a warning here unless unset: nothing safe depends on them.
    pub(super) const fn ignoring(mut self, ignored: Reasons) -> Self {
        self.ignored = ignored;
        self
    }

    /// Blocks inside this object and their keys, to point at when one is found outside.
    pub(super) const fn containing(
        mut self,
        inside: &'static [(&'static str, &'static [&'static str])],
    ) -> Self {
        self.inside = inside;
        self
    }
}

/// The entries of an object whose keys are checked.
#[derive(Clone, Copy)]
pub(super) struct Fields<'v> {
    pub(super) span: Span,
    what: &'static str,
    entries: &'v [Entry],
}

fn reason_of(reasons: Reasons, key: &str) -> Option<&'static str> {
    let holds = |keys: &[&str]| keys.iter().any(|known| is_key(key, known));
    reasons.iter().find(|(_, keys)| holds(keys)).map(|(reason, _)| *reason)
}

impl<'v> Fields<'v> {
    /// The fields of an object, with all its keys checked against the schema. `name` is the key it
    /// stands under.
    pub(super) fn open(
        report: &mut Report<'_>,
        schema: &Schema,
        name: &str,
        value: &'v Value,
    ) -> Option<Self> {
        let entries = match &value.kind {
            Kind::Object(entries) => entries,
            Kind::Invalid | Kind::Null => return None,
            _ => {
                wrong_type(report, name, value, "an object");
                return None;
            }
        };
        for entry in entries {
            check_key(report, schema, entry);
        }
        Some(Self { span: value.span, what: schema.what, entries })
    }

    /// All entries under a key that say something.
    pub(super) fn all(&self, key: &'static str) -> impl Iterator<Item = &'v Entry> {
        let said = |entry: &&Entry| !matches!(entry.value.kind, Kind::Null | Kind::Invalid);
        self.entries.iter().filter(move |entry| is_key(&entry.key, key)).filter(said)
    }

    /// Whether the object is the label of a block, which is reported.
    pub(super) fn is_labelled(&self) -> bool {
        self.entries.iter().any(|entry| entry.form == Form::Label)
    }

    /// Whether one of the keys has a value that could not be read.
    pub(super) fn is_damaged(&self, keys: &[&str]) -> bool {
        let named = |entry: &&Entry| keys.iter().any(|key| is_key(&entry.key, key));
        self.entries.iter().filter(named).any(|entry| entry.value.kind == Kind::Invalid)
    }

    /// The entry under a key. Of several the last counts, as in Consul, but not without a word.
    pub(super) fn one(&self, report: &mut Report<'_>, key: &'static str) -> Option<&'v Entry> {
        let mut all = self.all(key);
        let mut entry = all.next()?;
        for later in all {
            let message = format!("`{key}` is given again; only the last one counts");
            report.warning(Code::Duplicate, entry.key_span, message).help("remove this one");
            entry = later;
        }
        Some(entry)
    }

    /// The object under a key, of which there may be only one.
    pub(super) fn object(&self, report: &mut Report<'_>, key: &'static str) -> Option<&'v Entry> {
        let mut all = self.all(key);
        let entry = all.next()?;
        for later in all {
            let message = format!("`{key}` is given twice in {}", self.what);
            report.error(Code::Duplicate, later.key_span, message).help("put both into one");
        }
        Some(entry)
    }

    /// All objects under a key: repeated blocks, lists of objects, or a single object.
    pub(super) fn objects(&self, key: &'static str) -> Vec<&'v Value> {
        let mut found = Vec::new();
        for entry in self.all(key) {
            match &entry.value.kind {
                Kind::List(items) => found.extend(items.iter()),
                _ => found.push(&entry.value),
            }
        }
        found
    }

    pub(super) fn text(&self, report: &mut Report<'_>, key: &'static str) -> Option<&'v str> {
        self.text_entry(report, key).map(|(text, _)| text)
    }

    /// A text and its place.
    pub(super) fn text_entry(
        &self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<(&'v str, Span)> {
        let entry = self.one(report, key)?;
        let text = text_of(report, &entry.key, &entry.value)?;
        Some((text, entry.value.span))
    }

    /// A text that is not empty, read by `parse`.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &self,
        report: &mut Report<'_>,
        key: &'static str,
        parse: impl FnOnce(&'v str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, span) = self.text_entry(report, key).filter(|(text, _)| !text.is_empty())?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                report.error(Code::Value, span, error.to_string());
                None
            }
        }
    }

    pub(super) fn boolean(&self, report: &mut Report<'_>, key: &'static str) -> Option<bool> {
        let entry = self.one(report, key)?;
        match entry.value.kind {
            Kind::Bool(value) => Some(value),
            _ => {
                wrong_type(report, &entry.key, &entry.value, "`true` or `false`");
                None
            }
        }
    }

    /// A whole number within `range` and its place.
    pub(super) fn integer(
        &self,
        report: &mut Report<'_>,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<(i64, Span)> {
        let entry = self.one(report, key)?;
        let Kind::Int(value) = entry.value.kind else {
            wrong_type(report, &entry.key, &entry.value, "a number");
            return None;
        };
        if !range.contains(&value) {
            let message = format!("`{key}` must be from {} to {}", range.start(), range.end());
            report.error(Code::Value, entry.value.span, message);
            return None;
        }
        Some((value, entry.value.span))
    }

    /// A port; 0 counts as absent, as in Consul.
    pub(super) fn port(&self, report: &mut Report<'_>, key: &'static str) -> Option<u16> {
        let (value, _) = self.integer(report, key, 0..=i64::from(u16::MAX))?;
        u16::try_from(value).ok().filter(|port| *port != 0)
    }

    /// A count, 0 when absent.
    pub(super) fn count(&self, report: &mut Report<'_>, key: &'static str) -> u32 {
        let found = self.integer(report, key, 0..=i64::from(u32::MAX));
        found.and_then(|(value, _)| u32::try_from(value).ok()).unwrap_or_default()
    }

    /// A duration and its place. The API also takes nanoseconds as a number, as Go's clients send.
    pub(super) fn duration(
        &self,
        report: &mut Report<'_>,
        key: &'static str,
    ) -> Option<(Duration, Span)> {
        let entry = self.one(report, key)?;
        let span = entry.value.span;
        match &entry.value.kind {
            Kind::Int(ns) if report.is_api() && *ns >= 0 => {
                Some((Duration::from_nanos(ns.unsigned_abs()), span))
            }
            Kind::Text(text) => match duration::parse(text) {
                Ok(value) => Some((value, span)),
                Err(error) => {
                    let message = format!("`{key}` is not a duration: {error}");
                    let fault = report.error(Code::Value, span, message);
                    fault.help("write a number and a unit: \"10s\", \"1m30s\"");
                    fault.consul(format!("Request decode failed: {error}"));
                    None
                }
            },
            _ => {
                wrong_type(report, &entry.key, &entry.value, "a duration such as \"10s\"");
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, report: &mut Report<'_>, key: &'static str) -> Vec<String> {
        self.one(report, key).map(|entry| texts_of(report, entry)).unwrap_or_default()
    }

    /// An object whose keys are free.
    pub(super) fn free_object(&self, report: &mut Report<'_>, key: &'static str) -> &'v [Entry] {
        let Some(entry) = self.object(report, key) else { return &[] };
        match &entry.value.kind {
            Kind::Object(entries) => entries,
            _ => {
                wrong_type(report, &entry.key, &entry.value, "an object");
                &[]
            }
        }
    }
}

/// The text of a value, or a word about what else it is.
pub(super) fn text_of<'v>(report: &mut Report<'_>, key: &str, value: &'v Value) -> Option<&'v str> {
    match &value.kind {
        Kind::Text(text) => Some(text),
        Kind::Invalid => None,
        _ => {
            wrong_type(report, key, value, "a string");
            None
        }
    }
}

/// The texts of a list.
pub(super) fn texts_of(report: &mut Report<'_>, entry: &Entry) -> Vec<String> {
    match &entry.value.kind {
        Kind::List(items) => items
            .iter()
            .filter_map(|item| text_of(report, &entry.key, item))
            .map(str::to_owned)
            .collect(),
        _ => {
            wrong_type(report, &entry.key, &entry.value, "a list of strings");
            Vec::new()
        }
    }
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type(report: &mut Report<'_>, key: &str, value: &Value, wanted: &'static str) {
    if value.kind == Kind::Invalid {
        return;
    }
    let message = format!("`{key}` must be {wanted}, not {}", value.noun());
    let fault = report.error(Code::Type, value.span, message);
    let go_type = match wanted {
        "a number" => "int",
        "`true` or `false`" => "bool",
        "a list of strings" => "[]string",
        "an object" => "map[string]interface {}",
        _ => "string",
    };
    fault.consul(format!(
        "Request decode failed: json: cannot unmarshal {} into Go struct field .{key} of type {go_type}",
        value.json_type(),
    ));
    match (&value.kind, wanted) {
        (Kind::Text(text), "a number") if text.parse::<i64>().is_ok() => fault.help("remove the quotes"),
        (Kind::Text(text), "`true` or `false`") if matches!(text.as_str(), "true" | "false") => {
            fault.help("remove the quotes")
        }
        (Kind::Text(_), "a list of strings") => fault.help("put it in brackets: [\"…\"]"),
        (Kind::Int(_) | Kind::Float(_) | Kind::Bool(_), "a string") => fault.help("put it in quotes"),
        (Kind::Int(_), "a duration such as \"10s\"") => fault.help("add a unit and quotes"),
        (Kind::Float(_), "a number") => fault.help("use a whole number"),
        _ => fault,
    };
}

/// Reports a key that is unknown, or known and without effect.
fn check_key(report: &mut Report<'_>, schema: &Schema, entry: &Entry) {
    let (key, what, span) = (entry.key.as_str(), schema.what, entry.key_span);
    if entry.form == Form::Label {
        let help = format!("write `name = {key:?}` inside the block");
        report.error(Code::Syntax, span, format!("a {what} block has no label")).help(help);
        return;
    }
    if schema.keys.iter().any(|known| is_key(key, known)) {
        return;
    }
    let (reason, fault) = match (reason_of(schema.refused, key), reason_of(schema.ignored, key)) {
        (None, None) => return unknown_key(report, schema, key, span),
        _ if entry.value.is_unset() => return,
        (Some(reason), _) => {
            let message = format!("`{key}` in {what} is not supported: {}", why(reason));
            (reason, report.error(Code::Unsupported, span, message))
        }
        (None, Some(reason)) => {
            let message = format!("`{key}` in {what} has no effect: {}", why(reason));
            (reason, report.warning(Code::NoEffect, span, message))
        }
    };
    fault.help = reason.split_once("; ").map(|(_, instead)| instead.to_owned());
}

fn why(reason: &str) -> &str {
    reason.split_once("; ").map_or(reason, |(why, _)| why)
}

fn unknown_key(report: &mut Report<'_>, schema: &Schema, key: &str, span: Span) {
    if report.is_full() {
        report.error(Code::UnknownKey, span, "");
        return;
    }
    let belongs = |keys: &[&str]| keys.iter().any(|known| is_key(key, known));
    let inside = schema.inside.iter().find(|(_, keys)| belongs(keys)).map(|(block, _)| *block);
    let near = suggest(key, schema.keys);
    let message = format!("unknown key `{key}` in {}", schema.what);
    let fault = report.error(Code::UnknownKey, span, message);
    fault.consul(format!("Request decode failed: json: unknown field {key:?}"));
    if let Some(block) = inside {
        fault.help(format!("it belongs into a `{block}` block"));
    } else if let Some(near) = near {
        fault.help(format!("did you mean `{near}`?"));
    }
}
