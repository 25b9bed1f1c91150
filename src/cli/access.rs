//! How a client command reaches the HTTP API, and as whom: flags win over `WEFT_*`, those over
//! `CONSUL_*`.
//!
//! Settings that were made and cannot have an effect are named in `notes`, which the command line says
//! once on stderr: nothing is ignored in silence. Secrets have no `Debug` and appear in no message.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::address::{Address, Endpoint, Env, variable};
use super::error::{CliError, Fault};
use super::tls::Tls;

/// Longest token file that is read.
const MAX_TOKEN_BYTES: u64 = 4096;
/// The only namespace and partition there is.
const DEFAULT_TENANT: &str = "default";
/// Variables that say how TLS is to be spoken.
const TLS: [&str; 6] =
    ["HTTP_SSL_VERIFY", "CACERT", "CAPATH", "CLIENT_CERT", "CLIENT_KEY", "TLS_SERVER_NAME"];
const TENANCY: [&str; 2] = ["NAMESPACE", "PARTITION"];

/// What the command line says about the connection. Only Consul's has all of these flags: Weft's takes
/// no token on the command line, which every user of the machine can read.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) http_addr: Option<String>,
    pub(super) token: Option<String>,
    pub(super) token_file: Option<String>,
    pub(super) datacenter: Option<String>,
    pub(super) stale: bool,
    /// Flags about TLS, with their values.
    pub(super) tls: Vec<(&'static str, String)>,
    /// Flags that choose a namespace or partition, with their values.
    pub(super) tenancy: Vec<(&'static str, String)>,
}

/// All that a client needs.
pub(super) struct Access {
    pub(super) address: Address,
    /// When the address speaks it.
    pub(super) tls: Option<Tls>,
    pub(super) token: Option<String>,
    /// Value of the Authorization header.
    pub(super) authorization: Option<String>,
    pub(super) datacenter: Option<String>,
    /// Any server may answer reads.
    pub(super) stale: bool,
    pub(super) notes: Vec<String>,
}

impl Access {
    /// # Errors
    /// When an address, a token file or a file of TLS cannot be used.
    pub(super) fn resolve(flags: &Flags, env: Env<'_>) -> Result<Self, CliError> {
        let address = Address::resolve(flags.http_addr.as_deref(), env)?;
        let tls = match &address.endpoint {
            Endpoint::Tcp { host, tls: true, .. } => Some(Tls::resolve(&flags.tls, env, host)?),
            _ => None,
        };
        let authorization = variable(env, "HTTP_AUTH")
            .map(|(credentials, _)| format!("Basic {}", STANDARD.encode(credentials)));
        Ok(Self {
            address,
            token: token(flags, env)?,
            authorization,
            datacenter: flags.datacenter.clone(),
            stale: flags.stale,
            notes: notes(flags, env, tls.is_some()),
            tls,
        })
    }
}

/// The first source that has one; in each of them a file wins over a value, as in Consul.
fn token(flags: &Flags, env: Env<'_>) -> Result<Option<String>, CliError> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let sources = [
        (flags.token_file.clone(), "-token-file", flags.token.clone()),
        (set("WEFT_HTTP_TOKEN_FILE"), "WEFT_HTTP_TOKEN_FILE", set("WEFT_HTTP_TOKEN")),
        (set("CONSUL_HTTP_TOKEN_FILE"), "CONSUL_HTTP_TOKEN_FILE", set("CONSUL_HTTP_TOKEN")),
    ];
    for (file, name, value) in sources {
        if let Some(file) = file {
            return read_token(Path::new(&file), name).map(Some);
        }
        if value.is_some() {
            return Ok(value);
        }
    }
    Ok(None)
}

