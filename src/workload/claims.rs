//! Claims of a token as the Workload API tells them.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Message};
use serde_json::{Map, Value};

/// The whole object.
pub(super) fn message(claims: Map<String, Value>) -> Struct {
    Struct { fields: claims.into_iter().map(|(name, value)| (name, one(value))).collect() }
}

fn one(value: Value) -> Message {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        // The message knows no other numbers; what does not fit is not a number of this world.
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Value::String(value) => Kind::StringValue(value),
        Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(one).collect() })
        }
        Value::Object(fields) => Kind::StructValue(message(fields)),
    };
    Message { kind: Some(kind) }
}
