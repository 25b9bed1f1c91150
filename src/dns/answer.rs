//! An answer while it is put together, and the records it is made of. Pure.
//!
//! Called by the zones. Names that do not fit DNS (a label of more than 63 bytes, more than 255 in
//! all) are passed over: who cannot be named is not in the answer.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::registry::Registry;
use super::settings::{Domain, Settings};
use crate::catalog::{HealthEntry, Node};
use crate::model::CheckStatus;
use crate::net::rng::Rng;

/// Longest string inside of a TXT record; longer values are cut into several.
const TXT_STRING_BYTES: usize = 255;

/// A question for one of our names.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// As it was written, because answers repeat it.
    pub(super) name: Name,
    /// In lower case.
    pub(super) labels: Vec<String>,
    pub(super) kind: RecordType,
}

impl Question {
    pub(super) fn new(name: &Name, kind: RecordType) -> Self {
        let folded = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
        Self { name: name.clone(), labels: name.iter().map(folded).collect(), kind }
    }

    /// Whether records of this type answer it.
    pub(super) fn wants(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    pub(super) fn wants_addresses(&self) -> bool {
        matches!(self.kind, RecordType::A | RecordType::AAAA | RecordType::ANY)
    }
}

/// What one question is answered with: the reads, the settings, the room, the time and the dice.
pub(super) struct Asking<'a, R> {
    pub(super) registry: &'a R,
    pub(super) settings: &'a Settings,
    pub(super) question: &'a Question,
    /// Answers that certainly do not fit need not be made.
    pub(super) max_answers: usize,
    /// Whether the metadata of nodes goes with answers that name them.
    pub(super) describes_nodes: bool,
    /// Unix time in seconds, the serial number of zones.
    pub(super) now: u32,
    pub(super) rng: &'a mut Rng,
}

/// Everything about an answer but its place in a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
    /// There were more answers than `max_answers`.
    pub(super) cut: bool,
}

impl Answer {
    /// A bare code, from no zone of ours.
    pub(super) const fn of_code(code: ResponseCode) -> Self {
        Self {
            code,
            authoritative: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            cut: false,
        }
    }

    /// From a zone of ours; without answers until some are put in.
    pub(super) const fn of_zone() -> Self {
        let mut answer = Self::of_code(ResponseCode::NoError);
        answer.authoritative = true;
        answer
    }

    /// The name behind the alias with which an answer about addresses ends.
    pub(super) fn alias(&self, asked: RecordType) -> Option<Name> {
        let is_address = matches!(asked, RecordType::A | RecordType::AAAA);
        match &self.answers.last().filter(|_| is_address)?.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        }
    }

    pub(super) fn with(records: Vec<Record>) -> Self {
        Self { answers: records, ..Self::of_zone() }
    }
}

/// Where an instance or node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Name(Name),
}

impl Host {
    pub(super) fn read(text: &str) -> Option<Self> {
        Some(match text.parse() {
            Ok(IpAddr::V4(ip)) => Self::V4(ip),
            Ok(IpAddr::V6(ip)) => Self::V6(ip),
            Err(_) => Self::Name(name_of(text.trim_end_matches('.').split('.'))?),
        })
    }

    /// The address of an instance, which is its node's unless it has one of its own.
    pub(super) fn of(entry: &HealthEntry) -> Option<Self> {
        match entry.instance.instance.address.as_str() {
            "" => Self::read(&entry.node.address),
            own => Self::read(own),
        }
    }

    /// The record that says this address; of a host name, only that it is one.
    pub(super) fn record(&self, owner: &Name, ttl: u32) -> Record {
        let data = match self {
            Self::V4(ip) => RData::A(A(*ip)),
            Self::V6(ip) => RData::AAAA(AAAA(*ip)),
            Self::Name(name) => RData::CNAME(CNAME(name.clone())),
        };
        Record::from_rdata(owner.clone(), ttl, data)
    }

    pub(super) fn kind(&self) -> RecordType {
        match self {
            Self::V4(_) => RecordType::A,
            Self::V6(_) => RecordType::AAAA,
            Self::Name(_) => RecordType::CNAME,
        }
    }
}

/// A name of these labels, if there can be one.
pub(super) fn name_of<'l>(labels: impl IntoIterator<Item = &'l str>) -> Option<Name> {
    Name::from_labels(labels.into_iter().map(str::as_bytes)).ok()
}

