//! Names of Consul's domain, question by question as captured from a real one.

use hickory_proto::op::{MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use weft::dns::{Domain, Outcome, Settings, Transport};
use weft::model::{CheckStatus, ServiceName};

use super::world::World;
use super::{DIG, SOA, answer_to, ask, expect, outcome, question};

use ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused, ServFail};

const META: &str = "n2.node.dc1.consul. 0 TXT consul-network-segment=";
const NODE: &str = "n2.node.dc1.consul. 0 A 127.0.0.1";
const NS: &str = "consul. 0 NS n2.node.dc1.consul.";

fn consul() -> Settings {
    Settings::new(Domain::new("consul").unwrap())
}

/// The services of the captures, on one node.
fn captured() -> World {
    let mut world = World::default();
    world.add_node("n2", "127.0.0.1", &[]);
    world.instance("user-service", "user-service-1", "", 18080, |instance, _| {
        instance.tags = vec!["v1".to_owned(), "production".to_owned()];
    });
    world.instance("redis", "redis-1", "10.2.0.1", 6000, |_, _| {});
    world.instance("redis", "redis-2", "db1.example.com", 7000, |_, _| {});
    world.instance("alias", "alias", "db1.example.com", 7000, |_, _| {});
    let native = world.instance("native", "native", "", 1, |instance, _| instance.native = true);
    world.fronts.push((ServiceName::new("native").unwrap(), native));
    let sidecar = world.instance("counting-sidecar-proxy", "c-proxy", "", 20000, |_, _| {});
    world.fronts.push((ServiceName::new("counting").unwrap(), sidecar));
    world.instance("sick", "sick", "", 1, |_, status| *status = CheckStatus::Critical);
    world
}

