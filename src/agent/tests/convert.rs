//! Resources: round trips, refusals, and nothing that panics.

use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z][a-zA-Z0-9._-]{0,20}"
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    name().prop_map(|name| ServiceName::new(name).unwrap())
}

fn party() -> impl Strategy<Value = Party> {
    prop_oneof![Just(Party::Any), service_name().prop_map(Party::Service)]
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Audit)]
}

fn id() -> impl Strategy<Value = EndpointId> {
    (name(), name()).prop_map(|(node, instance)| EndpointId {
        node: NodeName::new(node).unwrap(),
        instance: InstanceId::new(instance).unwrap(),
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    let status =
        prop_oneof![Just(CheckStatus::Passing), Just(CheckStatus::Warning), Just(CheckStatus::Critical)];
    let endpoint = (id(), service_name(), "[a-z0-9.:-]{1,30}", 1..=u16::MAX, any::<(u32, u32)>());
    let endpoint = endpoint.prop_map(|(id, service, host, port, (passing, warning))| {
        Change::Endpoint(Endpoint { id, service, host, port, weights: Weights { passing, warning } })
    });
    let roots = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 1..4);
    let bundle = ("[a-z0-9.-]{1,20}", any::<u64>(), roots).prop_map(|(domain, version, roots)| {
        let trust_domain = TrustDomain::new(&domain).unwrap();
        Change::Bundle(Bundle {
            trust_domain,
            version,
            roots: roots.into_iter().map(Into::into).collect(),
        })
    });
    prop_oneof![
        (service_name(), any::<bool>()).prop_map(|(name, exists)| Change::Service { name, exists }),
        endpoint,
        (service_name(), id()).prop_map(|(service, id)| Change::EndpointGone { service, id }),
        (service_name(), id(), status).prop_map(|(service, id, status)| Change::Health {
            service,
            id,
            status
        }),
        (party(), party(), an_action()).prop_map(|(source, destination, action)| {
            Change::Intention { source, destination, action }
        }),
        (party(), party())
            .prop_map(|(source, destination)| Change::IntentionGone { source, destination }),
        an_action().prop_map(Change::DefaultAction),
        bundle,
    ]
}

proptest! {
    #[test]
    fn changes_round_trip(one in any_change()) {
        prop_assert_eq!(change(pb::Resource::from(&one)), Ok(one));
    }

    #[test]
    fn no_resource_panics(
        (service, node, instance, host) in (".{0,9}", ".{0,9}", ".{0,9}", ".{0,9}"),
        (port, number) in any::<(u32, i32)>(),
    ) {
        let endpoint = pb::Endpoint {
            service: service.clone(), node: node.clone(), instance: instance.clone(), host, port,
            ..Default::default()
        };
        let health = pb::EndpointHealth { service: service.clone(), node, instance, status: number };
        let rule = pb::Intention { source: service, destination: String::new(), action: number };
        for resource in [Resource::Endpoint(endpoint), Resource::Health(health), Resource::Intention(rule)] {
            let _whatever = change(pb::Resource { resource: Some(resource) });
        }
    }
}

#[test]
fn refusals_name_the_resource() {
    let endpoint = pb::Endpoint {
        service: "db".to_owned(),
        node: "n1".to_owned(),
        instance: "db-1".to_owned(),
        ..Default::default()
    };
    let refused = change(pb::Resource { resource: Some(Resource::Endpoint(endpoint)) }).unwrap_err();
    assert_eq!(refused.resource, "endpoint db n1/db-1");
    assert_eq!(refused.reason, "0 is not a port");
    assert_eq!(change(pb::Resource { resource: None }).unwrap_err().resource, "unknown");
}
