//! Where the HTTP API is: a flag, a variable of the environment, or the default; and which of them.

use std::path::PathBuf;

use super::access::parse_bool;
use super::error::{CliError, Fault};

/// Port of the HTTP API when an address names none.
const DEFAULT_PORT: u16 = 8500;
const DEFAULT_TLS_PORT: u16 = 8501;
const DEFAULT: &str = "127.0.0.1:8500";
const DEFAULT_TLS: &str = "127.0.0.1:8501";

/// A variable of the environment by name; empty ones are not set.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An address and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) endpoint: Endpoint,
    /// Which flag or variable said so.
    pub(super) source: String,
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp {
        /// Without brackets.
        host: String,
        port: u16,
        tls: bool,
    },
    Unix(PathBuf),
}

impl Address {
    /// The flag, `WEFT_HTTP_ADDR`, `CONSUL_HTTP_ADDR` or the default, in that order.
    ///
    /// # Errors
    /// When the first that is set is neither `host:port`, with or without `http://` or `https://`, nor
    /// `unix:///path`.
    pub(super) fn resolve(flag: Option<&str>, env: Env<'_>) -> Result<Self, CliError> {
        let ssl = wants_tls(env)?;
        if let Some(text) = flag {
            return Self::parse(text, "--http-addr", ssl);
        }
        match variable(env, "HTTP_ADDR") {
            Some((text, name)) => Self::parse(&text, &name, ssl),
            None => {
                let source = "default (no --http-addr, WEFT_HTTP_ADDR or CONSUL_HTTP_ADDR set)";
                Self::parse(if ssl { DEFAULT_TLS } else { DEFAULT }, source, ssl)
            }
        }
    }

    /// TLS that was asked for is spoken, whatever the scheme says.
    fn parse(text: &str, source: &str, ssl: bool) -> Result<Self, CliError> {
        let refuse = |why: &str| {
            CliError::new(
                Fault::Usage,
                format!("`{text}` is not an address of the HTTP API: {why}"),
                source,
                "use host:port, http://host:port, https://host:port or unix:///path, such as 127.0.0.1:8500",
            )
        };
        let (rest, tls) = match text.split_once("://") {
            None => (text, ssl),
            Some((scheme @ ("http" | "https"), rest)) => {
                (rest.strip_suffix('/').unwrap_or(rest), ssl || scheme == "https")
            }
            Some(("unix", path)) if !path.is_empty() => {
                return Ok(Self {
                    endpoint: Endpoint::Unix(PathBuf::from(path)),
                    source: source.to_owned(),
                });
            }
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
            None if port.is_empty() && tls => DEFAULT_TLS_PORT,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(refuse("something else than a port follows the host")),
            Some(port) => port.parse().map_err(|_| refuse("the port is not a number up to 65535"))?,
        };
        let endpoint = Endpoint::Tcp { host: host.to_owned(), port, tls };
        Ok(Self { endpoint, source: source.to_owned() })
    }

    /// `host:port` as it stands in a Host header; a socket has no host and is this machine.
    #[must_use]
    pub(super) fn authority(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
            Endpoint::Unix(_) => "localhost".to_owned(),
        }
    }

    /// For people.
    #[must_use]
    pub(super) fn url(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { tls: true, .. } => format!("https://{}", self.authority()),
            Endpoint::Tcp { .. } => format!("http://{}", self.authority()),
            Endpoint::Unix(path) => format!("unix://{}", path.display()),
        }
    }
}

/// To send a token in the clear when TLS was asked for would betray it.
fn wants_tls(env: Env<'_>) -> Result<bool, CliError> {
    let Some((value, name)) = variable(env, "HTTP_SSL") else { return Ok(false) };
    parse_bool(&value).ok_or_else(|| {
        let what = format!("`{value}` is neither true nor false");
        CliError::new(Fault::Usage, what, name, "use true or false")
    })
}

/// The value and the name of `WEFT_…` or, when that is not set, of `CONSUL_…`.
pub(super) fn variable(env: Env<'_>, name: &str) -> Option<(String, String)> {
    ["WEFT", "CONSUL"].into_iter().find_map(|prefix| {
        let name = format!("{prefix}_{name}");
        env(&name).filter(|value| !value.is_empty()).map(|value| (value, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flag: Option<&str>, env: &[(&str, &str)]) -> Result<(String, String), Fault> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let url = |a: Address| a.url().trim_start_matches("http://").to_owned();
        Address::resolve(flag, &get).map(|a| (url(a.clone()), a.source)).map_err(|e| e.fault)
    }

    #[test]
    fn addresses_by_table() {
        let ok = |text: &str, source: &str| Ok((text.to_owned(), source.to_owned()));
        let consul = "CONSUL_HTTP_ADDR";
        for (flag, env, expected) in [
            (Some("localhost:1"), vec![("WEFT_HTTP_ADDR", "x:2")], ok("localhost:1", "--http-addr")),
            (Some("http://[::1]:9/"), vec![], ok("[::1]:9", "--http-addr")),
            (Some("host"), vec![], ok("host:8500", "--http-addr")),
            (None, vec![(consul, "http://h:1")], ok("h:1", consul)),
            (None, vec![(consul, "h:1"), ("WEFT_HTTP_ADDR", "w:2")], ok("w:2", "WEFT_HTTP_ADDR")),
            (None, vec![("WEFT_HTTP_ADDR", ""), (consul, "h:1")], ok("h:1", consul)),
            (Some("https://h:1"), vec![], ok("https://h:1", "--http-addr")),
            (Some("https://h"), vec![], ok("https://h:8501", "--http-addr")),
            (Some("http://h:1"), vec![("WEFT_HTTP_SSL", "true")], ok("https://h:1", "--http-addr")),
            (Some("h:1"), vec![("CONSUL_HTTP_SSL", "1")], ok("https://h:1", "--http-addr")),
            (Some("h:1"), vec![("CONSUL_HTTP_SSL", "false")], ok("h:1", "--http-addr")),
            (Some("h:1"), vec![("CONSUL_HTTP_SSL", "yes")], Err(Fault::Usage)),
            (Some("ftp://h:1"), vec![], Err(Fault::Usage)),
            (Some("unix:///run/x"), vec![], ok("unix:///run/x", "--http-addr")),
            (Some("unix://"), vec![], Err(Fault::Usage)),
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
