//! The top level of a file, and the keys of Consul's agent that a server takes over.

use std::net::IpAddr;
use std::path::PathBuf;

use tracing::Level;

use super::agent_schema::{ACL, ADDRESSES, PORTS, TLS, TLS_BLOCK, TOP};
use super::dns::{self, DnsKeys};
use super::fields::Fields;
use crate::config::diagnostic::Code;
use crate::config::report::Report;
use crate::config::value::Value;
use crate::model::{Action, NodeName};

/// Longest name of a datacenter: it is part of every SPIFFE ID and DNS name.
const MAX_DATACENTER_BYTES: usize = 63;

/// What a `ports` entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSetting {
    /// Do not listen (`-1` or `0`).
    Off,
    At(u16),
}

/// Settings of a server that files may give; `None` where no file does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentKeys {
    /// Lower-cased, as Consul does.
    pub datacenter: Option<String>,
    pub node_name: Option<NodeName>,
    pub data_dir: Option<PathBuf>,
    pub log_level: Option<Level>,
    pub http_port: Option<PortSetting>,
    pub grpc_tls_port: Option<PortSetting>,
    pub dns_port: Option<PortSetting>,
    /// Where all listeners are bound that have no address of their own.
    pub client_addr: Option<IpAddr>,
    pub http_address: Option<IpAddr>,
    pub https_port: Option<PortSetting>,
    pub https_address: Option<IpAddr>,
    /// `tls.https`, over `tls.defaults`.
    pub https: HttpsKeys,
    /// `addresses.grpc_tls`, or `addresses.grpc`.
    pub grpc_address: Option<IpAddr>,
    pub dns_address: Option<IpAddr>,
    pub advertise_addr: Option<IpAddr>,
    /// Whether checks in files may run programs of this machine; the API never may.
    pub scripts: Option<bool>,
    /// Whether the HTTP API wants tokens: an enabled `acl` block that denies by default.
    pub require_token: Option<bool>,
    /// What `default_intention_policy` says; without it, the default policy of an enabled `acl`
    /// block, on which Consul falls back.
    pub default_intention_policy: Option<Action>,
    pub dns: DnsKeys,
}

/// The files of an HTTPS port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpsKeys {
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    /// Whether clients need a certificate of `ca_file`.
    pub verify_incoming: Option<bool>,
}

impl AgentKeys {
    /// The keys, as files spell them, that say something else in `other`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let all = [
            ("datacenter", self.datacenter != other.datacenter),
            ("node_name", self.node_name != other.node_name),
            ("data_dir", self.data_dir != other.data_dir),
            ("log_level", self.log_level != other.log_level),
            ("ports.http", self.http_port != other.http_port),
            ("ports.grpc_tls", self.grpc_tls_port != other.grpc_tls_port),
            ("ports.dns", self.dns_port != other.dns_port),
            ("client_addr", self.client_addr != other.client_addr),
            ("addresses.http", self.http_address != other.http_address),
            ("ports.https", self.https_port != other.https_port),
            ("addresses.https", self.https_address != other.https_address),
            ("tls", self.https != other.https),
            ("addresses.grpc_tls", self.grpc_address != other.grpc_address),
            ("addresses.dns", self.dns_address != other.dns_address),
            ("acl", self.require_token != other.require_token),
            ("advertise_addr", self.advertise_addr != other.advertise_addr),
            (
                "default_intention_policy",
                self.default_intention_policy != other.default_intention_policy,
            ),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// The agent keys while files are still being read.
#[derive(Default)]
pub(in crate::config) struct AgentDraft {
    keys: AgentKeys,
    acl_enabled: Option<bool>,
    acl_default: Option<Action>,
}

impl AgentDraft {
    /// The keys of all files. Whoever denied by default in Consul must find neither the mesh nor the
    /// API open.
    pub(in crate::config) fn finish(self) -> AgentKeys {
        let mut keys = self.keys;
        if self.acl_enabled == Some(true) && keys.default_intention_policy.is_none() {
            keys.default_intention_policy = self.acl_default;
        }
        if self.acl_enabled == Some(true) && self.acl_default == Some(Action::Deny) {
            keys.require_token = Some(true);
        }
        keys
    }
}

/// Checks the keys at the top of a file and takes over those of the agent; what the file does not
/// say stays as it is in `draft`.
pub(super) fn decode<'v>(
    report: &mut Report<'_>,
    root: &'v Value,
    draft: &mut AgentDraft,
) -> Option<Fields<'v>> {
    let fields = Fields::open(report, &TOP, "configuration", root)?;
    acl(report, &fields, draft);
    let agent = &mut draft.keys;
    set(&mut agent.datacenter, fields.parsed(report, "datacenter", datacenter));
    set(&mut agent.node_name, fields.parsed(report, "node_name", NodeName::new));
    set(&mut agent.data_dir, fields.parsed(report, "data_dir", path));
    set(&mut agent.log_level, fields.parsed(report, "log_level", log_level));
    set(&mut agent.client_addr, fields.parsed(report, "client_addr", ip_address));
    set(&mut agent.advertise_addr, fields.parsed(report, "advertise_addr", ip_address));
    set(&mut agent.scripts, fields.boolean(report, "enable_script_checks"));
    set(&mut agent.scripts, fields.boolean(report, "enable_local_script_checks"));
    ports(report, &fields, agent);
    addresses(report, &fields, agent);
    tls(report, &fields, agent);
    dns::decode(report, &fields, &mut agent.dns);
    let policy = fields.parsed(report, "default_intention_policy", action);
    set(&mut agent.default_intention_policy, policy);
    Some(fields)
}