fn read_token(file: &Path, source: &str) -> Result<String, CliError> {
    let fault = |why: String| {
        let what = format!("no token can be read from {}: {why}", file.display());
        CliError::new(Fault::Usage, what, source, "name a file that holds the token and nothing else")
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(|cause| fault(cause.to_string()))?;
    opened.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(|cause| fault(cause.to_string()))?;
    let token = text.trim();
    if token.is_empty() { Err(fault("it is empty".to_owned())) } else { Ok(token.to_owned()) }
}

/// Go's words.
pub(super) fn parse_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn notes(flags: &Flags, env: Env<'_>, speaks_tls: bool) -> Vec<String> {
    let mut tls: Vec<String> = flags.tls.iter().map(|(name, _)| format!("-{name}")).collect();
    tls.extend(TLS.iter().filter_map(|name| variable(env, name)).map(|(_, name)| name));
    if speaks_tls {
        tls.clear();
    }
    let mut tenants: Vec<(String, String)> =
        flags.tenancy.iter().map(|(name, value)| (format!("-{name}"), value.clone())).collect();
    tenants.extend(TENANCY.iter().filter_map(|name| variable(env, name)).map(|(v, name)| (name, v)));
    tenants.retain(|(_, value)| !value.is_empty() && value != DEFAULT_TENANT);
    let tenants: Vec<String> =
        tenants.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let lists = [
        (tls, "the address is not `https://`"),
        (tenants, "there is one namespace and one partition, `default`"),
    ];
    let named = lists.into_iter().filter(|(names, _)| !names.is_empty());
    named
        .map(|(names, why)| {
            let verb = if names.len() == 1 { "has" } else { "have" };
            format!("note: {} {verb} no effect: {why}", names.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &Flags, env: &[(&str, &str)]) -> Result<Access, CliError> {
        let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Access::resolve(flags, &get)
    }

    #[test]
    fn tokens_by_table() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, " from-file\n").unwrap();
        let file = file.to_str().unwrap();
        for (flag, env, expected) in [
            (None, vec![], None),
            (None, vec![("CONSUL_HTTP_TOKEN", "c")], Some("c")),
            (None, vec![("CONSUL_HTTP_TOKEN", "c"), ("WEFT_HTTP_TOKEN", "w")], Some("w")),
            (None, vec![("CONSUL_HTTP_TOKEN", "c"), ("WEFT_HTTP_TOKEN", "")], Some("c")),
            (
                None,
                vec![("CONSUL_HTTP_TOKEN", "c"), ("CONSUL_HTTP_TOKEN_FILE", file)],
                Some("from-file"),
            ),
            (None, vec![("CONSUL_HTTP_TOKEN_FILE", file), ("WEFT_HTTP_TOKEN", "w")], Some("w")),
            (Some("flag"), vec![("WEFT_HTTP_TOKEN_FILE", file)], Some("flag")),
        ] {
            let flags = Flags { token: flag.map(str::to_owned), ..Flags::default() };
            let access = resolve(&flags, &env).unwrap();
            assert_eq!(access.token.as_deref(), expected, "{flag:?} {env:?}");
        }
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        for bad in [empty.to_str().unwrap(), "/nonexistent/token"] {
            let fault = resolve(&Flags::default(), &[("WEFT_HTTP_TOKEN_FILE", bad)]);
            assert_eq!(fault.err().unwrap().fault, Fault::Usage, "{bad}");
        }
    }

    #[test]
    fn what_has_no_effect_is_named_once() {
        let flags = Flags {
            tls: vec![("ca-file", "x".to_owned())],
            tenancy: vec![("namespace", "team".to_owned())],
            ..Flags::default()
        };
        let env = [("CONSUL_CACERT", "/x"), ("WEFT_CACERT", "/y"), ("CONSUL_NAMESPACE", "default")];
        assert_eq!(
            resolve(&flags, &env).unwrap().notes,
            [
                "note: -ca-file, WEFT_CACERT have no effect: the address is not `https://`",
                "note: -namespace=team has no effect: there is one namespace and one partition, `default`",
            ]
        );
        assert!(resolve(&Flags::default(), &[("CONSUL_HTTP_SSL", "false")]).unwrap().notes.is_empty());
    }

    #[test]
    fn tls_that_cannot_be_had_is_an_error_and_never_played_down() {
        let https = [("CONSUL_HTTP_SSL", "true")];
        for more in [
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
            ("CONSUL_CACERT", "/nonexistent/ca.pem"),
            ("CONSUL_CLIENT_CERT", "/half.pem"),
            ("CONSUL_TLS_SERVER_NAME", "not a name"),
        ] {
            let fault = resolve(&Flags::default(), &[https[0], more]).err().unwrap();
            assert_eq!(fault.fault, Fault::Usage, "{more:?}");
        }
    }

    #[test]
    fn credentials_become_a_header() {
        let access = resolve(&Flags::default(), &[("CONSUL_HTTP_AUTH", "user:pass")]).unwrap();
        assert_eq!(access.authorization.as_deref(), Some("Basic dXNlcjpwYXNz"));
    }
}
