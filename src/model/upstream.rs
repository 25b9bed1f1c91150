//! What the opaque `config` of an upstream says about dialling it, in Consul's words.
//!
//! `config` reads it to point at faults in a file, `app` to set up a sidecar. Keys are found in snake
//! case and camel case, and numbers may stand in quotes, as Consul takes them. Invariant: whatever is
//! said and has no effect is among the findings; a value that cannot be used leaves the default.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::Value as Json;

use super::duration;

/// How one upstream is dialled. `None` is for the sidecar's own default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamConfig {
    /// One attempt, TCP and TLS: `connect_timeout_ms`.
    pub connect_timeout: Option<Duration>,
    pub limits: UpstreamLimits,
    pub ejection: EjectionPolicy,
    /// Use every endpoint when none is healthy, instead of failing at once: `panic`, a key of ours.
    pub panic: bool,
}

/// The block `limits`, as far as TCP has a meaning for it. `None` sets no limit, zero lets nothing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpstreamLimits {
    /// Application connections at a time: `max_connections`.
    pub connections: Option<u32>,
    /// Application connections that wait for an endpoint: `max_pending_requests`.
    pub pending: Option<u32>,
}

/// The block `passive_health_check`: when an endpoint that fails is left out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionPolicy {
    /// Failures in a row that eject an endpoint: `max_failures`.
    pub max_failures: u32,
    /// Failures farther apart than this are not in a row: `interval`.
    pub interval: Duration,
    /// The first ejection; each further one is twice as long: `base_ejection_time`.
    pub base_time: Duration,
    /// Most endpoints out at a time, in percent of the healthy ones: `max_ejection_percent`. `None`
    /// stands for all but one.
    pub max_percent: Option<u8>,
    /// Share of the ejections that are carried out: `enforcing_consecutive_5xx`.
    pub enforcing_percent: u8,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            max_failures: 3,
            interval: Duration::from_secs(10),
            base_time: Duration::from_secs(1),
            max_percent: None,
            enforcing_percent: 100,
        }
    }
}

/// Something to say about a key, `limits.max_connections` for one in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub path: Vec<String>,
    pub weight: Weight,
    pub message: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The value is of the wrong type.
    Type,
    /// The value is outside what its key allows.
    Value,
    /// Accepted, and without effect or with less than Consul gives it.
    NoEffect,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

const LIMITS: &str = "limits";
const PASSIVE: &str = "passive_health_check";

impl UpstreamConfig {
    /// Reads the settings, and everything there is to say about them.
    #[must_use]
    pub fn read(config: &BTreeMap<String, Json>) -> (Self, Vec<Finding>) {
        let mut top = Block { name: None, entries: config.iter().collect(), findings: Vec::new() };
        let connect_timeout = top.number("connect_timeout_ms", u64::from(u32::MAX));
        let panic = top.boolean("panic").unwrap_or_default();
        let mut findings = std::mem::take(&mut top.findings);
        let mut block = top.block(LIMITS, &mut findings);
        let limits = read_limits(&mut block);
        findings.append(&mut block.findings);
        let mut block = top.block(PASSIVE, &mut findings);
        let ejection = read_ejection(&mut block);
        findings.append(&mut block.findings);
        let connect_timeout = connect_timeout.filter(|ms| *ms > 0).map(Duration::from_millis);
        (Self { connect_timeout, limits, ejection, panic }, findings)
    }
}

fn read_limits(block: &mut Block<'_>) -> UpstreamLimits {
    const MOST: u64 = u32::MAX as u64;
    let count = |block: &mut Block<'_>, key| block.number(key, MOST).and_then(|n| u32::try_from(n).ok());
    let limits = UpstreamLimits {
        connections: count(block, "max_connections"),
        pending: count(block, "max_pending_requests"),
    };
    if block.number("max_concurrent_requests", MOST).is_some() {
        let message = "has no effect: requests inside a connection are not looked at; \
                       `max_connections` limits what there is";
        block.note("max_concurrent_requests", message);
    }
    block.note_unknown(&["max_connections", "max_pending_requests", "max_concurrent_requests"]);
    limits
}

