//! What a command has found, and how it is said: as Weft, as JSON, and as Consul says it.

use serde::Serialize;
use serde_json::Value;

use super::error::{CliError, Exit, Fault};

/// The outcome of a command that is a success or a negative answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// For people, with a newline at the end.
    pub(super) text: String,
    /// Goes out instead of the text: bytes that need not be text.
    pub(super) bytes: Option<Vec<u8>>,
    /// For programs: the same, in a documented and stable form.
    pub(super) json: Value,
    /// Goes to stderr, whatever the output is.
    pub(super) note: Option<String>,
    pub(super) exit: Exit,
    /// How Consul says it, when that differs.
    pub(super) consul: Option<Spoken>,
}

/// What Consul prints, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spoken {
    pub(super) text: String,
    pub(super) exit: u8,
}

impl Report {
    /// A report that is a success.
    ///
    /// # Errors
    /// Never in practice: all shapes can be written as JSON.
    pub(super) fn new<T: Serialize + ?Sized>(text: String, json: &T) -> Result<Self, CliError> {
        let json = serde_json::to_value(json).map_err(|fault| {
            CliError::new(
                Fault::Local,
                "the result cannot be written as JSON",
                fault.to_string(),
                "leave out `-o json`",
            )
        })?;
        Ok(Self { text, bytes: None, json, note: None, exit: Exit::Ok, consul: None })
    }

    /// The report of a command that has said everything while it ran.
    pub(super) fn silent(exit: Exit) -> Self {
        let (text, json) = (String::new(), Value::Null);
        Self { text, bytes: None, json, note: None, exit, consul: None }
    }

    #[must_use]
    pub(super) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    #[must_use]
    pub(super) fn with_bytes(self, bytes: Vec<u8>) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    #[must_use]
    pub(super) fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// Consul's words for a success.
    #[must_use]
    pub(super) fn in_consul(self, text: impl Into<String>) -> Self {
        self.in_consul_with(text, 0)
    }

    #[must_use]
    pub(super) fn in_consul_with(self, text: impl Into<String>, exit: u8) -> Self {
        Self { consul: Some(Spoken { text: text.into(), exit }), ..self }
    }
}

/// JSON as Go's `MarshalIndent` lays it out, with a newline at the end.
pub(super) fn indented(value: &Value, indent: &str) -> String {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a value to memory cannot fail; if it did, the compact form would do.
    if value.serialize(&mut serializer).is_err() {
        return format!("{value}\n");
    }
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_indented_as_asked() {
        let value = json!([{ "key": "a", "none": [] }]);
        assert_eq!(indented(&value, "\t"), "[\n\t{\n\t\t\"key\": \"a\",\n\t\t\"none\": []\n\t}\n]\n");
    }
}
