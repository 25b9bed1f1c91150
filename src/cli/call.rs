//! One request to the HTTP API, as the commands put it together.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

/// For a whole request that waits for no change.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Least time between two queries that wait for a change: whatever answers at once without a change
/// must not be asked without a pause.
pub(super) const BREATH: Duration = Duration::from_millis(50);

/// What, where, with which parameters and body, and how long the answer may take.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) is_json: bool,
    pub(super) patience: Duration,
}

impl Call {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn new(method: Method, path: impl Into<String>) -> Self {
        let (query, body) = (Vec::new(), Bytes::new());
        Self { method, path: path.into(), query, body, is_json: false, patience: DEADLINE }
    }

    pub(super) fn with(mut self, key: &str, value: impl Display) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// The parameter, when there is a value.
    pub(super) fn with_some(self, key: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// A parameter without a value, when it applies.
    pub(super) fn flag(self, key: &str, applies: bool) -> Self {
        if applies { self.with(key, "") } else { self }
    }

    pub(super) fn json(mut self, body: &Value) -> Self {
        self.body = Bytes::from(body.to_string());
        self.is_json = true;
        self
    }

    pub(super) fn raw(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits up to `wait` until the index of the result passes `index`; 0 does not wait.
    pub(super) fn after(mut self, index: u64, wait: Duration) -> Self {
        if index == 0 {
            return self;
        }
        // The server adds up to a sixteenth.
        self.patience = DEADLINE + wait + wait / 16;
        self.with("index", index).with("wait", format!("{}ms", wait.as_millis()))
    }

    /// Path and query, all parameters percent-encoded, with `more` after its own.
    pub(super) fn target(&self, more: &[(String, String)]) -> String {
        let mut target = self.path.clone();
        for (index, (key, value)) in self.query.iter().chain(more).enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&encode(key));
            if !value.is_empty() {
                target.push('=');
                target.push_str(&encode(value));
            }
        }
        target
    }
}

/// Index to ask after next. Consul's rule for clients: begin anew when it goes backwards, never 0.
pub(super) const fn next_index(last: u64, seen: u64) -> u64 {
    match (seen < last, seen) {
        (true, _) => 0,
        (false, 0) => 1,
        (false, seen) => seen,
    }
}

/// Percent-encodes all but the characters that never need it (RFC 3986, 2.3).
pub(super) fn encode(text: &str) -> String {
    encode_but(text, &[])
}

/// Like [`encode`], with the slashes of a path left as they are.
pub(super) fn encode_path(text: &str) -> String {
    encode_but(text, b"/")
}

fn encode_but(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if plain || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_encoded() {
        let call = Call::get("/v1/x").with("source", "a b&c").with("destination", "*");
        let more = [("dc".to_owned(), "dc 1".to_owned())];
        assert_eq!(call.target(&more), "/v1/x?source=a%20b%26c&destination=%2A&dc=dc%201");
        assert_eq!(
            Call::get("/v1/x").flag("recurse", true).flag("keys", false).target(&[]),
            "/v1/x?recurse"
        );
        assert_eq!((encode("ü/"), encode_path("ü/")), ("%C3%BC%2F".to_owned(), "%C3%BC/".to_owned()));
    }

    #[test]
    fn waiting_takes_patience() {
        let call = Call::get("/v1/x").after(7, Duration::from_secs(16));
        assert_eq!(call.target(&[]), "/v1/x?index=7&wait=16000ms");
        assert_eq!(call.patience, DEADLINE + Duration::from_secs(17));
        assert_eq!(Call::get("/v1/x").after(0, Duration::from_secs(16)).patience, DEADLINE);
    }

    #[test]
    fn indexes_by_table() {
        for (last, seen, next) in [(0, 5, 5), (5, 5, 5), (5, 9, 9), (9, 5, 0), (0, 0, 1)] {
            assert_eq!(next_index(last, seen), next, "{last} {seen}");
        }
    }
}
