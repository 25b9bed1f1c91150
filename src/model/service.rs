//! Services and their instances: what a user declares, and what the catalog holds.
//!
//! A `Definition` is what a config file, a sidecar or the API hands in. `Definition::expand` turns it
//! into catalog records by Consul's rules: the instance itself and, when it asks for one, its sidecar
//! as a second instance of kind `connect-proxy`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::{Check, CheckDefinition, CheckKind, CheckStatus};
use super::name::{InstanceId, NameError, NodeName, ServiceName};

/// First and last port handed to sidecars, Consul's defaults.
pub const SIDECAR_PORTS: std::ops::RangeInclusive<u16> = 21000..=21255;
/// Interval of the check that a sidecar listens.
const SIDECAR_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Default deadline of a check, Consul's.
pub const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Share of the load an instance takes while passing and while warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    pub passing: u32,
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// What an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An application.
    #[default]
    Typical,
    /// A sidecar in front of an application.
    ConnectProxy,
}

impl Kind {
    /// Consul's word: empty for an application.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Typical => "",
            Self::ConnectProxy => "connect-proxy",
        }
    }
}

/// Address and port of an instance under a name such as `lan` or `wan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedAddress {
    pub address: String,
    pub port: u16,
}

/// A service that a sidecar's application reaches through a local port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    pub destination: ServiceName,
    /// Empty means `127.0.0.1`.
    pub local_bind_address: String,
    pub local_bind_port: u16,
    pub datacenter: String,
    /// Consul's opaque settings: `connect_timeout_ms`, `limits`, `passive_health_check`, …
    pub config: BTreeMap<String, Value>,
}

impl Upstream {
    /// The address to listen on, as text.
    #[must_use]
    pub fn bind_address(&self) -> &str {
        if self.local_bind_address.is_empty() { "127.0.0.1" } else { &self.local_bind_address }
    }
}

/// The proxy part of a sidecar's registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxySpec {
    pub destination: ServiceName,
    pub destination_id: InstanceId,
    /// Where the sidecar finds its application.
    pub local_address: String,
    pub local_port: u16,
    pub upstreams: Vec<Upstream>,
    pub config: BTreeMap<String, Value>,
}

/// The `connect.sidecar_service` block of a definition. `None` means "Consul's default".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sidecar {
    pub name: Option<ServiceName>,
    pub port: Option<u16>,
    pub address: Option<String>,
    pub tags: Vec<String>,
    pub meta: BTreeMap<String, String>,
    pub weights: Option<Weights>,
    /// Empty means Consul's two: "Connect Sidecar Listening" and the alias of the application.
    pub checks: Vec<CheckDefinition>,
    pub local_service_address: Option<String>,
    pub local_service_port: Option<u16>,
    pub upstreams: Vec<Upstream>,
    pub config: BTreeMap<String, Value>,
}

/// A service instance as its owner declares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub id: InstanceId,
    pub name: ServiceName,
    pub tags: Vec<String>,
    pub meta: BTreeMap<String, String>,
    /// Empty means the address of the node.
    pub address: String,
    pub port: u16,
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    pub weights: Weights,
    pub enable_tag_override: bool,
    /// The application speaks Connect's mutual TLS itself.
    pub native: bool,
    /// Ids and names are already filled in by Consul's rules.
    pub checks: Vec<CheckDefinition>,
    pub sidecar: Option<Sidecar>,
    /// Makes this a proxy that was registered by hand, of kind `connect-proxy`.
    pub proxy: Option<ProxySpec>,
}

/// An instance as the catalog holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub node: NodeName,
    pub id: InstanceId,
    pub name: ServiceName,
    pub kind: Kind,
    pub tags: Vec<String>,
    pub meta: BTreeMap<String, String>,
    /// Empty means the address of the node.
    pub address: String,
    pub port: u16,
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    pub weights: Weights,
    pub enable_tag_override: bool,
    pub native: bool,
    pub proxy: Option<ProxySpec>,
}

/// An instance and the checks on it, written to the catalog together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub instance: Instance,
    pub checks: Vec<Check>,
}

/// Name and id of the service as which every server is in the catalog, as in Consul.
pub const SERVER_SERVICE: &str = "consul";

impl Instance {
    /// Whether this is a server's own entry, which its agent does not list.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.id.as_str() == SERVER_SERVICE && self.name.as_str() == SERVER_SERVICE
    }
}

impl Definition {
    /// A definition with nothing but a name and a port; the id is the name, as in Consul.
    ///
    /// # Errors
    /// Never in practice: a service name is a valid instance id.
    pub fn new(name: ServiceName, port: u16) -> Result<Self, NameError> {
        Ok(Self {
            id: InstanceId::new(name.as_str())?,
            name,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            address: String::new(),
            port,
            tagged_addresses: BTreeMap::new(),
            weights: Weights::default(),
            enable_tag_override: false,
            native: false,
            checks: Vec::new(),
            sidecar: None,
            proxy: None,
        })
    }