fn read_ejection(block: &mut Block<'_>) -> EjectionPolicy {
    let default = EjectionPolicy::default();
    let percent = |block: &mut Block<'_>, key| block.number(key, 100).and_then(|n| u8::try_from(n).ok());
    let failures = block.number("max_failures", u64::from(u32::MAX));
    let policy = EjectionPolicy {
        // Zero is Go's word for unset.
        max_failures: failures
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0)
            .unwrap_or(default.max_failures),
        interval: block.duration("interval").unwrap_or(default.interval),
        base_time: block.duration("base_ejection_time").unwrap_or(default.base_time),
        max_percent: percent(block, "max_ejection_percent"),
        enforcing_percent: percent(block, "enforcing_consecutive_5xx")
            .unwrap_or(default.enforcing_percent),
    };
    if block.get("enforcing_consecutive_5xx").is_some() {
        let message = "counts connections that failed: responses inside a connection are not looked at";
        block.note("enforcing_consecutive_5xx", message);
    }
    block.note_unknown(&[
        "interval",
        "max_failures",
        "enforcing_consecutive_5xx",
        "max_ejection_percent",
        "base_ejection_time",
    ]);
    policy
}

/// The keys of one object, and what was found wrong with them.
struct Block<'a> {
    name: Option<&'static str>,
    entries: Vec<(&'a String, &'a Json)>,
    findings: Vec<Finding>,
}

impl<'a> Block<'a> {
    /// A block inside this one; empty when it is not there or is no object.
    fn block(&self, name: &'static str, findings: &mut Vec<Finding>) -> Self {
        let mut block = Block { name: Some(name), entries: Vec::new(), findings: Vec::new() };
        match self.get(name) {
            Some((_, Json::Object(map))) => block.entries = map.iter().collect(),
            Some((key, other)) if !other.is_null() => {
                let message = format!("`{key}` must be one object, not {}", noun(other));
                findings.push(Finding { path: vec![key.clone()], weight: Weight::Type, message });
            }
            _ => {}
        }
        block
    }

    fn get(&self, key: &str) -> Option<(&'a String, &'a Json)> {
        self.entries.iter().copied().find(|(written, _)| is_key(written, key))
    }

    fn number(&mut self, key: &str, most: u64) -> Option<u64> {
        let (written, value) = self.get(key).filter(|(_, value)| !value.is_null())?;
        let Some(number) = whole(value) else {
            self.find(written, Weight::Type, format!("must be a whole number, not {}", noun(value)));
            return None;
        };
        let fitting = u64::try_from(number).ok().filter(|number| *number <= most);
        if fitting.is_none() {
            self.find(written, Weight::Value, format!("must be from 0 to {most}"));
        }
        fitting
    }

    fn boolean(&mut self, key: &str) -> Option<bool> {
        let (written, value) = self.get(key)?;
        if value.as_bool().is_none() {
            let message = format!("must be `true` or `false`, not {}", noun(value));
            self.find(written, Weight::Type, message);
        }
        value.as_bool()
    }

    /// A duration longer than zero; numbers are nanoseconds, as Go's clients send them.
    fn duration(&mut self, key: &str) -> Option<Duration> {
        let (written, value) = self.get(key).filter(|(_, value)| !value.is_null())?;
        let read = match value {
            Json::String(text) => duration::parse(text).map_err(|error| error.to_string()),
            other => other.as_u64().map(Duration::from_nanos).ok_or_else(|| noun(other).to_owned()),
        };
        match read {
            Ok(duration) => Some(duration).filter(|duration| !duration.is_zero()),
            Err(what) => {
                self.find(written, Weight::Type, format!("must be a duration such as \"10s\": {what}"));
                None
            }
        }
    }

    fn note(&mut self, key: &str, message: &str) {
        if let Some((written, _)) = self.get(key) {
            self.find(written, Weight::NoEffect, message.to_owned());
        }
    }

    fn note_unknown(&mut self, known: &[&str]) {
        let unknown = |written: &&String| !known.iter().any(|key| is_key(written, key));
        let keys: Vec<&String> = self.entries.iter().map(|(key, _)| *key).filter(unknown).collect();
        for key in keys {
            let known = known.join("`, `");
            self.find(
                key,
                Weight::NoEffect,
                format!("is unknown and has no effect; known are `{known}`"),
            );
        }
    }

    fn find(&mut self, key: &str, weight: Weight, message: String) {
        let message = match self.name {
            Some(block) => format!("`{key}` in `{block}` {message}"),
            None => format!("`{key}` {message}"),
        };
        let path = self.name.iter().map(|name| (*name).to_owned()).chain([key.to_owned()]).collect();
        self.findings.push(Finding { path, weight, message });
    }
}