pub(super) fn set<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

fn ports(report: &mut Report<'_>, fields: &Fields<'_>, agent: &mut AgentKeys) {
    let Some(entry) = fields.object(report, "ports") else { return };
    let Some(ports) = Fields::open(report, &PORTS, &entry.key, &entry.value) else { return };
    set(&mut agent.http_port, port(report, &ports, "http"));
    set(&mut agent.https_port, port(report, &ports, "https"));
    set(&mut agent.grpc_tls_port, port(report, &ports, "grpc_tls"));
    set(&mut agent.dns_port, port(report, &ports, "dns"));
}

fn port(report: &mut Report<'_>, ports: &Fields<'_>, key: &'static str) -> Option<PortSetting> {
    let (value, _) = ports.integer(report, key, -1..=i64::from(u16::MAX))?;
    Some(match u16::try_from(value) {
        Ok(port) if port != 0 => PortSetting::At(port),
        _ => PortSetting::Off,
    })
}

fn addresses(report: &mut Report<'_>, fields: &Fields<'_>, agent: &mut AgentKeys) {
    let Some(entry) = fields.object(report, "addresses") else { return };
    let Some(addresses) = Fields::open(report, &ADDRESSES, &entry.key, &entry.value) else { return };
    set(&mut agent.http_address, addresses.parsed(report, "http", ip_address));
    set(&mut agent.https_address, addresses.parsed(report, "https", ip_address));
    set(&mut agent.grpc_address, addresses.parsed(report, "grpc", ip_address));
    set(&mut agent.grpc_address, addresses.parsed(report, "grpc_tls", ip_address));
    set(&mut agent.dns_address, addresses.parsed(report, "dns", ip_address));
}

/// What is said of HTTPS wins over what is said of all.
fn tls(report: &mut Report<'_>, fields: &Fields<'_>, agent: &mut AgentKeys) {
    let Some(entry) = fields.object(report, "tls") else { return };
    let Some(tls) = Fields::open(report, &TLS, &entry.key, &entry.value) else { return };
    for key in ["defaults", "https"] {
        let Some(entry) = tls.object(report, key) else { continue };
        let Some(block) = Fields::open(report, &TLS_BLOCK, &entry.key, &entry.value) else { continue };
        let https = &mut agent.https;
        set(&mut https.cert_file, block.parsed(report, "cert_file", path));
        set(&mut https.key_file, block.parsed(report, "key_file", path));
        set(&mut https.ca_file, block.parsed(report, "ca_file", path));
        set(&mut https.verify_incoming, block.boolean(report, "verify_incoming"));
    }
}

fn acl(report: &mut Report<'_>, fields: &Fields<'_>, draft: &mut AgentDraft) {
    let Some(entry) = fields.object(report, "acl") else { return };
    let Some(acl) = Fields::open(report, &ACL, &entry.key, &entry.value) else { return };
    let policy = acl.parsed(report, "default_policy", acl_policy);
    set(&mut draft.acl_default, policy);
    let enabled = acl.boolean(report, "enabled");
    set(&mut draft.acl_enabled, enabled);
    if enabled == Some(true) && policy != Some(Action::Deny) {
        let message = "`acl` does not protect the HTTP API, unless its `default_policy` is \"deny\"";
        let fault = report.warning(Code::NoEffect, entry.key_span, message);
        fault.help("whoever sends no token may do everything; keep the API on loopback");
    }
}

fn datacenter(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if text.len() <= MAX_DATACENTER_BYTES && text.bytes().all(is_plain) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "`datacenter` has only letters, digits, `-` and `_`, at most {MAX_DATACENTER_BYTES}"
        ))
    }
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.contains('\0') { Err("this is not a path") } else { Ok(PathBuf::from(text)) }
}

fn log_level(text: &str) -> Result<Level, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "trace" => Ok(Level::TRACE),
        "debug" => Ok(Level::DEBUG),
        "info" => Ok(Level::INFO),
        "warn" => Ok(Level::WARN),
        "err" | "error" => Ok(Level::ERROR),
        _ => Err("`log_level` must be trace, debug, info, warn or error"),
    }
}

fn ip_address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(
        |_| "this must be one IP address; lists, templates, host names and sockets are not supported",
    )
}

fn action(text: &str) -> Result<Action, &'static str> {
    Action::parse(text).ok_or("`default_intention_policy` must be \"allow\", \"deny\" or \"audit\"")
}

fn acl_policy(text: &str) -> Result<Action, &'static str> {
    match text {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        _ => Err("`default_policy` must be \"allow\" or \"deny\""),
    }
}