    /// The catalog records of this definition on `node`: the instance and, with a sidecar, the
    /// sidecar listening on `sidecar_port`.
    ///
    /// # Errors
    /// When the derived name or id of the sidecar is too long.
    pub fn expand(&self, node: &NodeName, sidecar_port: u16) -> Result<Vec<Registration>, NameError> {
        let instance = Instance {
            node: node.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            kind: if self.proxy.is_some() { Kind::ConnectProxy } else { Kind::Typical },
            tags: self.tags.clone(),
            meta: self.meta.clone(),
            address: self.address.clone(),
            port: self.port,
            tagged_addresses: self.tagged_addresses.clone(),
            weights: self.weights,
            enable_tag_override: self.enable_tag_override,
            native: self.native,
            proxy: self.proxy.clone(),
        };
        let mut all = vec![registration(instance, &self.checks)];
        if let Some(sidecar) = &self.sidecar {
            all.push(self.expand_sidecar(sidecar, node, sidecar_port)?);
        }
        Ok(all)
    }

    /// `surface 15.1`: id and name derive from the parent, tags and meta are inherited when unset.
    fn expand_sidecar(
        &self,
        sidecar: &Sidecar,
        node: &NodeName,
        port: u16,
    ) -> Result<Registration, NameError> {
        let name = match &sidecar.name {
            Some(name) => name.clone(),
            None => ServiceName::new(format!("{}-sidecar-proxy", self.name))?,
        };
        let local_address =
            sidecar.local_service_address.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        let instance = Instance {
            node: node.clone(),
            id: InstanceId::new(format!("{}-sidecar-proxy", self.id))?,
            name,
            kind: Kind::ConnectProxy,
            tags: if sidecar.tags.is_empty() { self.tags.clone() } else { sidecar.tags.clone() },
            meta: if sidecar.meta.is_empty() { self.meta.clone() } else { sidecar.meta.clone() },
            address: sidecar.address.clone().unwrap_or_else(|| self.address.clone()),
            port: sidecar.port.unwrap_or(port),
            tagged_addresses: BTreeMap::new(),
            weights: sidecar.weights.unwrap_or_default(),
            enable_tag_override: false,
            native: false,
            proxy: Some(ProxySpec {
                destination: self.name.clone(),
                destination_id: self.id.clone(),
                local_address: local_address.clone(),
                local_port: sidecar.local_service_port.unwrap_or(self.port),
                upstreams: sidecar.upstreams.clone(),
                config: sidecar.config.clone(),
            }),
        };
        if !sidecar.checks.is_empty() {
            return Ok(registration(instance, &sidecar.checks));
        }
        let checks = default_sidecar_checks(&instance, &self.id, &local_address);
        Ok(registration(instance, &checks))
    }
}

/// The two checks Consul gives a sidecar that declares none.
fn default_sidecar_checks(
    sidecar: &Instance,
    parent: &InstanceId,
    local_address: &str,
) -> [CheckDefinition; 2] {
    let host = if sidecar.address.is_empty() { local_address } else { &sidecar.address };
    let check = |number: u8, name: String, kind, interval| CheckDefinition {
        id: format!("service:{}:{number}", sidecar.id),
        name,
        notes: String::new(),
        kind,
        interval,
        timeout: DEFAULT_CHECK_TIMEOUT,
        initial: CheckStatus::Critical,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    };
    let address = format!("{host}:{}", sidecar.port);
    [
        check(
            1,
            "Connect Sidecar Listening".to_owned(),
            CheckKind::Tcp { address, use_tls: false, tls_skip_verify: false },
            SIDECAR_CHECK_INTERVAL,
        ),
        check(
            2,
            format!("Connect Sidecar Aliasing {parent}"),
            CheckKind::Alias { service: Some(parent.clone()), node: None },
            Duration::ZERO,
        ),
    ]
}

fn registration(instance: Instance, checks: &[CheckDefinition]) -> Registration {
    let about = || Some((instance.id.clone(), instance.name.clone()));
    let check = |definition| Check::declared(&instance.node, about(), definition);
    let checks = checks.iter().map(check).collect();
    Registration { instance, checks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Definition {
        let mut web = Definition::new(ServiceName::new("web").unwrap(), 8080).unwrap();
        web.tags = vec!["v1".to_owned()];
        web
    }

    #[test]
    fn a_sidecar_inherits_from_its_parent() {
        let mut web = web();
        web.sidecar = Some(Sidecar::default());
        let all = web.expand(&NodeName::new("n1").unwrap(), 21000).unwrap();
        let sidecar = &all[1].instance;
        assert_eq!(sidecar.id.as_str(), "web-sidecar-proxy");
        assert_eq!((sidecar.kind, sidecar.port), (Kind::ConnectProxy, 21000));
        assert_eq!(sidecar.tags, ["v1"]);
        let proxy = sidecar.proxy.as_ref().unwrap();
        assert_eq!((proxy.local_address.as_str(), proxy.local_port), ("127.0.0.1", 8080));
        let names: Vec<_> = all[1].checks.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["Connect Sidecar Listening", "Connect Sidecar Aliasing web"]);
        let ids: Vec<_> = all[1].checks.iter().map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["service:web-sidecar-proxy:1", "service:web-sidecar-proxy:2"]);
    }

    #[test]
    fn without_a_sidecar_there_is_one_record() {
        assert_eq!(web().expand(&NodeName::new("n1").unwrap(), 0).unwrap().len(), 1);
    }
}
