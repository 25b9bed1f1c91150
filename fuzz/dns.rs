//! What must hold for any bytes that come to the DNS port: the oracle of its fuzz target, and the
//! registry that it answers from.
//!
//! Used by `fuzz_targets/dns.rs` with what libFuzzer makes up, and by `tests/it` with the corpus and
//! with mutated questions. It ends with a panic when something does not hold.
//!
//! An input is the message as it comes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft::catalog::{CheckRecord, HealthEntry, Holder, InstanceRecord, Node, Owner};
use weft::dns::{Domain, Outcome, Registry, Responder, Settings, Transport, Zone, ZoneKind, limits};
use weft::model::{
    Check, CheckStatus, Definition, Instance, InstanceId, NodeName, ServiceName, Weights,
};
use weft::net::rng::Rng;

/// Instances, nodes and settings that a question can be answered from.
#[derive(Default)]
pub struct World {
    pub nodes: Vec<Arc<Node>>,
    pub entries: Vec<HealthEntry>,
    /// What stands in front of services, by their names.
    pub fronts: Vec<(ServiceName, HealthEntry)>,
}

impl Registry for World {
    fn datacenter(&self) -> &str {
        "dc1"
    }

    fn instances(&self, service: &ServiceName) -> Vec<HealthEntry> {
        let named = |entry: &&HealthEntry| entry.instance.instance.name == *service;
        self.entries.iter().filter(named).cloned().collect()
    }

    fn fronts(&self, service: &ServiceName) -> Vec<HealthEntry> {
        let named = self.fronts.iter().filter(|(name, _)| name == service);
        named.map(|(_, entry)| entry.clone()).collect()
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.iter().find(|node| node.name.as_str().eq_ignore_ascii_case(name)).cloned()
    }

    fn holder(&self, address: IpAddr) -> Option<Holder> {
        let at = |text: &str| text.parse() == Ok(address);
        let node = self.nodes.iter().find(|node| at(&node.address));
        let entry = || self.entries.iter().find(|entry| at(&entry.instance.instance.address));
        node.map(|node| Holder::Node(node.name.clone()))
            .or_else(|| entry().map(|entry| Holder::Service(entry.instance.instance.name.clone())))
    }

    fn servers(&self) -> Vec<Arc<Node>> {
        self.nodes.first().cloned().into_iter().collect()
    }
}

impl World {
    /// Adds a node; `meta` in pairs.
    pub fn add_node(&mut self, name: &str, address: &str, meta: &[(&str, &str)]) {
        let meta = meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.nodes.push(Arc::new(Node {
            name: NodeName::new(name).expect("a name"),
            id: format!("id of {name}"),
            address: address.to_owned(),
            tagged_addresses: None,
            meta: meta.collect(),
            has_agent: true,
            created: 1,
            modified: 1,
        }));
    }

    /// Adds an instance on the last node, at an address of its own unless that is empty; it can be
    /// changed before it is stored.
    pub fn instance(
        &mut self,
        service: &str,
        id: &str,
        address: &str,
        port: u16,
        change: impl FnOnce(&mut Instance, &mut CheckStatus),
    ) -> HealthEntry {
        let node = self.nodes.last().expect("a node").clone();
        let mut definition =
            Definition::new(ServiceName::new(service).expect("a name"), port).expect("a definition");
        definition.id = InstanceId::new(id).expect("an id");
        definition.address = address.to_owned();
        definition.weights = Weights { passing: 1, warning: 1 };
        let registration = definition.expand(&node.name, 0).expect("records").remove(0);
        let (mut instance, mut status) = (registration.instance, CheckStatus::Passing);
        change(&mut instance, &mut status);
        let check = Check {
            node: node.name.clone(),
            id: format!("service:{id}"),
            name: String::new(),
            notes: String::new(),
            status,
            output: String::new(),
            instance: Some((instance.id.clone(), instance.name.clone())),
            type_name: "ttl".to_owned(),
            definition: None,
            shown: None,
        };
        let check = CheckRecord { check: Arc::new(check), created: 1, modified: 1 };
        let instance = InstanceRecord {
            instance: Arc::new(instance),
            owner: Owner::Permanent,
            created: 1,
            modified: 1,
        };
        let entry = HealthEntry { instance, node, checks: vec![check] };
        self.entries.push(entry.clone());
        entry
    }

    /// A world with everything that answers are made of.
    pub fn full() -> Self {
        let mut world = Self::default();
        world.add_node("n1", "127.0.0.1", &[("zone", "a")]);
        for number in 0..40u16 {
            world.instance("web", &format!("web-{number}"), "", 8000 + number, |instance, _| {
                instance.tags = vec!["v1".to_owned()];
                instance.meta = BTreeMap::from([("k8s-port-name".to_owned(), "http".to_owned())]);
            });
            let address = format!("10.0.{}.{}", number / 8, number);
            world.instance("db", &format!("db-{number}"), &address, 5432, |_, _| {});
        }
        world.add_node("n2.lan", "2001:db8::2", &[]);
        world.instance("cache", "cache", "cache.example.com", 6379, |_, _| {});
        world.instance("six", "six", "2001:db8::6", 6, |_, _| {});
        let native = world.instance("native", "native", "", 1, |instance, _| instance.native = true);
        world.fronts.push((ServiceName::new("native").expect("a name"), native));
        world
    }
}

/// Settings with every kind of zone, and a recursor when one is wished.
pub fn settings(recursor: bool) -> Settings {
    let domain = |text| Domain::new(text).expect("a domain");
    let zone = |text, kind: ZoneKind| Zone { domain: domain(text), kind, ttl: kind.default_ttl() };
    let mut settings = Settings::new(domain("consul"));
    settings.alt_domain = Some(domain("alt.example"));
    settings.zones = vec![
        zone("cluster.local", ZoneKind::Kubernetes),
        zone("internal.example.com", ZoneKind::CloudMap { all_when_unhealthy: true }),
    ];
    if recursor {
        settings.recursors = vec![([127, 0, 0, 1], 53).into()];
    }
    settings
}

/// Checks one message over both protocols. Returns whether it was answered with records.
pub fn check(world: &World, settings: &Settings, message: &[u8]) -> bool {
    let responder = Responder { registry: world, settings, now: 1_700_000_000 };
    let mut said_something = false;
    for transport in [Transport::Udp, Transport::Tcp] {
        let reply = match responder.respond(message, transport, &mut Rng::from_seed(1)) {
            Outcome::Silence => continue,
            Outcome::Reply(reply) => reply,
            Outcome::Forward(forward) => forward.failure,
        };
        let bytes = &reply.bytes;
        assert!(message.len() >= 12 && message[2] & 0x80 == 0, "an answer to what is no question");
        assert!(bytes.len() >= 12, "no header");
        assert_eq!(bytes[..2], message[..2], "another id");
        assert_eq!(bytes[2] & 0xf9, 0x80 | message[2] & 0x79, "QR, opcode and RD");
        let most = if transport == Transport::Udp { limits::MAX_UDP_ANSWER_BYTES } else { u16::MAX };
        assert!(bytes.len() <= usize::from(most), "{} bytes over {transport:?}", bytes.len());
        said_something |= bytes[6..8] != [0, 0];
    }
    said_something
}