/// A name, what is asked, the answers, and what is additional.
type Row = (&'static str, RecordType, &'static [&'static str], &'static [&'static str]);
const ANSWERS: &[Row] = &[
    // Without `service`, which RFC 2782 lets out.
    (
        "_user-service._tcp.consul.",
        RecordType::SRV,
        &["_user-service._tcp.consul. 0 SRV 1 1 18080 n2.node.dc1.consul."],
        &[NODE, META],
    ),
    ("redis.service.consul.", RecordType::A, &["redis.service.consul. 0 A 10.2.0.1"], &[]),
    (
        "redis.service.consul.",
        RecordType::SRV,
        &[
            "redis.service.consul. 0 SRV 1 1 6000 0a020001.addr.dc1.consul.",
            "redis.service.consul. 0 SRV 1 1 7000 db1.example.com.",
        ],
        &["0a020001.addr.dc1.consul. 0 A 10.2.0.1", META],
    ),
    (
        "redis.service.consul.",
        RecordType::AAAA,
        &["redis.service.consul. 0 CNAME db1.example.com."],
        &[],
    ),
    ("alias.service.consul.", RecordType::A, &["alias.service.consul. 0 CNAME db1.example.com."], &[]),
    (
        "n2.node.consul.",
        RecordType::A,
        &["n2.node.consul. 0 A 127.0.0.1"],
        &["n2.node.consul. 0 TXT consul-network-segment="],
    ),
    (
        "N2.Node.dc1.Consul.",
        RecordType::A,
        &["N2.Node.dc1.Consul. 0 A 127.0.0.1"],
        &["N2.Node.dc1.Consul. 0 TXT consul-network-segment="],
    ),
    (
        "n2.node.consul.",
        RecordType::ANY,
        &["n2.node.consul. 0 A 127.0.0.1", "n2.node.consul. 0 TXT consul-network-segment="],
        &[],
    ),
    ("n2.node.consul.", RecordType::TXT, &["n2.node.consul. 0 TXT consul-network-segment="], &[]),
    ("7f000001.addr.dc1.consul.", RecordType::A, &["7f000001.addr.dc1.consul. 0 A 127.0.0.1"], &[]),
    ("0a020001.addr.consul.", RecordType::ANY, &["0a020001.addr.consul. 0 A 10.2.0.1"], &[]),
    (
        "20010db800010002cafe000000001337.addr.consul.",
        RecordType::AAAA,
        &["20010db800010002cafe000000001337.addr.consul. 0 AAAA 2001:db8:1:2:cafe::1337"],
        &[],
    ),
    (
        "20010db800010002cafe000000001337.addr.consul.",
        RecordType::A,
        &["20010db800010002cafe000000001337.addr.consul. 0 AAAA 2001:db8:1:2:cafe::1337"],
        &[],
    ),
    ("zz.addr.consul.", RecordType::A, &[], &[]),
    ("zzzzzzzz.addr.consul.", RecordType::A, &[], &[]),
    ("+a020001.addr.consul.", RecordType::A, &[], &[]),
    (
        "native.connect.consul.",
        RecordType::SRV,
        &["native.connect.consul. 0 SRV 1 1 1 n2.node.dc1.consul."],
        &[NODE, META],
    ),
    (
        "counting.connect.dc1.consul.",
        RecordType::SRV,
        &["counting.connect.dc1.consul. 0 SRV 1 1 20000 n2.node.dc1.consul."],
        &[NODE, META],
    ),
    (
        "counting-sidecar-proxy.service.consul.",
        RecordType::SRV,
        &["counting-sidecar-proxy.service.consul. 0 SRV 1 1 20000 n2.node.dc1.consul."],
        &[NODE, META],
    ),
    (
        "1.0.0.127.in-addr.arpa.",
        RecordType::PTR,
        &["1.0.0.127.in-addr.arpa. 0 PTR n2.node.dc1.consul."],
        &[],
    ),
    (
        "1.0.2.10.IN-ADDR.arpa.",
        RecordType::PTR,
        &["1.0.2.10.IN-ADDR.arpa. 0 PTR redis.service.dc1.consul."],
        &[],
    ),
    ("consul.", RecordType::NS, &[NS], &[NODE]),
    ("service.consul.", RecordType::NS, &[NS], &[NODE]),
    ("user-service.service.consul.", RecordType::NS, &[NS], &[NODE]),
];

#[test]
fn answers_by_table() {
    let (world, settings) = (captured(), consul());
    let a = |name: &str, address: &str| format!("{name} 0 A {address}");
    let srv = |name: &str, rest: &str| format!("{name} 0 SRV 1 1 {rest}");
    let user = |name: &str| (a(name, "127.0.0.1"), srv(name, "18080 n2.node.dc1.consul."));
    for name in [
        "user-service.service.consul.",
        "user-service.service.dc1.consul.",
        "v1.user-service.service.consul.",
        "PRODUCTION.user-service.service.consul.",
        "_user-service._v1.service.consul.",
        "_user-service._tcp.service.consul.",
        "_user-service._TCP.service.consul.",
        "USER-Service.SERVICE.Consul.",
    ] {
        let (address, target) = user(name);
        for kind in [RecordType::A, RecordType::ANY] {
            let found = ask(&world, &settings, name, kind);
            expect(name, &found, NoError, [&[&address], &[], &[]]);
            assert_eq!(found.queries[0].name.to_string(), name, "the case of the question");
            assert_eq!(found.answers[0].name.to_string(), name, "the case of the owner");
        }
        let found = ask(&world, &settings, name, RecordType::SRV);
        expect(name, &found, NoError, [&[&target], &[], &[NODE, META]]);
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::HINFO, RecordType::TXT] {
            expect(name, &ask(&world, &settings, name, kind), NoError, [&[], &[SOA], &[]]);
        }
    }
    for &(name, kind, answers, additionals) in ANSWERS {
        let found = ask(&world, &settings, name, kind);
        expect(name, &found, NoError, [answers, &[], additionals]);
        let flags = found.metadata;
        assert!(flags.authoritative && flags.recursion_desired && !flags.recursion_available, "{name}");
        assert_eq!(found.edns.unwrap().max_payload(), DIG, "{name}");
    }
    for name in ["consul.", "user-service.service.consul."] {
        let found = ask(&world, &settings, name, RecordType::SOA);
        expect(name, &found, NoError, [&[SOA], &[NS], &[NODE]]);
    }
}

#[test]
fn names_that_do_not_exist() {
    let (world, settings) = (captured(), consul());
    for name in [
        "v2.user-service.service.consul.",
        "redis.service.dc9.consul.",
        "nope.service.consul.",
        "sick.service.consul.",
        "nope.node.consul.",
        "n2.node.dc9.consul.",
        "consul.",
        "service.consul.",
        "user-service.connect.consul.",
        "user-service.connect.dc1.consul.",
        "nope.connect.consul.",
        "user-service.virtual.consul.",
        "user-service.ingress.consul.",
        "near.query.consul.",
        "x.consul.",
        "ns.consul.",
        "server.dc1.consul.",
        "user_service.service.consul.",
        "a.b.user-service.service.consul.",
        "_user-service._v1._tcp.service.consul.",
        "localhost.node.consul.",
    ] {
        for kind in [RecordType::A, RecordType::SRV, RecordType::ANY] {
            let found = ask(&world, &settings, name, kind);
            expect(name, &found, NXDomain, [&[], &[SOA], &[]]);
            assert!(found.metadata.authoritative, "{name}");
        }
    }
}

#[test]
fn who_is_not_asked_does_not_answer() {
    let (world, settings) = (captured(), consul());
    let name = "user-service.service.consul.";
    let code = |asked: &hickory_proto::op::Message| {
        let found = answer_to(&world, &settings, asked, Transport::Udp).0;
        (found.metadata.response_code, found.edns.is_some(), found.answers.len(), found.queries.len())
    };
    assert_eq!(code(&question("example.com.", RecordType::A, Some(DIG))), (Refused, false, 0, 1));
    assert_eq!(code(&question("xconsul.", RecordType::A, Some(DIG))), (Refused, false, 0, 1));
    let unknown = question("9.9.9.10.in-addr.arpa.", RecordType::PTR, Some(DIG));
    assert_eq!(code(&unknown), (ServFail, true, 0, 1));
    let mut chaos = question(name, RecordType::A, Some(DIG));
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&chaos), (Refused, false, 0, 1));
    let mut version = question("version.bind.", RecordType::TXT, None);
    version.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&version), (Refused, false, 0, 1));
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        assert_eq!(code(&question("consul.", kind, None)), (NotImp, false, 0, 1));
    }
    let mut two = question(name, RecordType::A, None);
    two.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::AAAA));
    assert_eq!(code(&two), (FormErr, false, 0, 0));
    two.queries.clear();
    assert_eq!(code(&two), (FormErr, false, 0, 0));
    for opcode in [OpCode::Notify, OpCode::Update, OpCode::Status] {
        let mut other = question(name, RecordType::A, None);
        other.metadata.op_code = opcode;
        assert_eq!(code(&other), (NotImp, false, 0, 0), "{opcode:?}");
    }
    let mut later = question(name, RecordType::A, Some(DIG));
    later.edns.as_mut().unwrap().set_version(1);
    // 16 has two names; with EDNS it is BADVERS.
    assert_eq!(code(&later), (ResponseCode::BADSIG, true, 0, 1));

    let mut reflected = question(name, RecordType::A, Some(DIG));
    reflected.metadata.message_type = MessageType::Response;
    for silent in [reflected.to_vec().unwrap(), Vec::new(), vec![0; 11]] {
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(outcome(&world, &settings, &silent, transport), Outcome::Silence, "{silent:?}");
        }
    }
    let asked = question(name, RecordType::A, None).to_vec().unwrap();
    for cut in 12..asked.len() {
        let Outcome::Reply(reply) = outcome(&world, &settings, &asked[..cut], Transport::Udp) else {
            panic!("silence at {cut}")
        };
        assert_eq!((reply.code, reply.bytes.len()), (FormErr, 12), "{cut} bytes");
    }
}

