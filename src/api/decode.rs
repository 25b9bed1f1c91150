//! Reads JSON objects by Go's rule: keys match without regard to case. Underscores do not count
//! either, so that a body may be written in snake case, as files are.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::model::go_json;

/// The fields of one JSON object, under the names the caller asked for.
#[derive(Debug, Default)]
pub(super) struct Fields {
    found: Map<String, Value>,
}

impl Fields {
    /// Parses an object whose keys are all among `known`. A later spelling of a key wins, as in Go.
    pub(super) fn parse(json: &[u8], known: &[&'static str]) -> Result<Self, ApiError> {
        Self::of(parse(json)?, known)
    }

    /// As [`Self::parse`], of JSON that was read already.
    pub(super) fn of(value: Value, known: &[&'static str]) -> Result<Self, ApiError> {
        Self::read(value, known, |key| Err(failed(&format!("json: unknown field {key:?}"))))
    }

    /// As [`Self::parse`], but keys that are not known say nothing, as on Consul's catalog endpoints.
    pub(super) fn parse_lenient(json: &[u8], known: &[&'static str]) -> Result<Self, ApiError> {
        Self::read(parse(json)?, known, |_| Ok(()))
    }

    fn read(
        value: Value,
        known: &[&'static str],
        unknown: impl Fn(&str) -> Result<(), ApiError>,
    ) -> Result<Self, ApiError> {
        let Value::Object(object) = value else {
            return Err(failed("json: the body must be an object"));
        };
        let mut found = Map::new();
        for (key, value) in object {
            match known.iter().find(|name| same(name, &key)) {
                Some(name) => drop(found.insert((*name).to_owned(), value)),
                None => unknown(&key)?,
            }
        }
        Ok(Self { found })
    }

    /// An object inside, read leniently; `None` when absent or null.
    pub(super) fn object(
        &self,
        name: &'static str,
        known: &[&'static str],
    ) -> Result<Option<Self>, ApiError> {
        match self.found.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value @ Value::Object(_)) => Self::read(value.clone(), known, |_| Ok(())).map(Some),
            Some(other) => Err(mismatch(name, "object", other)),
        }
    }

    /// A list of objects, each read leniently; empty when absent or null. A block that stands once in HCL
    /// comes as an object and is a list of one.
    pub(super) fn objects(
        &self,
        name: &'static str,
        known: &[&'static str],
    ) -> Result<Vec<Self>, ApiError> {
        match self.found.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                items.iter().map(|item| Self::read(item.clone(), known, |_| Ok(()))).collect()
            }
            Some(one @ Value::Object(_)) => Ok(vec![Self::read(one.clone(), known, |_| Ok(()))?]),
            Some(other) => Err(mismatch(name, "array", other)),
        }
    }

    /// Whatever was found, under the names that were asked for.
    pub(super) fn into_values(self) -> Map<String, Value> {
        self.found
    }

    /// `true` or `false`; `false` when absent or null.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, ApiError> {
        match self.found.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(mismatch(name, "bool", other)),
        }
    }

    /// A value of any type.
    pub(super) fn value(&self, name: &'static str) -> Option<&Value> {
        self.found.get(name)
    }

    /// A text; empty when absent or null.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, ApiError> {
        match self.found.get(name) {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(mismatch(name, "string", other)),
        }
    }

    /// Texts by name; none when absent or null.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<(&str, &str)>, ApiError> {
        let object = match self.found.get(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Object(object)) => object,
            Some(other) => return Err(mismatch(name, "map[string]string", other)),
        };
        let mut pairs = Vec::with_capacity(object.len());
        for (key, value) in object {
            let text = value.as_str().ok_or_else(|| mismatch(name, "string", value))?;
            pairs.push((key.as_str(), text));
        }
        Ok(pairs)
    }

    /// A list of texts; `None` when absent or null.
    pub(super) fn list(&self, name: &'static str) -> Result<Option<Vec<&str>>, ApiError> {
        let items = match self.found.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(mismatch(name, "[]string", other)),
        };
        let text = |item| Value::as_str(item).ok_or_else(|| mismatch(name, "string", item));
        items.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A whole number that fits 32 bits; `None` when absent or null.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u32>, ApiError> {
        match self.found.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                number.map(Some).ok_or_else(|| mismatch(name, "uint32", value))
            }
        }
    }

    /// A whole number that fits 64 bits; `None` when absent or null.
    pub(super) fn long(&self, name: &'static str) -> Result<Option<u64>, ApiError> {
        match self.found.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| mismatch(name, "uint64", value)),
        }
    }

    /// Whether a field has a value other than null, nothing, zero or false: Go's zero values.
    pub(super) fn is_set(&self, name: &str) -> bool {
        match self.found.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(object)) => !object.is_empty(),
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::Bool(true)) => true,
        }
    }
}

fn parse(json: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(json)
        .map_err(|fault| failed(&go_json::fault(json).unwrap_or_else(|| fault.to_string())))
}

fn same(name: &str, key: &str) -> bool {
    let fold = |text: &str| -> Vec<u8> {
        text.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect()
    };
    fold(name) == fold(key)
}

/// The refusal of a body that cannot be read.
pub(super) fn failed(detail: &str) -> ApiError {
    ApiError::bad_request(format!("Request decode failed: {detail}"))
}

fn mismatch(name: &str, wanted: &str, found: &Value) -> ApiError {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    failed(&format!("json: cannot unmarshal {kind} into Go struct field .{name} of type {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["SourceName", "Meta", "Uses", "Services"];

    fn parse(json: &str) -> Result<Fields, String> {
        Fields::parse(json.as_bytes(), KNOWN).map_err(|fault| fault.text)
    }

    #[test]
    fn keys_match_in_any_spelling() {
        for key in ["SourceName", "sourcename", "source_name", "SOURCE_NAME"] {
            let fields = parse(&format!(r#"{{"{key}":"web"}}"#)).unwrap();
            assert_eq!(fields.text("SourceName").unwrap(), "web");
        }
    }

    #[test]
    fn faults_by_table() {
        for (json, text) in [
            (r#"{"Foo":1}"#, r#"Request decode failed: json: unknown field "Foo""#),
            ("[]", "Request decode failed: json: the body must be an object"),
        ] {
            assert_eq!(parse(json).unwrap_err(), text);
        }
        assert!(parse("zz").unwrap_err().starts_with("Request decode failed: "));
        let fields = parse(r#"{"SourceName":1,"Meta":{"a":2},"Uses":-1,"Services":["a",2]}"#).unwrap();
        assert_eq!(
            fields.text("SourceName").unwrap_err().text,
            "Request decode failed: json: cannot unmarshal number into Go struct field .SourceName of type string"
        );
        assert!(fields.texts("Meta").is_err());
        assert!(fields.number("Uses").is_err());
        assert!(fields.list("Services").is_err());
    }

    #[test]
    fn nothing_is_read_as_nothing() {
        let fields = parse(r#"{"SourceName":null,"Meta":null}"#).unwrap();
        assert_eq!(fields.text("SourceName").unwrap(), "");
        assert!(fields.texts("Meta").unwrap().is_empty());
        assert_eq!((fields.list("Services").unwrap(), fields.number("Uses").unwrap()), (None, None));
        assert!(!fields.is_set("Meta"));
    }
}
