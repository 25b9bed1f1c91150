//! Consul's domain: services, Connect-capable endpoints, nodes and addresses; and the way back from an
//! address to a name. Pure.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

use super::answer::{Answer, Asking, Host, ptr};
use super::names::Lookup;
use super::registry::Registry;
use super::settings::Domain;
use crate::catalog::{HealthEntry, Holder};
use crate::model::ServiceName;

impl<R: Registry> Asking<'_, R> {
    /// Answers for a name below Consul's domain; `labels` are what stands before the domain.
    pub(super) fn consul(&mut self, zone: &Domain, labels: &[String]) -> Answer {
        let is_srv = self.question.kind == RecordType::SRV;
        match Lookup::parse(labels, is_srv, self.registry.datacenter()) {
            Some(Lookup::Service { service, tag }) => self.service(zone, service, |asking, name| {
                let mut entries = asking.registry.instances(name);
                entries.retain(|entry| tag.as_ref().is_none_or(|tag| has_tag(entry, tag)));
                entries
            }),
            Some(Lookup::Connect { service }) => {
                self.service(zone, service, |asking, name| asking.registry.fronts(name))
            }
            Some(Lookup::Node(name)) => self.node(zone, &name),
            Some(Lookup::Address(digits)) => self.address(zone, digits),
            None => self.no_such_name(zone),
        }
    }

    fn service(
        &mut self,
        zone: &Domain,
        service: &str,
        read: impl FnOnce(&Self, &ServiceName) -> Vec<HealthEntry>,
    ) -> Answer {
        let Ok(name) = ServiceName::new(service) else { return self.no_such_name(zone) };
        let entries = read(self, &name);
        let entries = self.healthy(entries);
        if entries.is_empty() {
            return self.no_such_name(zone);
        }
        let ttl = self.settings.service_ttl.of(service);
        let answer = match self.question.kind {
            RecordType::SRV => self.targets(&entries, ttl, usize::MAX, Self::target),
            _ if self.question.wants_addresses() => {
                let limit = self.settings.a_record_limit.unwrap_or(usize::MAX);
                self.addresses(entries.iter().filter_map(Host::of), ttl, limit)
            }
            _ => Answer::of_zone(),
        };
        self.some(zone, answer)
    }

    /// The node for an instance that is at its node's address, else the address as a name.
    fn target(&self, entry: &HealthEntry, host: &Host) -> Option<Name> {
        let at_node = entry.instance.instance.address.is_empty();
        let node = at_node.then(|| self.node_name(&entry.node)).flatten();
        node.or_else(|| self.address_name(host))
    }

    fn node(&self, zone: &Domain, name: &str) -> Answer {
        let Some(node) = self.registry.node(name) else { return self.no_such_name(zone) };
        let mut answer = match Host::read(&node.address) {
            Some(host) if self.question.wants_addresses() => {
                self.addresses([host], self.settings.node_ttl, 1)
            }
            _ => Answer::of_zone(),
        };
        if self.question.wants(RecordType::TXT) {
            answer.answers.extend(self.meta_records(&self.question.name, &node, self.settings.node_ttl));
        } else if self.settings.node_meta_txt {
            answer.additionals = self.meta_records(&self.question.name, &node, self.settings.node_ttl);
        }
        self.some(zone, answer)
    }

    /// The address whose digits are the name; Consul gives it whichever of the two types is asked.
    fn address(&self, zone: &Domain, digits: &str) -> Answer {
        let host = match digits.len() {
            8 => u32::from_str_radix(digits, 16).ok().map(|bits| Host::V4(bits.into())),
            32 => u128::from_str_radix(digits, 16).ok().map(|bits| Host::V6(bits.into())),
            _ => None,
        };
        // A sign is a digit to the parser, but not to us.
        match host.filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            None => Answer::of_zone(),
            Some(host) if self.question.wants_addresses() => {
                Answer::with(vec![host.record(&self.question.name, self.settings.node_ttl)])
            }
            Some(_) => self.nothing(zone),
        }
    }

    /// The name of whoever is at an address; `None` when nobody of ours is.
    pub(super) fn reverse(&self, address: IpAddr) -> Option<Answer> {
        let target = match self.registry.holder(address)? {
            Holder::Node(node) => self.primary(node.as_str().split('.').chain(["node"])),
            Holder::Service(service) => self.primary([service.to_lowercase().as_str(), "service"]),
        }?;
        let records = vec![ptr(self.question.name.clone(), target)];
        Some(if self.question.wants(RecordType::PTR) {
            Answer::with(records)
        } else {
            Answer::of_zone()
        })
    }
}

fn has_tag(entry: &HealthEntry, tag: &str) -> bool {
    entry.instance.instance.tags.iter().any(|own| own.eq_ignore_ascii_case(tag))
}

/// The address that a name of `in-addr.arpa` or `ip6.arpa` stands for. Labels are in lower case.
pub(super) fn reversed(labels: &[String]) -> Option<IpAddr> {
    let (digits, zone) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    match zone {
        [ip, arpa] if ip == "in-addr" && arpa == "arpa" => {
            let mut bytes = [0; 4];
            let [d, c, b, a] = digits else { return None };
            for (byte, label) in bytes.iter_mut().zip([a, b, c, d]) {
                let plain = label.bytes().all(|digit| digit.is_ascii_digit());
                *byte = label.parse().ok().filter(|_| plain)?;
            }
            Some(IpAddr::from(bytes))
        }
        [ip, arpa] if ip == "ip6" && arpa == "arpa" && digits.len() == 32 => {
            let mut bits: u128 = 0;
            for label in digits.iter().rev() {
                let digit = label.chars().next().filter(|_| label.len() == 1)?.to_digit(16)?;
                bits = bits << 4 | u128::from(digit);
            }
            Some(IpAddr::from(bits.to_be_bytes()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_by_table() {
        let ip6 = "1.".to_owned() + &"0.".repeat(23) + "8.b.d.0.1.0.0.2.ip6.arpa";
        for (name, address) in [
            ("1.0.0.127.in-addr.arpa", Some("127.0.0.1")),
            (ip6.as_str(), Some("2001:db8::1")),
            ("0.0.127.in-addr.arpa", None),
            ("1.0.0.256.in-addr.arpa", None),
            ("x.1.0.0.127.in-addr.arpa", None),
            ("1.0.ip6.arpa", None),
            ("arpa", None),
            ("in-addr.arpa", None),
        ] {
            let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
            assert_eq!(reversed(&labels), address.map(|text| text.parse().unwrap()), "{name}");
        }
        let long = ip6.replace("1.0.0.2", "1.0.0.22");
        assert_eq!(reversed(&long.split('.').map(str::to_owned).collect::<Vec<_>>()), None);
    }
}
