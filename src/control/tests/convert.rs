//! Requests: round trips, fields that cannot be taken, and nothing that panics.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z][a-zA-Z0-9._-]{0,20}"
}

fn address_text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("::1".to_owned()), "[a-z0-9.-]{1,30}"]
}

fn config() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    btree_map(".{1,8}", value, 0..4)
}

prop_compose! {
    fn an_upstream()(
        destination in name(),
        local_bind_address in address_text(),
        local_bind_port in any::<u16>(),
        datacenter in "[a-z0-9]{0,8}",
        config in config(),
    ) -> Upstream {
        let destination = ServiceName::new(destination).unwrap();
        Upstream { destination, local_bind_address, local_bind_port, datacenter, config }
    }
}

prop_compose! {
    fn a_proxy()(
        destination in name(),
        id in name(),
        local_address in address_text(),
        local_port in any::<u16>(),
        upstreams in vec(an_upstream(), 0..4),
        config in config(),
    ) -> ProxySpec {
        ProxySpec {
            destination: ServiceName::new(destination).unwrap(),
            destination_id: InstanceId::new(id).unwrap(),
            local_address,
            local_port,
            upstreams,
            config,
        }
    }
}

prop_compose! {
    fn an_instance()(
        (node, id, name) in (name(), name(), name()),
        tags in vec(".{0,10}", 0..4),
        meta in btree_map(".{1,10}", ".{0,10}", 0..4),
        (address, port) in (address_text(), any::<u16>()),
        tagged in btree_map("lan|wan", (address_text(), any::<u16>()), 0..2),
        (passing, warning) in (1..=MAX_WEIGHT, 0..=MAX_WEIGHT),
        (enable_tag_override, native) in any::<(bool, bool)>(),
        proxy in proptest::option::of(a_proxy()),
    ) -> Instance {
        let tagged_addresses =
            tagged.into_iter().map(|(k, (address, port))| (k, TaggedAddress { address, port })).collect();
        Instance {
            node: NodeName::new(node).unwrap(),
            id: InstanceId::new(id).unwrap(),
            name: ServiceName::new(name).unwrap(),
            kind: if proxy.is_some() { Kind::ConnectProxy } else { Kind::Typical },
            tags, meta, address, port, tagged_addresses,
            weights: Weights { passing, warning },
            enable_tag_override, native, proxy,
        }
    }
}

prop_compose! {
    fn a_check()(
        (id, name, notes, output) in ("[!-~]{1,20}", ".{1,20}", ".{0,20}", ".{0,20}"),
        status in prop_oneof![
            Just(CheckStatus::Passing), Just(CheckStatus::Warning), Just(CheckStatus::Critical)
        ],
        ttl_ms in prop_oneof![Just(0), TTL_RANGE_MS],
        type_name in "http|tcp|grpc|alias|",
    ) -> (String, String, String, String, CheckStatus, u64, String) {
        (id, name, notes, output, status, ttl_ms, type_name)
    }
}

proptest! {
    #[test]
    fn registrations_round_trip(instance in an_instance(), parts in a_check()) {
        let (id, name, notes, output, status, ttl_ms, type_name) = parts;
        let definition = ttl_definition(ttl_ms, &id, &name, &notes, status).unwrap();
        let check = Check {
            node: instance.node.clone(),
            instance: Some((instance.id.clone(), instance.name.clone())),
            type_name: if definition.is_some() { "ttl".to_owned() } else { type_name },
            id, name, notes, output, status, definition, shown: None,
        };
        let sent = (pb::Instance::from(&instance), pb::Check::from(&check));
        let got = registrations(vec![sent.0], vec![sent.1], None).unwrap();
        prop_assert_eq!(got, vec![Registration { instance, checks: vec![check] }]);
    }

    #[test]
    fn no_message_panics(
        (node, id, name, kind) in (".{0,40}", ".{0,40}", ".{0,140}", ".{0,9}"),
        (port, passing) in any::<(u32, u32)>(),
        json in ".{0,20}",
        status in any::<i32>(),
        ttl_ms in any::<u64>(),
    ) {
        let proxy = pb::Proxy { destination: name.clone(), config_json: json, ..Default::default() };
        let instance = pb::Instance {
            node, id, name, kind, port, weight_passing: passing, proxy: Some(proxy), ..Default::default()
        };
        let check = pb::Check { status, ttl_ms, ..Default::default() };
        let _whatever = registrations(vec![instance], vec![check], None);
        let _whatever = reports(vec![pb::CheckReport { id: String::new(), status, output: String::new() }]);
    }
}

fn web() -> pb::Instance {
    pb::Instance { node: "n1".to_owned(), name: "web".to_owned(), ..Default::default() }
}

fn fault(change: impl FnOnce(&mut pb::Instance, &mut pb::Check)) -> String {
    let (mut instance, mut check) = (web(), pb::Check::default());
    change(&mut instance, &mut check);
    registrations(vec![instance], vec![check], None).unwrap_err().field
}

#[test]
fn faults_name_the_field() {
    let upstream =
        pb::Upstream { local_bind_port: 70_000, destination: "db".to_owned(), ..Default::default() };
    assert_eq!(fault(|i, _| i.name.clear()), "instances[0].name");
    assert_eq!(fault(|i, _| i.node.clear()), "instances[0].node");
    assert_eq!(fault(|i, _| i.kind = "mesh-gateway".to_owned()), "instances[0].kind");
    assert_eq!(fault(|i, _| i.kind = "connect-proxy".to_owned()), "instances[0].proxy");
    assert_eq!(fault(|i, _| i.port = 65_536), "instances[0].port");
    assert_eq!(fault(|i, _| i.weight_warning = Some(70_000)), "instances[0].weight_warning");
    assert_eq!(fault(|_, c| c.status = 9), "checks[0].status");
    assert_eq!(fault(|_, c| c.ttl_ms = 1), "checks[0].ttl_ms");
    assert_eq!(fault(|_, c| c.instance = "db".to_owned()), "checks[0].instance");
    let field = fault(|i, _| {
        i.kind = "connect-proxy".to_owned();
        i.proxy = Some(pb::Proxy {
            destination: "web".to_owned(),
            upstreams: vec![upstream],
            ..Default::default()
        });
    });
    assert_eq!(field, "instances[0].proxy.upstreams[0].local_bind_port");
}

#[test]
fn empty_fields_have_consuls_defaults() {
    let all = registrations(vec![web()], vec![pb::Check::default()], None).unwrap();
    assert_eq!(all[0].instance.id.as_str(), "web");
    assert_eq!(all[0].instance.weights, Weights::default());
    assert_eq!(all[0].checks[0].id, "service:web");
    assert_eq!(all[0].checks[0].status, CheckStatus::Critical);
    let here = NodeName::new("here").unwrap();
    let nodeless = pb::Instance { node: String::new(), ..web() };
    assert_eq!(registrations(vec![nodeless], vec![], Some(&here)).unwrap()[0].instance.node, here);
}

#[test]
fn ids_are_distinct() {
    assert_eq!(registrations(vec![web(), web()], vec![], None).unwrap_err().field, "instances");
    let twice = vec![pb::Check::default(), pb::Check::default()];
    assert_eq!(registrations(vec![web()], twice, None).unwrap_err().field, "checks");
}