/// Whether a key as written is `snake`, in snake case or camel case, in any case of letters.
#[must_use]
pub fn is_key(written: &str, snake: &str) -> bool {
    let squeezed = snake.bytes().filter(|b| *b != b'_');
    written.eq_ignore_ascii_case(snake) || written.bytes().map(|b| b.to_ascii_lowercase()).eq(squeezed)
}

/// A whole number, perhaps in quotes.
fn whole(value: &Json) -> Option<i128> {
    match value {
        Json::Number(number) => {
            number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
        }
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

const fn noun(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Json) -> (UpstreamConfig, Vec<Finding>) {
        let Json::Object(map) = config else { panic!("an object is wanted") };
        UpstreamConfig::read(&map.into_iter().collect())
    }

    #[test]
    fn nothing_said_is_the_default() {
        let (config, findings) = read(json!({ "protocol": "tcp" }));
        assert_eq!(config.limits, UpstreamLimits::default());
        assert_eq!(config.ejection, EjectionPolicy::default());
        assert!(config.connect_timeout.is_none() && !config.panic && findings.is_empty());
    }

    #[test]
    fn what_consul_takes_is_taken() {
        let (config, findings) = read(json!({
            "connect_timeout_ms": 1500,
            "panic": true,
            "limits": { "max_connections": 3, "MaxPendingRequests": "4" },
            "passive_health_check": {
                "interval": "30s", "MaxFailures": 10, "max_ejection_percent": 0,
                "base_ejection_time": 2_000_000_000u64,
            },
        }));
        assert_eq!(findings, []);
        assert_eq!(config.connect_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(config.limits, UpstreamLimits { connections: Some(3), pending: Some(4) });
        assert!(config.panic);
        let ejection = config.ejection;
        assert_eq!(ejection.interval, Duration::from_secs(30));
        assert_eq!((ejection.max_failures, ejection.max_percent), (10, Some(0)));
        assert_eq!(ejection.base_time, Duration::from_secs(2));
    }

    #[test]
    fn zero_is_a_limit_and_otherwise_unset() {
        let (config, _) = read(json!({
            "connect_timeout_ms": 0,
            "limits": { "max_connections": 0 },
            "passive_health_check": { "max_failures": 0, "interval": "0s" },
        }));
        assert_eq!(config.connect_timeout, None);
        assert_eq!(config.limits.connections, Some(0));
        assert_eq!(config.ejection, EjectionPolicy::default());
    }

    #[test]
    fn every_fault_is_named_and_leaves_the_default() {
        let cases = [
            (json!({ "limits": 3 }), Weight::Type, "`limits` must be one object, not a number"),
            (json!({ "limits": [{}, {}] }), Weight::Type, "must be one object, not a list"),
            (json!({ "limits": { "max_connections": -1 } }), Weight::Value, "must be from 0 to"),
            (json!({ "limits": { "max_connections": "many" } }), Weight::Type, "not a string"),
            (json!({ "limits": { "max_connections": 1.5 } }), Weight::Type, "a whole number"),
            (json!({ "limits": { "max_concurrent_requests": 5 } }), Weight::NoEffect, "not looked at"),
            (json!({ "limits": { "max_conns": 5 } }), Weight::NoEffect, "known are `max_connections`"),
            (json!({ "passive_health_check": { "interval": 1.5 } }), Weight::Type, "such as \"10s\""),
            (json!({ "passive_health_check": { "interval": "5" } }), Weight::Type, "missing unit"),
            (
                json!({ "passive_health_check": { "max_ejection_percent": 101 } }),
                Weight::Value,
                "`max_ejection_percent` in `passive_health_check` must be from 0 to 100",
            ),
            (
                json!({ "passive_health_check": { "enforcing_consecutive_5xx": 100 } }),
                Weight::NoEffect,
                "counts connections that failed",
            ),
            (json!({ "connect_timeout_ms": "soon" }), Weight::Type, "`connect_timeout_ms` must be"),
            (json!({ "panic": 1 }), Weight::Type, "`true` or `false`"),
        ];
        let (default, _) = read(json!({}));
        for (config, weight, words) in cases {
            let (read, findings) = read(config.clone());
            assert_eq!(findings.len(), 1, "{config}: {findings:?}");
            assert_eq!(findings[0].weight, weight, "{config}");
            assert!(findings[0].message.contains(words), "{config}: {}", findings[0].message);
            assert_eq!(read, default, "{config}");
        }
    }
}