#[test]
fn health_decides_who_is_named_and_how_much_of_it() {
    let mut world = World::default();
    world.add_node("n1", "10.0.0.1", &[]);
    for (id, address, state) in [
        ("good", "10.0.0.2", CheckStatus::Passing),
        ("tired", "10.0.0.3", CheckStatus::Warning),
        ("dead", "10.0.0.4", CheckStatus::Critical),
    ] {
        world.instance("web", id, address, 80, |instance, status| {
            *status = state;
            instance.weights = weft::model::Weights { passing: 10, warning: 2 };
        });
    }
    let mut settings = consul();
    settings.node_meta_txt = false;
    let [good, tired] = ["10 80 0a000002.addr.dc1.consul.", "2 80 0a000003.addr.dc1.consul."]
        .map(|rest| format!("web.service.consul. 0 SRV 1 {rest}"));
    let [at_good, at_tired] =
        ["0a000002.addr.dc1.consul. 0 A 10.0.0.2", "0a000003.addr.dc1.consul. 0 A 10.0.0.3"];
    let found = ask(&world, &settings, "web.service.consul.", RecordType::SRV);
    expect("both", &found, NoError, [&[&good, &tired], &[], &[at_good, at_tired]]);
    settings.only_passing = true;
    let found = ask(&world, &settings, "web.service.consul.", RecordType::SRV);
    expect("only passing", &found, NoError, [&[&good], &[], &[at_good]]);
    let found = ask(&world, &settings, "web.service.consul.", RecordType::A);
    expect("only passing", &found, NoError, [&["web.service.consul. 0 A 10.0.0.2"], &[], &[]]);
}

