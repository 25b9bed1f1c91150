//! What a key of a registry says: `<prefix><service>/<instance>` with `{"address": …, "port": …}`. Pure.
//!
//! Lenient where writers differ: the address may carry the port, fields that are not known do not
//! matter. A key that says nothing usable stays a key; it only is no instance.

use std::net::{IpAddr, Ipv6Addr};

use serde::Deserialize;

use crate::model::{InstanceId, NameError, ServiceName};

/// Longest host name (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// Where an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// An IP address without brackets, or a host name.
    pub(super) host: String,
    pub(super) port: u16,
    /// The port that was given besides the one in the address and is another.
    pub(super) ignored: Option<u16>,
}

/// Why a key is no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAnInstance {
    #[error("the key is not text")]
    NotText,
    #[error("the key must be <service>/<instance> after the prefix")]
    Shape,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("the value is not a JSON object with \"address\" and \"port\": {0}")]
    Json(String),
    #[error("the address {0:?} is neither an IP address nor a host name, alone or with a port")]
    Address(String),
    #[error("there is no port from 1 to 65535, neither in the address nor beside it")]
    Port,
}

#[derive(Deserialize)]
struct Value {
    address: String,
    #[serde(default)]
    port: Option<u16>,
}

/// The service and the instance that a key is about; the prefix is cut off already.
pub(super) fn names(rest: &[u8]) -> Result<(ServiceName, InstanceId), NotAnInstance> {
    let text = std::str::from_utf8(rest).map_err(|_| NotAnInstance::NotText)?;
    let (service, instance) = text.split_once('/').ok_or(NotAnInstance::Shape)?;
    if instance.contains('/') {
        return Err(NotAnInstance::Shape);
    }
    Ok((ServiceName::new(service)?, InstanceId::new(instance)?))
}

pub(super) fn location(value: &[u8]) -> Result<Location, NotAnInstance> {
    let Value { address, port } =
        serde_json::from_slice(value).map_err(|fault| NotAnInstance::Json(fault.to_string()))?;
    let (host, inner) = split(&address).ok_or_else(|| NotAnInstance::Address(address.clone()))?;
    let port = port.filter(|port| *port != 0);
    let chosen = inner.or(port).ok_or(NotAnInstance::Port)?;
    Ok(Location { host, port: chosen, ignored: port.filter(|port| *port != chosen) })
}

/// Host and port of `host`, `host:port`, `[v6]` and `[v6]:port`; a bare IPv6 address has no port.
fn split(address: &str) -> Option<(String, Option<u16>)> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Some((ip.to_string(), None));
    }
    if let Some(bracketed) = address.strip_prefix('[') {
        let (ip, rest) = bracketed.split_once(']')?;
        let ip: Ipv6Addr = ip.parse().ok()?;
        let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':')?)?) };
        return Some((ip.to_string(), port));
    }
    let (host, port) = match address.split_once(':') {
        Some((host, text)) => (host, Some(port(text)?)),
        None => (address, None),
    };
    is_host(host).then(|| (host.to_owned(), port))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= MAX_HOST_BYTES && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_by_table() {
        let at = |host: &str, port, ignored| Ok(Location { host: host.to_owned(), port, ignored });
        for (value, expected) in [
            (r#"{"address": "10.0.0.1", "port": 8080}"#, at("10.0.0.1", 8080, None)),
            (r#"{"address": "10.0.0.1:8080", "port": 8080}"#, at("10.0.0.1", 8080, None)),
            (r#"{"address": "10.0.0.1:9090", "port": 8080}"#, at("10.0.0.1", 9090, Some(8080))),
            (r#"{"address":"10.0.0.1:9090"}"#, at("10.0.0.1", 9090, None)),
            (r#"{"address":"10.0.0.1:9090","port":0}"#, at("10.0.0.1", 9090, None)),
            (r#"{"address":"::1","port":80,"weight":3,"meta":{}}"#, at("::1", 80, None)),
            (r#"{"address":"[2001:db8::1]:80"}"#, at("2001:db8::1", 80, None)),
            (r#"{"address":"[::1]","port":80}"#, at("::1", 80, None)),
            (r#"{"address":"db.example.com","port":5432}"#, at("db.example.com", 5432, None)),
            (r#"{"address":"my_host:1","port":null}"#, at("my_host", 1, None)),
            (r#"{"address":"10.0.0.1"}"#, Err(NotAnInstance::Port)),
            (r#"{"address":"10.0.0.1","port":0}"#, Err(NotAnInstance::Port)),
        ] {
            assert_eq!(location(value.as_bytes()), expected, "{value}");
        }
        for address in
            ["", ":80", "a b", "a:b", "a:0", "a:70000", "[::1", "[::1]x", "1:2:3", "http://a", "a..b"]
        {
            let value = serde_json::json!({ "address": address, "port": 1 }).to_string();
            let fault = NotAnInstance::Address(address.to_owned());
            assert_eq!(location(value.as_bytes()), Err(fault), "{address}");
        }
        for value in [
            "",
            "{",
            "[]",
            "10.0.0.1:80",
            r#"{"port":1}"#,
            r#"{"address":1}"#,
            r#"{"address":"a","port":"x"}"#,
        ] {
            assert!(matches!(location(value.as_bytes()), Err(NotAnInstance::Json(_))), "{value}");
        }
    }

    #[test]
    fn keys_by_table() {
        let (service, instance) = names(b"user-service/instance-1").unwrap();
        assert_eq!((service.as_str(), instance.as_str()), ("user-service", "instance-1"));
        for key in ["", "web", "web/", "/1", "team/web/1", "w*b/1", "web/a b"] {
            assert!(names(key.as_bytes()).is_err(), "{key}");
        }
        assert_eq!(names(b"web/\xff"), Err(NotAnInstance::NotText));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_taken_can_be_used(value: Vec<u8>, address in "[0-9a-z.:\\[\\]-]{0,20}") {
            let _any = (location(&value), names(&value));
            let json = serde_json::json!({ "address": address, "port": 1 }).to_string();
            if let Ok(taken) = location(json.as_bytes()) {
                prop_assert!(taken.port > 0 && !taken.host.contains(['[', ']']));
                prop_assert!(taken.host.parse::<IpAddr>().is_ok() || is_host(&taken.host));
            }
        }
    }
}
