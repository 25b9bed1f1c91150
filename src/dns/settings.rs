//! What the DNS server is told: domains, zones, lives of answers, limits of their size, recursors.
//!
//! `app` fills it from files and flags; the defaults are Consul's, but for `enable_truncate`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::rr::Name;

use super::DnsError;

/// Consul's limit of answers to clients without EDNS, whatever `udp_answer_limit` says.
pub(super) const MAX_SMALL_ANSWERS: usize = 8;

/// Settings of the answerer and of the server around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Below it are the names of Consul; targets of answers are always in it.
    pub domain: Domain,
    /// A second name for the same.
    pub alt_domain: Option<Domain>,
    pub zones: Vec<Zone>,
    /// Seconds that answers about nodes may be kept.
    pub node_ttl: u32,
    pub service_ttl: ServiceTtls,
    pub soa: Soa,
    /// Leaves out instances that are warning.
    pub only_passing: bool,
    /// Most answers over UDP to clients without EDNS; at most eight count.
    pub udp_answer_limit: usize,
    /// Most addresses in any answer.
    pub a_record_limit: Option<usize>,
    /// Says so (TC) when answers were left out for want of room, so that the client asks over TCP.
    pub enable_truncate: bool,
    pub compress: bool,
    /// Adds the metadata of nodes to answers that name them.
    pub node_meta_txt: bool,
    /// Who is asked about names of others. Without any, those are refused.
    pub recursors: Vec<SocketAddr>,
    pub recursor_timeout: Duration,
    pub recursor_order: RecursorOrder,
}

impl Settings {
    /// The defaults, below `domain`.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        Self {
            domain,
            alt_domain: None,
            zones: Vec::new(),
            node_ttl: 0,
            service_ttl: ServiceTtls::default(),
            soa: Soa::default(),
            only_passing: false,
            udp_answer_limit: 3,
            a_record_limit: None,
            enable_truncate: true,
            compress: true,
            node_meta_txt: true,
            recursors: Vec::new(),
            recursor_timeout: Duration::from_secs(2),
            recursor_order: RecursorOrder::Sequential,
        }
    }
}

/// In which order recursors are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecursorOrder {
    Sequential,
    Random,
}

/// A domain we answer for, as a name and as lower-case labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    pub name: Name,
    pub(super) labels: Vec<String>,
}

impl Domain {
    /// Reads a domain such as `consul` or `mesh.example.`.
    ///
    /// # Errors
    /// When it is not a DNS name, or the root.
    pub fn new(text: &str) -> Result<Self, DnsError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let labels: Vec<String> = text.split('.').map(str::to_owned).collect();
        let name = Name::from_labels(labels.iter().map(String::as_bytes));
        let name = name.map_err(|source| DnsError::Domain { text, source: Box::new(source) })?;
        Ok(Self { name, labels })
    }

    /// What stands before this domain in a name of lower-case labels.
    pub(super) fn strip<'n>(&self, labels: &'n [String]) -> Option<&'n [String]> {
        labels.strip_suffix(self.labels.as_slice())
    }
}

/// Consul's SOA fields, in seconds. Names that do not exist may be remembered for `min_ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soa {
    pub refresh: u32,
    pub retry: u32,
    pub expire: u32,
    pub min_ttl: u32,
}

impl Default for Soa {
    fn default() -> Self {
        Self { refresh: 3600, retry: 600, expire: 86_400, min_ttl: 0 }
    }
}

/// Seconds that answers about services may be kept, by exact name, `prefix*` or `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceTtls {
    exact: BTreeMap<String, u32>,
    prefixes: BTreeMap<String, u32>,
}

impl ServiceTtls {
    /// Sets one of them; `pattern` is compared without regard to case.
    pub fn insert(&mut self, pattern: &str, ttl: u32) {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_suffix('*') {
            Some(prefix) => self.prefixes.insert(prefix.to_owned(), ttl),
            None => self.exact.insert(pattern, ttl),
        };
    }

    /// The exact name wins, then the longest prefix; 0 when nothing fits.
    pub(super) fn of(&self, service: &str) -> u32 {
        let service = service.to_ascii_lowercase();
        let prefixes = || self.prefixes.iter().filter(|(prefix, _)| service.starts_with(*prefix));
        let exact = self.exact.get(&service).copied();
        let longest = || prefixes().max_by_key(|(prefix, _)| prefix.len()).map(|(_, ttl)| *ttl);
        exact.or_else(longest).unwrap_or(0)
    }
}

/// A zone beside Consul's domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub domain: Domain,
    pub kind: ZoneKind,
    /// Seconds that its answers may be kept.
    pub ttl: u32,
}

/// Whose rules a zone follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneKind {
    /// `<svc>.<ns>.svc.<zone>`, of the Kubernetes DNS specification 1.1.0.
    Kubernetes,
    /// `<svc>.<zone>` with up to eight healthy instances, as private namespaces of AWS Cloud Map.
    CloudMap {
        /// With nobody healthy, everybody is in the answer.
        all_when_unhealthy: bool,
    },
}

impl ZoneKind {
    /// CoreDNS answers for Kubernetes with 5 s; Cloud Map's records usually have 10 s.
    #[must_use]
    pub const fn default_ttl(self) -> u32 {
        match self {
            Self::Kubernetes => 5,
            Self::CloudMap { .. } => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_beats_longest_prefix_beats_star() {
        let mut ttls = ServiceTtls::default();
        for (pattern, ttl) in [("*", 5), ("web*", 10), ("web-a*", 20), ("Web-Api", 30)] {
            ttls.insert(pattern, ttl);
        }
        for (service, ttl) in [("db", 5), ("web", 10), ("WEBx", 10), ("web-ab", 20), ("web-api", 30)] {
            assert_eq!(ttls.of(service), ttl, "{service}");
        }
        assert_eq!(ServiceTtls::default().of("web"), 0);
    }

    #[test]
    fn domains_are_folded_and_checked() {
        let domain = Domain::new("Mesh.Example.").unwrap();
        assert_eq!(domain.name.to_string(), "mesh.example.");
        let labels = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(domain.strip(&labels("a.b.mesh.example")), Some(&labels("a.b")[..]));
        assert_eq!(domain.strip(&labels("xmesh.example")), None);
        for bad in ["", ".", "a..b", &"x".repeat(64)] {
            assert!(Domain::new(bad).is_err(), "{bad:?}");
        }
    }
}