impl<R: Registry> Asking<'_, R> {
    /// `<labels>.<datacenter>.<domain>`: how answers name things, in the primary domain whatever domain
    /// was asked.
    pub(super) fn primary<'l>(&'l self, labels: impl IntoIterator<Item = &'l str>) -> Option<Name> {
        let place = std::iter::once(self.registry.datacenter());
        let domain = self.settings.domain.labels.iter().map(String::as_str);
        name_of(labels.into_iter().chain(place).chain(domain))
    }

    /// `<node>.node.<datacenter>.<domain>`.
    pub(super) fn node_name(&self, node: &Node) -> Option<Name> {
        self.primary(node.name.as_str().split('.').chain(["node"]))
    }

    /// `<hexadecimal>.addr.<datacenter>.<domain>`; of a host name, that name.
    pub(super) fn address_name(&self, host: &Host) -> Option<Name> {
        let digits = match host {
            Host::V4(ip) => crate::model::hex::encode(&ip.octets()),
            Host::V6(ip) => crate::model::hex::encode(&ip.octets()),
            Host::Name(name) => return Some(name.clone()),
        };
        self.primary([digits.as_str(), "addr"])
    }

    /// The name does not exist.
    pub(super) fn no_such_name(&self, zone: &Domain) -> Answer {
        Answer { code: ResponseCode::NXDomain, ..self.nothing(zone) }
    }

    /// The name exists, but has no such record.
    pub(super) fn nothing(&self, zone: &Domain) -> Answer {
        Answer { authorities: self.soa(zone).into_iter().collect(), ..Answer::of_zone() }
    }

    /// These records, or that there are none.
    pub(super) fn some(&self, zone: &Domain, answer: Answer) -> Answer {
        if answer.answers.is_empty() {
            let authorities = self.soa(zone).into_iter().collect();
            return Answer { authorities, ..answer };
        }
        answer
    }

    /// Answers to SOA and NS, which are about the zone whatever name below it was asked.
    pub(super) fn zone_records(&self, zone: &Domain) -> Answer {
        let (servers, glue) = self.name_servers(zone);
        let mut answer = Answer { additionals: glue, ..Answer::of_zone() };
        if self.question.kind == RecordType::NS {
            answer.answers = servers;
        } else {
            answer.answers = self.soa(zone).into_iter().collect();
            answer.authorities = servers;
        }
        answer
    }

    fn name_servers(&self, zone: &Domain) -> (Vec<Record>, Vec<Record>) {
        let (mut records, mut glue) = (Vec::new(), Vec::new());
        for node in self.registry.servers() {
            let Some(name) = self.node_name(&node) else { continue };
            let host = Host::read(&node.address).filter(|host| !matches!(host, Host::Name(_)));
            glue.extend(host.map(|host| host.record(&name, self.settings.node_ttl)));
            records.push(Record::from_rdata(
                zone.name.clone(),
                self.settings.node_ttl,
                RData::NS(NS(name)),
            ));
        }
        (records, glue)
    }

    fn soa(&self, zone: &Domain) -> Option<Record> {
        let soa = self.settings.soa;
        let below = |label: &'static str| {
            name_of(std::iter::once(label).chain(zone.labels.iter().map(String::as_str)))
        };
        // Seconds of files are well below 2³¹.
        let seconds = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let data = SOA::new(
            below("ns")?,
            below("hostmaster")?,
            self.now,
            seconds(soa.refresh),
            seconds(soa.retry),
            seconds(soa.expire),
            soa.min_ttl,
        );
        Some(Record::from_rdata(zone.name.clone(), soa.min_ttl, RData::SOA(data)))
    }

    /// Those who can take connections, in random order.
    pub(super) fn healthy(&mut self, entries: Vec<HealthEntry>) -> Vec<HealthEntry> {
        let worst = if self.settings.only_passing { CheckStatus::Passing } else { CheckStatus::Warning };
        let mut healthy: Vec<_> = entries.into_iter().filter(|entry| entry.status() <= worst).collect();
        self.rng.shuffle(&mut healthy);
        healthy
    }

    /// The addresses of hosts under the name that was asked, each once, at most `limit`. A host name is
    /// an answer only when there is no address: an alias stands alone (RFC 1034).
    pub(super) fn addresses(
        &self,
        hosts: impl IntoIterator<Item = Host>,
        ttl: u32,
        limit: usize,
    ) -> Answer {
        let mut seen = HashSet::new();
        let (mut records, mut alias, mut cut) = (Vec::new(), None, false);
        for host in hosts {
            let record = host.record(&self.question.name, ttl);
            match host {
                Host::Name(_) => alias = alias.or(Some(record)),
                _ if !self.question.wants(host.kind()) || !first(&mut seen, &record.data) => {}
                _ if records.len() == limit => break,
                _ if records.len() == self.max_answers => {
                    cut = true;
                    break;
                }
                _ => records.push(record),
            }
        }
        if records.is_empty() {
            records.extend(alias);
        }
        Answer { cut, ..Answer::with(records) }
    }

    /// SRV records with the ports and weights of instances, each target and port once, at most `limit`;
    /// beside them the addresses of the targets and, in Consul's domain, what is said of the nodes.
    ///
    /// A target that several records share has its address once for each, as from Consul: HAProxy takes
    /// one address for one SRV record.
    pub(super) fn targets(
        &self,
        entries: &[HealthEntry],
        ttl: u32,
        limit: usize,
        target: impl Fn(&Self, &HealthEntry, &Host) -> Option<Name>,
    ) -> Answer {
        let mut answer = Answer::of_zone();
        let (mut seen, mut described) = (HashSet::new(), HashSet::new());
        for entry in entries {
            let Some(host) = Host::of(entry) else { continue };
            let Some(target) = target(self, entry, &host) else { continue };
            let port = entry.instance.instance.port;
            if !seen.insert((folded(&target), port)) {
                continue;
            }
            if answer.answers.len() == limit {
                break;
            }
            if answer.answers.len() == self.max_answers {
                answer.cut = true;
                break;
            }
            // Of a host name others know the address.
            if !matches!(host, Host::Name(_)) {
                answer.additionals.push(host.record(&target, ttl));
            }
            if self.describes_nodes && first(&mut described, &entry.node.name) {
                let node = self.node_name(&entry.node);
                answer
                    .additionals
                    .extend(node.iter().flat_map(|node| self.meta_records(node, &entry.node, ttl)));
            }
            answer.answers.push(srv(&self.question.name, ttl, weight(entry), port, target));
        }
        answer
    }

    /// The metadata of a node, one record for each entry.
    pub(super) fn meta_records(&self, owner: &Name, node: &Node, ttl: u32) -> Vec<Record> {
        let texts = node.shown_meta().into_iter().map(|(key, value)| meta_text(key, value));
        texts.map(|text| txt(owner.clone(), ttl, &text)).collect()
    }
}

