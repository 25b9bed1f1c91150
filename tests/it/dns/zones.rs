//! Zones with the names of Kubernetes and of Cloud Map.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::op::ResponseCode;
use hickory_proto::op::ResponseCode::{NXDomain, NoError};
use hickory_proto::rr::RecordType;
use weft::dns::{Domain, Settings, Zone, ZoneKind};
use weft::model::{CheckStatus, Instance};

use super::world::World;
use super::{NOW, addresses, ask, data, expect};

const ZONE: &str = "cluster.local";
const PRIVATE: &str = "internal.example.com";

fn settings(all_when_unhealthy: bool) -> Settings {
    let zone = |name: &str, kind: ZoneKind| Zone {
        domain: Domain::new(name).unwrap(),
        kind,
        ttl: kind.default_ttl(),
    };
    let mut settings = Settings::new(Domain::new("consul").unwrap());
    settings.zones =
        vec![zone(ZONE, ZoneKind::Kubernetes), zone(PRIVATE, ZoneKind::CloudMap { all_when_unhealthy })];
    settings
}

fn meta<'m>(pairs: &'m [(&'m str, &'m str)]) -> impl FnOnce(&mut Instance, &mut CheckStatus) + 'm {
    move |instance, _| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        instance.meta = pairs.collect::<BTreeMap<_, _>>();
    }
}

/// A database of three in the default namespace, one of them sick; `web` in two namespaces.
fn world() -> World {
    let mut world = World::default();
    world.add_node("n1", "127.0.0.1", &[("rack", "1")]);
    let port = meta(&[("k8s-port-name", "postgres")]);
    world.instance("database", "database-0", "10.0.0.10", 5432, port);
    world.instance("database", "Database_1", "10.0.0.11", 5433, |_, _| {});
    world.instance("database", "database-2", "10.0.0.12", 5434, |_, status| {
        *status = CheckStatus::Critical;
    });
    let production =
        [("k8s-namespace", "production"), ("k8s-port-name", "dns"), ("k8s-port-protocol", "udp")];
    world.instance("user-service", "u-1", "2001:db8::1", 80, meta(&production));
    world.instance("user-service", "u-2", "10.0.0.2", 8080, |_, _| {});
    world.instance("outside", "o", "db.example.org", 1, |_, _| {});
    world
}

fn soa(zone: &str) -> String {
    format!("{zone}. 0 SOA ns.{zone}. hostmaster.{zone}. {NOW} 3600 600 86400 0")
}

