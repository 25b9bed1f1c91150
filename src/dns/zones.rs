//! Zones beside Consul's domain: names as Kubernetes and AWS Cloud Map give them, over the same
//! catalog. Pure.
//!
//! There are no virtual addresses: every service answers as a headless one, with its healthy
//! instances. In which namespace an instance is, and what its port is called, its metadata says.

use hickory_proto::rr::{Name, RecordType};

use super::answer::{Answer, Asking, Host, name_of, txt};
use super::registry::Registry;
use super::settings::{Zone, ZoneKind};
use crate::catalog::HealthEntry;
use crate::model::ServiceName;

/// Version of the Kubernetes DNS specification that zones of that kind follow.
const SCHEMA_VERSION: &str = "1.1.0";
/// Metadata of an instance: its namespace, [`DEFAULT_NAMESPACE`] without it.
const NAMESPACE: &str = "k8s-namespace";
const DEFAULT_NAMESPACE: &str = "default";
/// Metadata of an instance: the name and, if not `tcp`, the protocol of its port.
const PORT_NAME: &str = "k8s-port-name";
const PORT_PROTOCOL: &str = "k8s-port-protocol";
const DEFAULT_PROTOCOL: &str = "tcp";
/// Most records of a MULTIVALUE answer.
const MULTIVALUE: usize = 8;
/// Longest label.
const MAX_LABEL_BYTES: usize = 63;

/// Where the instances of a service have their names.
struct Place<'z> {
    zone: &'z Zone,
    /// Labels of the service below the zone, such as `web.default.svc`.
    service: &'z [String],
    /// Most instances in an answer.
    limit: usize,
}

impl<R: Registry> Asking<'_, R> {
    /// Answers for a name in a zone; `labels` are what stands before the zone's name.
    pub(super) fn zone(&mut self, zone: &Zone, labels: &[String]) -> Answer {
        match zone.kind {
            ZoneKind::Kubernetes => self.kubernetes(zone, labels),
            ZoneKind::CloudMap { all_when_unhealthy } => {
                self.cloud_map(zone, labels, all_when_unhealthy)
            }
        }
    }

    fn kubernetes(&mut self, zone: &Zone, labels: &[String]) -> Answer {
        let (before, service) = labels.split_at(labels.len().saturating_sub(3));
        match (before, service) {
            // What other names stand below exists, without records of its own.
            ([], []) => return self.nothing(&zone.domain),
            ([], [.., svc]) if svc == "svc" && service.len() < 3 => return self.nothing(&zone.domain),
            ([], [label]) if label == "dns-version" => return self.version(zone),
            (_, [_, _, svc]) if svc == "svc" => {}
            _ => return self.no_such_name(&zone.domain),
        }
        let [name, namespace, _] = service else { return self.no_such_name(&zone.domain) };
        let mut entries = self.of_name(name);
        entries
            .retain(|entry| meta(entry, NAMESPACE, DEFAULT_NAMESPACE).eq_ignore_ascii_case(namespace));
        let entries = self.healthy(entries);
        let place = Place { zone, service, limit: usize::MAX };
        match before {
            [protocol] if protocol.starts_with('_') && !entries.is_empty() => self.nothing(&zone.domain),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let ports = entries.into_iter().filter(|entry| has_port(entry, port, protocol));
                self.members(&place, ports.collect(), self.question.kind == RecordType::SRV)
            }
            [] => self.members(&place, entries, true),
            [instance] => self.member(&place, entries, instance),
            _ => self.no_such_name(&zone.domain),
        }
    }

    fn version(&self, zone: &Zone) -> Answer {
        if !self.question.wants(RecordType::TXT) {
            return self.nothing(&zone.domain);
        }
        Answer::with(vec![txt(self.question.name.clone(), zone.ttl, SCHEMA_VERSION)])
    }

    fn cloud_map(&mut self, zone: &Zone, labels: &[String], all_when_unhealthy: bool) -> Answer {
        let (before, service) = labels.split_at(labels.len().saturating_sub(1));
        let [name] = service else { return self.nothing(&zone.domain) };
        let all = self.of_name(name);
        let mut entries = self.healthy(all.clone());
        if entries.is_empty() && all_when_unhealthy {
            entries = all;
            self.rng.shuffle(&mut entries);
        }
        let place = Place { zone, service, limit: MULTIVALUE };
        match before {
            [] => self.members(&place, entries, true),
            [instance] => self.member(&place, entries, instance),
            _ => self.no_such_name(&zone.domain),
        }
    }

    fn of_name(&self, service: &str) -> Vec<HealthEntry> {
        ServiceName::new(service).map(|name| self.registry.instances(&name)).unwrap_or_default()
    }

    /// The instances under the name of their service; `has_records` is false for names that exist but
    /// have none of the type that is asked.
    fn members(&self, place: &Place<'_>, entries: Vec<HealthEntry>, has_records: bool) -> Answer {
        let (domain, ttl) = (&place.zone.domain, place.zone.ttl);
        if entries.is_empty() {
            return self.no_such_name(domain);
        }
        let answer = match self.question.kind {
            _ if !has_records => Answer::of_zone(),
            RecordType::SRV => {
                self.targets(&entries, ttl, place.limit, |_, entry, host| place.target(entry, host))
            }
            _ if self.question.wants_addresses() => {
                self.addresses(entries.iter().filter_map(Host::of), ttl, place.limit)
            }
            _ => Answer::of_zone(),
        };
        self.some(domain, answer)
    }

    /// One instance under its own name.
    fn member(&self, place: &Place<'_>, mut entries: Vec<HealthEntry>, label: &str) -> Answer {
        entries.retain(|entry| instance_label(entry) == label);
        self.members(place, entries, self.question.kind != RecordType::SRV)
    }
}

impl Place<'_> {
    /// `<instance>.<service>.<zone>`; a host name speaks for itself, because an alias cannot be a target.
    fn target(&self, entry: &HealthEntry, host: &Host) -> Option<Name> {
        if let Host::Name(name) = host {
            return Some(name.clone());
        }
        let label = instance_label(entry);
        let rest = self.service.iter().chain(&self.zone.domain.labels).map(String::as_str);
        name_of(std::iter::once(label.as_str()).chain(rest))
    }
}

fn meta<'e>(entry: &'e HealthEntry, key: &str, default: &'e str) -> &'e str {
    entry.instance.instance.meta.get(key).map_or(default, String::as_str)
}

/// `port` and `protocol` begin with an underscore.
fn has_port(entry: &HealthEntry, port: &str, protocol: &str) -> bool {
    let is = |label: &str, value: &str| {
        label.strip_prefix('_').is_some_and(|label| label.eq_ignore_ascii_case(value))
    };
    let name = entry.instance.instance.meta.get(PORT_NAME);
    name.is_some_and(|name| is(port, name)) && is(protocol, meta(entry, PORT_PROTOCOL, DEFAULT_PROTOCOL))
}

/// The id of an instance where it can be a label, else one that always follows from the id.
fn instance_label(entry: &HealthEntry) -> String {
    let id = entry.instance.instance.id.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.len() <= MAX_LABEL_BYTES && id.bytes().all(plain) {
        return id.to_ascii_lowercase();
    }
    format!("i-{:016x}", fnv(id.as_bytes()))
}

/// FNV-1a: short, and the same on every server.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
