//! Where the HTTP API is: a flag, a variable of the environment, or the default; and which of them.

use super::error::{CliError, Fault};

/// Port of the HTTP API when an address names none.
const DEFAULT_PORT: u16 = 8500;
const DEFAULT: &str = "127.0.0.1:8500";

/// A variable of the environment by name; empty ones are not set.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An address and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Which flag or variable said so.
    pub(super) source: &'static str,
}

impl Address {
    /// `--http-addr`, `WEFT_HTTP_ADDR`, `CONSUL_HTTP_ADDR` or the default, in that order.
    ///
    /// # Errors
    /// When the first that is set is no `host:port`, with or without `http://`.
    pub(super) fn resolve(flag: Option<&str>, env: Env<'_>) -> Result<Self, CliError> {
        let variable = |name| env(name).filter(|value| !value.is_empty());
        if let Some(text) = flag {
            return Self::parse(text, "--http-addr");
        }
        if let Some(text) = variable("WEFT_HTTP_ADDR") {
            return Self::parse(&text, "WEFT_HTTP_ADDR");
        }
        if let Some(text) = variable("CONSUL_HTTP_ADDR") {
            return Self::parse(&text, "CONSUL_HTTP_ADDR");
        }
        Self::parse(DEFAULT, "default (no --http-addr, WEFT_HTTP_ADDR or CONSUL_HTTP_ADDR set)")
    }

    fn parse(text: &str, source: &'static str) -> Result<Self, CliError> {
        let refuse = |why: &str| {
            CliError::new(
                Fault::Usage,
                format!("`{text}` is not an address of the HTTP API: {why}"),
                source,
                "use host:port or http://host:port, such as 127.0.0.1:8500",
            )
        };
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some((scheme, _)) => {
                return Err(refuse(&format!("the HTTP API does not speak `{scheme}`")));
            }
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                bracketed.split_once(']').ok_or_else(|| refuse("a bracket is missing"))?
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(allowed) {
            return Err(refuse("the host is missing or has a character that hosts cannot have"));
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(refuse("something else than a port follows the host")),
            Some(port) => port.parse().map_err(|_| refuse("the port is not a number up to 65535"))?,
        };
        Ok(Self { host: host.to_owned(), port, source })
    }

    /// `host:port` as it stands in a Host header.
    #[must_use]
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flag: Option<&str>, env: &[(&str, &str)]) -> Result<(String, &'static str), Fault> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Address::resolve(flag, &get).map(|a| (a.authority(), a.source)).map_err(|e| e.fault)
    }

    #[test]
    fn addresses_by_table() {
        let ok = |text: &str, source| Ok((text.to_owned(), source));
        let consul = "CONSUL_HTTP_ADDR";
        for (flag, env, expected) in [
            (Some("localhost:1"), vec![("WEFT_HTTP_ADDR", "x:2")], ok("localhost:1", "--http-addr")),
            (Some("http://[::1]:9/"), vec![], ok("[::1]:9", "--http-addr")),
            (Some("host"), vec![], ok("host:8500", "--http-addr")),
            (None, vec![(consul, "http://h:1")], ok("h:1", consul)),
            (None, vec![(consul, "h:1"), ("WEFT_HTTP_ADDR", "w:2")], ok("w:2", "WEFT_HTTP_ADDR")),
            (None, vec![("WEFT_HTTP_ADDR", ""), (consul, "h:1")], ok("h:1", consul)),
            (Some("https://h:1"), vec![], Err(Fault::Usage)),
            (Some("unix:///run/x"), vec![], Err(Fault::Usage)),
            (Some("h:99999"), vec![], Err(Fault::Usage)),
            (Some("h:"), vec![], Err(Fault::Usage)),
            (Some(""), vec![], Err(Fault::Usage)),
            (Some("h\r\nx: y:1"), vec![], Err(Fault::Usage)),
            (Some("[::1]x"), vec![], Err(Fault::Usage)),
        ] {
            assert_eq!(resolve(flag, &env), expected, "{flag:?} {env:?}");
        }
        assert_eq!(resolve(None, &[]).unwrap().0, "127.0.0.1:8500");
    }
}
