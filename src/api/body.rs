//! Request bodies: read under a cap and a deadline, then checked for depth before they are parsed.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use tokio::time::timeout;

use super::error::ApiError;
use super::limits::{BODY_DEADLINE, MAX_BODY_BYTES, MAX_JSON_DEPTH};
use crate::kv::limits::MAX_VALUE_BYTES;

/// The bytes of a body that is JSON in shape: small enough and not nested too deep.
#[derive(Debug)]
pub(super) struct JsonBytes(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read(request.into_body(), MAX_BODY_BYTES).await?;
        if depth(&bytes) > MAX_JSON_DEPTH {
            return Err(ApiError::bad_request(format!(
                "Request decode failed: the JSON is nested deeper than {MAX_JSON_DEPTH} levels"
            )));
        }
        Ok(Self(bytes))
    }
}

/// The bytes of a value: anything at all, whatever the content type says.
#[derive(Debug)]
pub(super) struct ValueBytes(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for ValueBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        read(request.into_body(), MAX_VALUE_BYTES).await.map(Self)
    }
}

async fn read(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Request body too large, max size: {most} bytes"),
        )
    };
    // A declared length is only a reason to refuse early, never one to believe.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match timeout(BODY_DEADLINE, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(fault)) => Err(ApiError::bad_request(format!("Request body unreadable: {fault}"))),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("Request body did not arrive within {} s", BODY_DEADLINE.as_secs()),
        )),
    }
}

/// Deepest nesting of arrays and objects. Counts brackets outside of strings, whether or not they
/// match: a text that is not JSON fails in the parser.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_by_table() {
        for (json, expected) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{}]}"#, 3),
            (r#"["[[[[", "\"[[", {}]"#, 2),
            (r#"["\\", [[]]]"#, 3),
            ("[][][]", 1),
        ] {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
        assert_eq!(depth("[".repeat(100_000).as_bytes()), 100_000);
    }
}