/// A name below the zone, what is asked, the code, the answers, and what is additional. The id
/// `Database_1` is no label.
type Row = (&'static str, RecordType, ResponseCode, &'static [&'static str], &'static [&'static str]);
const KUBERNETES: &[Row] = &[
    (
        "database.default.svc",
        RecordType::A,
        NoError,
        &[
            "database.default.svc.cluster.local. 5 A 10.0.0.10",
            "database.default.svc.cluster.local. 5 A 10.0.0.11",
        ],
        &[],
    ),
    (
        "database.default.svc",
        RecordType::SRV,
        NoError,
        &[
            "database.default.svc.cluster.local. 5 SRV 1 1 5432 database-0.database.default.svc.cluster.local.",
            "database.default.svc.cluster.local. 5 SRV 1 1 5433 i-143ac2e9f223495c.database.default.svc.cluster.local.",
        ],
        &[
            "database-0.database.default.svc.cluster.local. 5 A 10.0.0.10",
            "i-143ac2e9f223495c.database.default.svc.cluster.local. 5 A 10.0.0.11",
        ],
    ),
    (
        "_postgres._tcp.database.default.svc",
        RecordType::SRV,
        NoError,
        &[
            "_postgres._tcp.database.default.svc.cluster.local. 5 SRV 1 1 5432 database-0.database.default.svc.cluster.local.",
        ],
        &["database-0.database.default.svc.cluster.local. 5 A 10.0.0.10"],
    ),
    (
        "_dns._udp.user-service.production.svc",
        RecordType::SRV,
        NoError,
        &[
            "_dns._udp.user-service.production.svc.cluster.local. 5 SRV 1 1 80 u-1.user-service.production.svc.cluster.local.",
        ],
        &["u-1.user-service.production.svc.cluster.local. 5 AAAA 2001:db8::1"],
    ),
    (
        "DataBase-0.Database.Default.SVC",
        RecordType::A,
        NoError,
        &["DataBase-0.Database.Default.SVC.cluster.local. 5 A 10.0.0.10"],
        &[],
    ),
    (
        "user-service.production.svc",
        RecordType::AAAA,
        NoError,
        &["user-service.production.svc.cluster.local. 5 AAAA 2001:db8::1"],
        &[],
    ),
    (
        "user-service.default.svc",
        RecordType::ANY,
        NoError,
        &["user-service.default.svc.cluster.local. 5 A 10.0.0.2"],
        &[],
    ),
    (
        "outside.default.svc",
        RecordType::A,
        NoError,
        &["outside.default.svc.cluster.local. 5 CNAME db.example.org."],
        &[],
    ),
    (
        "outside.default.svc",
        RecordType::SRV,
        NoError,
        &["outside.default.svc.cluster.local. 5 SRV 1 1 1 db.example.org."],
        &[],
    ),
    ("dns-version", RecordType::TXT, NoError, &["dns-version.cluster.local. 5 TXT 1.1.0"], &[]),
    // They exist, without such a record.
    ("dns-version", RecordType::A, NoError, &[], &[]),
    ("user-service.production.svc", RecordType::A, NoError, &[], &[]),
    ("database.default.svc", RecordType::TXT, NoError, &[], &[]),
    ("database-0.database.default.svc", RecordType::SRV, NoError, &[], &[]),
    ("_tcp.database.default.svc", RecordType::A, NoError, &[], &[]),
    ("_postgres._tcp.database.default.svc", RecordType::A, NoError, &[], &[]),
    ("svc", RecordType::A, NoError, &[], &[]),
    ("default.svc", RecordType::A, NoError, &[], &[]),
    // They do not.
    ("database-2.database.default.svc", RecordType::A, NXDomain, &[], &[]),
    ("database.production.svc", RecordType::A, NXDomain, &[], &[]),
    ("nope.default.svc", RecordType::A, NXDomain, &[], &[]),
    ("_postgres._udp.database.default.svc", RecordType::SRV, NXDomain, &[], &[]),
    ("_._tcp.database.default.svc", RecordType::SRV, NXDomain, &[], &[]),
    ("_tcp.nope.default.svc", RecordType::A, NXDomain, &[], &[]),
    ("a.b.c.database.default.svc", RecordType::A, NXDomain, &[], &[]),
    ("database.default.pod", RecordType::A, NXDomain, &[], &[]),
    ("database", RecordType::A, NXDomain, &[], &[]),
];

#[test]
fn kubernetes_names_by_table() {
    let (world, settings) = (world(), settings(true));
    let soa = soa(ZONE);
    for &(name, kind, code, answers, additionals) in KUBERNETES {
        let name = format!("{name}.{ZONE}.");
        let found = ask(&world, &settings, &name, kind);
        let authority: &[&str] = if answers.is_empty() { &[&soa] } else { &[] };
        expect(&format!("{name} {kind}"), &found, code, [answers, authority, additionals]);
        assert!(found.metadata.authoritative, "{name}");
    }
    let odd = "i-143ac2e9f223495c.database.default.svc.cluster.local.";
    let found = ask(&world, &settings, odd, RecordType::A);
    expect(odd, &found, NoError, [&[&format!("{odd} 5 A 10.0.0.11")], &[], &[]]);
    let apex = ask(&world, &settings, "cluster.local.", RecordType::SOA);
    let ns = "cluster.local. 0 NS n1.node.dc1.consul.";
    expect("apex", &apex, NoError, [&[&soa], &[ns], &["n1.node.dc1.consul. 0 A 127.0.0.1"]]);
    expect(
        "apex",
        &ask(&world, &settings, "cluster.local.", RecordType::A),
        NoError,
        [&[], &[&soa], &[]],
    );
}

#[test]
fn cloud_map_gives_eight_healthy_instances_for_ten_seconds() {
    let mut world = World::default();
    world.add_node("n1", "127.0.0.1", &[]);
    for number in 0..20u16 {
        let address = format!("10.0.1.{number}");
        world.instance("user-service", &format!("u-{number}"), &address, 8080, |_, status| {
            if number >= 15 {
                *status = CheckStatus::Critical;
            }
        });
    }
    let settings = settings(true);
    let mut told = BTreeSet::new();
    for _ in 0..100 {
        let found = ask(&world, &settings, "user-service.internal.example.com.", RecordType::A);
        assert_eq!((found.answers.len(), found.metadata.truncation), (8, false));
        assert!(found.answers.iter().all(|record| record.ttl == 10));
        told.extend(addresses(&found));
    }
    let healthy: BTreeSet<String> = (0..15).map(|number| format!("10.0.1.{number}")).collect();
    assert_eq!(told, healthy);

    let found = ask(&world, &settings, "user-service.internal.example.com.", RecordType::SRV);
    assert_eq!((found.answers.len(), found.additionals.len()), (8, 8));
    let target = found.answers[0].data.clone();
    let target = data(&target).split(' ').next_back().unwrap().to_owned();
    assert!(target.ends_with(".user-service.internal.example.com."), "{target}");
    assert_eq!(ask(&world, &settings, &target, RecordType::A).answers.len(), 1);
    for (name, code) in [
        ("internal.example.com.", NoError),
        ("nope.internal.example.com.", NXDomain),
        ("u-19.user-service.internal.example.com.", NXDomain),
        ("a.b.user-service.internal.example.com.", NXDomain),
    ] {
        let soa = soa(PRIVATE);
        expect(name, &ask(&world, &settings, name, RecordType::A), code, [&[], &[&soa], &[]]);
    }
}

#[test]
fn with_nobody_healthy_cloud_map_does_as_it_is_told() {
    let mut world = World::default();
    world.add_node("n1", "127.0.0.1", &[]);
    for number in 0..3 {
        world.instance("sick", &format!("s-{number}"), &format!("10.0.1.{number}"), 1, |_, status| {
            *status = CheckStatus::Critical;
        });
    }
    let name = "sick.internal.example.com.";
    let all = ask(&world, &settings(true), name, RecordType::A);
    assert_eq!((all.metadata.response_code, all.answers.len()), (NoError, 3));
    let none = ask(&world, &settings(false), name, RecordType::A);
    assert_eq!((none.metadata.response_code, none.answers.len()), (NXDomain, 0));
}

#[test]
fn the_longest_zone_wins() {
    let world = world();
    let mut settings = settings(true);
    let inner = Zone {
        domain: Domain::new("svc.cluster.local").unwrap(),
        kind: ZoneKind::CloudMap { all_when_unhealthy: false },
        ttl: 3,
    };
    settings.zones.push(inner);
    let found = ask(&world, &settings, "outside.svc.cluster.local.", RecordType::A);
    expect(
        "inner",
        &found,
        NoError,
        [&["outside.svc.cluster.local. 3 CNAME db.example.org."], &[], &[]],
    );
}
