//! How a client command speaks TLS: which authorities it believes, what it shows, whom it expects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::access::parse_bool;
use super::address::{Env, variable};
use super::error::{CliError, Fault};
use crate::tls::files::{KeyFiles, client_config};

/// Where systems keep the authorities they believe, the usual ones first.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The settings of one connection.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Tls {
    /// For a server called `host`, by the flags of Consul and the environment.
    ///
    /// # Errors
    /// When a file cannot be used, half of a pair is missing, or no verification is asked for.
    pub(super) fn resolve(
        flags: &[(&'static str, String)],
        env: Env<'_>,
        host: &str,
    ) -> Result<Self, CliError> {
        let setting = |flag: &str, name: &str| {
            let given = flags.iter().find(|(known, value)| *known == flag && !value.is_empty());
            given.map(|(_, value)| value.clone()).or_else(|| variable(env, name).map(|(value, _)| value))
        };
        refuse_blindness(env)?;
        let path = |flag, name| setting(flag, name).map(PathBuf::from);
        let named = [path("ca-file", "CACERT"), path("ca-path", "CAPATH")];
        let named: Vec<PathBuf> = named.into_iter().flatten().collect();
        let authorities = if named.is_empty() { vec![of_system(env)?] } else { named };
        let keys = match (path("client-cert", "CLIENT_CERT"), path("client-key", "CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some(KeyFiles { certificate, key }),
            (None, None) => None,
            _ => {
                return Err(usage(
                    "a client certificate and its key go together",
                    "CLIENT_CERT, CLIENT_KEY",
                ));
            }
        };
        let config = client_config(&authorities, keys.as_ref()).map_err(|fault| {
            let next = "name the authority of the server's certificate with WEFT_CACERT";
            CliError::new(Fault::Usage, fault.to_string(), "the settings of TLS", next)
        })?;
        let name = setting("tls-server-name", "TLS_SERVER_NAME").unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name.clone())
            .map_err(|_| usage(format!("`{name}` is no name of a server"), "TLS_SERVER_NAME"))?;
        Ok(Self { config, name })
    }
}

/// A token must not be sent to whoever answers.
fn refuse_blindness(env: Env<'_>) -> Result<(), CliError> {
    match variable(env, "HTTP_SSL_VERIFY") {
        Some((value, name)) if parse_bool(&value) != Some(true) => Err(CliError::new(
            Fault::Usage,
            "the certificate of the server is always verified",
            format!("{name}={value}"),
            "unset it, and name the authority of the certificate with WEFT_CACERT",
        )),
        _ => Ok(()),
    }
}

fn of_system(env: Env<'_>) -> Result<PathBuf, CliError> {
    let set = env("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || SYSTEM.iter().map(PathBuf::from).find(|path| Path::is_file(path));
    set.or_else(usual).ok_or_else(|| usage("this system names no authorities", "WEFT_CACERT is not set"))
}

fn usage(what: impl Into<String>, evidence: &str) -> CliError {
    let next = "name the authority of the server's certificate with WEFT_CACERT=FILE";
    CliError::new(Fault::Usage, what, evidence, next)
}
