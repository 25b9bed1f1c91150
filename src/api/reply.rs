//! Bodies and headers of successful answers.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::Index;
use super::error::ApiError;
use super::query::Consistency;

const INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const CONSISTENCY: HeaderName = HeaderName::from_static("x-consul-effective-consistency");

const CACHE: HeaderName = HeaderName::from_static("x-cache");

/// How JSON is laid out: compact without a newline, or indented by four spaces with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Layout {
    Compact,
    Pretty,
}

/// 200 with a JSON body.
pub(super) fn json<T: Serialize + ?Sized>(layout: Layout, value: &T) -> Response {
    encoded(layout, value).map_or_else(ApiError::into_response, of_json)
}

/// A body, for more than one answer.
pub(super) fn encoded<T: Serialize + ?Sized>(layout: Layout, value: &T) -> Result<Bytes, ApiError> {
    let encoded = encode(layout, value);
    encoded
        .map(Bytes::from)
        .map_err(|fault| ApiError::internal(format!("the answer cannot be written as JSON: {fault}")))
}

/// 200 with a body that is JSON already.
pub(super) fn of_json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// 200 with a body that is JSON already, and compressed.
pub(super) fn of_zipped_json(body: Bytes) -> Response {
    ([(header::CONTENT_ENCODING, "gzip")], of_json(body)).into_response()
}

/// 200 with nothing in it and no content type: Consul's answer to writes on the agent.
pub(super) fn empty() -> Response {
    Response::new(Body::empty())
}

/// Adds the index to wait on, of an answer that comes from no leader.
pub(super) fn add_index_alone(headers: &mut HeaderMap, index: Index) {
    headers.insert(INDEX, HeaderValue::from(index.max(1)));
}

/// Adds the headers of a catalog read.
pub(super) fn add_index(response: &mut Response, index: Index, known_leader: bool) {
    let headers = response.headers_mut();
    add_index_alone(headers, index);
    add_leader(headers, known_leader);
}

/// Adds the headers of a read without an index.
pub(super) fn add_leader(headers: &mut HeaderMap, known: bool) {
    let known = if known { "true" } else { "false" };
    headers.insert(KNOWN_LEADER, HeaderValue::from_static(known));
    headers.insert(LAST_CONTACT, HeaderValue::from_static("0"));
}

pub(super) fn add_consistency(headers: &mut HeaderMap, consistency: Consistency) {
    headers.insert(CONSISTENCY, HeaderValue::from_static(consistency.as_str()));
}

/// What `?cached` asks for: an answer out of memory. All answers are that, and none is old.
pub(super) fn add_cache_hit(headers: &mut HeaderMap) {
    headers.insert(CACHE, HeaderValue::from_static("HIT"));
    headers.insert(header::AGE, HeaderValue::from_static("0"));
}

/// An answer that had to be made first.
pub(super) fn add_cache_miss(headers: &mut HeaderMap) {
    headers.insert(CACHE, HeaderValue::from_static("MISS"));
}

/// Go escapes `<`, `>` and `&` in JSON; clients compare texts, and browsers are safer for it. Outside
/// of strings JSON has none of the three, so the bytes may simply be replaced.
fn encode<T: Serialize + ?Sized>(layout: Layout, value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut plain = Vec::with_capacity(256);
    match layout {
        Layout::Compact => serde_json::to_writer(&mut plain, value)?,
        Layout::Pretty => {
            let formatter = PrettyFormatter::with_indent(b"    ");
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut plain, formatter))?;
            plain.push(b'\n');
        }
    }
    if !plain.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')) {
        return Ok(plain);
    }
    let mut escaped = Vec::with_capacity(plain.len() + 64);
    for byte in plain {
        match byte {
            b'<' => escaped.extend_from_slice(b"\\u003c"),
            b'>' => escaped.extend_from_slice(b"\\u003e"),
            b'&' => escaped.extend_from_slice(b"\\u0026"),
            other => escaped.push(other),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Serialize + ?Sized>(layout: Layout, value: &T) -> String {
        String::from_utf8(encode(layout, value).unwrap()).unwrap()
    }

    #[test]
    fn layouts_are_consuls() {
        assert_eq!(text(Layout::Compact, &["a"]), r#"["a"]"#);
        assert_eq!(text(Layout::Pretty, &["127.0.0.1:18300"]), "[\n    \"127.0.0.1:18300\"\n]\n");
        assert_eq!(text(Layout::Pretty, &[] as &[u8]), "[]\n");
    }

    #[test]
    fn html_characters_are_escaped_as_go_does() {
        assert_eq!(text(Layout::Compact, "a => <b> & c"), r#""a =\u003e \u003cb\u003e \u0026 c""#);
    }
}