#[test]
fn settings_change_domains_lives_and_extras() {
    let mut world = World::default();
    world.add_node("n3", "127.0.0.1", &[("rfc1035-owner", "ops"), ("zone", "a")]);
    world.instance("weby", "weby", "", 2, |_, _| {});
    world.instance("other", "other", "1.2.3.4", 3, |_, _| {});
    let mut settings = Settings::new(Domain::new("mesh").unwrap());
    settings.alt_domain = Some(Domain::new("alt.example").unwrap());
    settings.node_ttl = 30;
    for (pattern, ttl) in [("*", 5), ("web*", 10), ("weby", 15)] {
        settings.service_ttl.insert(pattern, ttl);
    }
    (settings.soa.refresh, settings.soa.retry) = (100, 50);
    (settings.soa.expire, settings.soa.min_ttl) = (1000, 7);
    let meta = |owner: &str, ttl: u32| {
        ["consul-network-segment=", "ops", "zone=a"].map(|text| format!("{owner} {ttl} TXT {text}"))
    };
    for domain in ["mesh.", "alt.example."] {
        let name = format!("weby.service.{domain}");
        let found = ask(&world, &settings, &name, RecordType::SRV);
        let target = format!("{name} 15 SRV 1 1 2 n3.node.dc1.mesh.");
        let [a, b, c] = meta("n3.node.dc1.mesh.", 15);
        let extras = ["n3.node.dc1.mesh. 15 A 127.0.0.1", &a, &b, &c];
        expect(&name, &found, NoError, [&[&target], &[], &extras]);
        let none = ask(&world, &settings, &format!("nope.service.{domain}"), RecordType::A);
        let soa = format!("{domain} 7 SOA ns.{domain} hostmaster.{domain} {} 100 50 1000 7", super::NOW);
        expect(domain, &none, NXDomain, [&[], &[&soa], &[]]);
    }
    let found = ask(&world, &settings, "other.service.mesh.", RecordType::A);
    expect("other", &found, NoError, [&["other.service.mesh. 5 A 1.2.3.4"], &[], &[]]);
    let node = "n3.node.mesh. 30 A 127.0.0.1";
    let [a, b, c] = meta("n3.node.mesh.", 30);
    let found = ask(&world, &settings, "n3.node.mesh.", RecordType::A);
    expect("node", &found, NoError, [&[node], &[], &[&a, &b, &c]]);
    settings.node_meta_txt = false;
    let found = ask(&world, &settings, "n3.node.mesh.", RecordType::A);
    expect("node without metadata", &found, NoError, [&[node], &[], &[]]);
    assert_eq!(
        ask(&world, &settings, "weby.service.consul.", RecordType::A).metadata.response_code,
        Refused
    );
}

#[test]
fn what_cannot_be_a_name_is_named_by_its_address() {
    let mut world = World::default();
    world.add_node(&"x".repeat(64), "10.0.0.9", &[]);
    world.instance("web", "web", "", 80, |_, _| {});
    world.instance("bad", "bad", "no..name", 80, |_, _| {});
    world.add_node("six.lan", "2001:db8::9", &[]);
    world.instance("web", "web-6", "", 81, |_, _| {});
    let mut settings = consul();
    settings.node_meta_txt = false;
    let found = ask(&world, &settings, "web.service.consul.", RecordType::SRV);
    let answers = [
        "web.service.consul. 0 SRV 1 1 80 0a000009.addr.dc1.consul.",
        "web.service.consul. 0 SRV 1 1 81 six.lan.node.dc1.consul.",
    ];
    let extras =
        ["0a000009.addr.dc1.consul. 0 A 10.0.0.9", "six.lan.node.dc1.consul. 0 AAAA 2001:db8::9"];
    expect("a node without a name", &found, NoError, [&answers, &[], &extras]);
    let found = ask(&world, &settings, "six.lan.node.dc1.consul.", RecordType::AAAA);
    expect("dots", &found, NoError, [&["six.lan.node.dc1.consul. 0 AAAA 2001:db8::9"], &[], &[]]);
    let found = ask(&world, &settings, "bad.service.consul.", RecordType::A);
    expect("no name, no address", &found, NoError, [&[], &[SOA], &[]]);
    let reverse = "9.".to_owned() + &"0.".repeat(23) + "8.b.d.0.1.0.0.2.ip6.arpa.";
    let found = ask(&world, &settings, &reverse, RecordType::PTR);
    let answer = format!("{reverse} 0 PTR six.lan.node.dc1.consul.");
    expect("IPv6 backwards", &found, NoError, [&[&answer], &[], &[]]);
}