/// A name as bytes that are equal for equal names. The library's names compare and hash label by label,
/// with an allocation for each.
pub(super) fn folded(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    for label in name {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    bytes
}

/// Remembers something; says whether it is new.
fn first<T: Eq + Hash + Clone>(seen: &mut HashSet<T>, item: &T) -> bool {
    !seen.contains(item) && seen.insert(item.clone())
}

/// A record of priority 1, as all of Consul's.
pub(super) fn srv(owner: &Name, ttl: u32, weight: u16, port: u16, target: Name) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::SRV(SRV::new(1, weight, port, target)))
}

pub(super) fn ptr(owner: Name, target: Name) -> Record {
    Record::from_rdata(owner, 0, RData::PTR(PTR(target)))
}

pub(super) fn txt(owner: Name, ttl: u32, text: &str) -> Record {
    let strings: Vec<&[u8]> = text.as_bytes().chunks(TXT_STRING_BYTES).collect();
    Record::from_rdata(owner, ttl, RData::TXT(TXT::from_bytes(strings)))
}

/// Consul's text of an entry: `key=value` with the escapes of RFC 1464, only the value when the key
/// begins with `rfc1035-`.
fn meta_text(key: &str, value: &str) -> String {
    if key.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("rfc1035-")) {
        return value.to_owned();
    }
    let key = key.replace('`', "``").replace('=', "`=");
    format!("{key}={}", value.replace('`', "``"))
}

/// The weight of an instance in its present state. What does not fit 16 bits is as heavy as can be.
pub(super) fn weight(entry: &HealthEntry) -> u16 {
    let weights = entry.instance.instance.weights;
    let weight = match entry.status() {
        CheckStatus::Passing => weights.passing,
        CheckStatus::Warning | CheckStatus::Critical => weights.warning,
    };
    u16::try_from(weight).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_escaped() {
        for (key, value, text) in [
            ("zone", "a", "zone=a"),
            ("consul-network-segment", "", "consul-network-segment="),
            ("a=b`", "`c=", "a`=b``=``c="),
            ("rfc1035-spf", "v=spf1 `", "v=spf1 `"),
            ("RFC1035-x", "y", "y"),
        ] {
            assert_eq!(meta_text(key, value), text);
        }
    }

    #[test]
    fn long_texts_are_cut_into_strings() {
        let owner = name_of(["n1", "consul"]).unwrap();
        let RData::TXT(data) = txt(owner, 0, &"x".repeat(600)).data else { unreachable!() };
        let lengths: Vec<_> = data.txt_data.iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [255, 255, 90]);
    }

    #[test]
    fn hosts_by_table() {
        for (text, kind) in [
            ("10.0.0.1", Some(RecordType::A)),
            ("2001:db8::1", Some(RecordType::AAAA)),
            ("db1.example.com", Some(RecordType::CNAME)),
            ("db1.example.com.", Some(RecordType::CNAME)),
            ("", None),
            ("a..b", None),
        ] {
            assert_eq!(Host::read(text).map(|host| host.kind()), kind, "{text:?}");
        }
        assert_eq!(Host::read(&"x".repeat(64)), None);
    }
}
