//! After any sequence of writes, a reader that follows, one that resumes, one that starts anew, a
//! second server and a restarted one all see the same, and it is the truth.

use proptest::prelude::*;

use super::*;
use crate::catalog::resource::Resource;
use crate::catalog::state::State;
use crate::model::snapshot::{Change, EndpointState};
use crate::model::{Endpoint, EndpointId, Intentions, Kind, Weights};
use crate::store::Image;

const SERVICES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Register {
        service: usize,
        id: usize,
        shape: Shape,
        leased: bool,
    },
    Deregister {
        id: usize,
    },
    Report {
        id: usize,
        sidecar: bool,
        status: CheckStatus,
    },
    NodeCheck(Option<CheckStatus>),
    Intend {
        source: usize,
        destination: usize,
        action: Option<Action>,
    },
    RevokeLease,
    /// The follower takes what is pending.
    Take,
    /// The resumer reconnects.
    Resume,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Plain,
    Meshed,
    SidecarOnly,
    Native { address: bool },
    Weighty,
}

fn status() -> impl Strategy<Value = CheckStatus> {
    prop::sample::select(vec![CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical])
}

fn step() -> impl Strategy<Value = Step> {
    let shape = prop::sample::select(vec![
        Shape::Plain,
        Shape::Meshed,
        Shape::SidecarOnly,
        Shape::Native { address: true },
        Shape::Native { address: false },
        Shape::Weighty,
    ]);
    let action = prop::sample::select(vec![None, Some(Action::Allow), Some(Action::Deny)]);
    prop_oneof![
        4 => (0..3_usize, 0..4_usize, shape, any::<bool>())
            .prop_map(|(service, id, shape, leased)| Step::Register { service, id, shape, leased }),
        2 => (0..4_usize).prop_map(|id| Step::Deregister { id }),
        4 => (0..4_usize, any::<bool>(), status())
            .prop_map(|(id, sidecar, status)| Step::Report { id, sidecar, status }),
        1 => prop::option::of(status()).prop_map(Step::NodeCheck),
        2 => (0..4_usize, 0..4_usize, action)
            .prop_map(|(source, destination, action)| Step::Intend { source, destination, action }),
        1 => Just(Step::RevokeLease),
        2 => Just(Step::Take),
        1 => Just(Step::Resume),
    ]
}

/// Where instance `id` lives: half of them on the server's node.
fn node_of(id: usize) -> NodeName {
    NodeName::new(["n1", "n2"][id % 2]).unwrap()
}

fn registrations(name: usize, id: usize, shape: Shape) -> Vec<Registration> {
    let text = format!("i-{id}");
    let mut definition = match shape {
        Shape::Meshed | Shape::SidecarOnly | Shape::Weighty => meshed(SERVICES[name], &text),
        Shape::Plain | Shape::Native { .. } => plain(SERVICES[name], &text),
    };
    definition.native = matches!(shape, Shape::Native { .. });
    if matches!(shape, Shape::Native { address: true }) {
        definition.address = format!("192.0.2.{id}");
    }
    if matches!(shape, Shape::Weighty) {
        definition.weights = Weights { passing: 5, warning: 3 };
    }
    let mut all = definition.expand(&node_of(id), 21000).unwrap();
    if matches!(shape, Shape::SidecarOnly) {
        all.remove(0);
    }
    all
}

fn party_of(number: usize) -> Party {
    SERVICES.get(number).map_or(Party::Any, |name| party(name))
}

/// Two readers with their own memory of the mesh.
struct Readers {
    followed: Snapshot,
    follower: Subscription,
    resumed: Snapshot,
}

async fn run(catalog: &Catalog, lease: &mut LeaseId, readers: &mut Readers, step: Step, all: &Interest) {
    match step {
        Step::Register { service, id, shape, leased } => {
            let owner = if leased { Owner::Lease(*lease) } else { Owner::Permanent };
            catalog.register(registrations(service, id, shape), owner, Unlisted::Remove).await.unwrap();
        }
        Step::Deregister { id } => {
            catalog.deregister(&node_of(id), &instance(&format!("i-{id}"))).await.unwrap();
        }
        Step::Report { id, sidecar, status } => {
            let id_text = format!("service:i-{id}{}", if sidecar { "-sidecar-proxy" } else { "" });
            let report = CheckReport { id: id_text, status, output: String::new() };
            // It may not exist.
            let _either = catalog.report_checks(&node_of(id), vec![report]).await;
        }
        Step::NodeCheck(Some(status)) => {
            let mut check = expand(&plain("x", "x"))[0].checks[0].clone();
            (check.id, check.instance, check.status) = ("disk".to_owned(), None, status);
            catalog.put_check(&check).await.unwrap();
        }
        Step::NodeCheck(None) => drop(catalog.delete_check(&n1(), "disk").await.unwrap()),
        Step::Intend { source, destination, action } => {
            let (source, destination) = (party_of(source), party_of(destination));
            match action {
                Some(action) => {
                    let (text, meta) = (String::new(), BTreeMap::new());
                    catalog
                        .put_intention(source, destination, action, text, meta)
                        .await
                        .map(drop)
                        .unwrap();
                }
                None => drop(catalog.delete_intention(&source, &destination).await.unwrap()),
            }
        }
        Step::RevokeLease => {
            catalog.revoke_lease(*lease).await.unwrap();
            *lease = catalog.grant_lease(Duration::from_secs(60)).await.unwrap();
        }
        Step::Take => apply(&mut readers.followed, readers.follower.take()),
        Step::Resume => {
            let missed = catalog.subscribe(all.clone()).resume(readers.resumed.position).unwrap();
            apply(&mut readers.resumed, missed);
        }
    }
}

/// The endpoints of a service, read literally from what the API would show.
fn truth(catalog: &Catalog, name: &str) -> BTreeMap<EndpointId, EndpointState> {
    let mut fronts = catalog.connect(&service(name));
    // A sidecar stands in front of a native application, not beside it.
    fronts.sort_by_key(|entry| entry.instance.instance.kind == Kind::ConnectProxy);
    let state = |front: &HealthEntry| {
        let instance = &front.instance.instance;
        let proxied = instance.proxy.as_ref().map(|proxy| proxy.destination_id.clone());
        let id = proxied.unwrap_or_else(|| instance.id.clone());
        let id = EndpointId { node: instance.node.clone(), instance: id };
        let application = catalog.instance(&id.node, &id.instance);
        let application = application.filter(|entry| entry.instance.instance.name == service(name));
        let address = Some(&instance.address).filter(|address| !address.is_empty());
        let weights = application.as_ref().map_or(instance.weights, |a| a.instance.instance.weights);
        let status = application.map_or(CheckStatus::Passing, |entry| entry.status());
        let endpoint = Endpoint {
            id: id.clone(),
            service: service(name),
            host: address.unwrap_or(&front.node.address).clone(),
            port: instance.port,
            weights,
        };
        (id, EndpointState { endpoint: Arc::new(endpoint), status: status.max(front.status()) })
    };
    fronts.iter().map(state).collect()
}

async fn everyone_sees_the_truth(steps: Vec<Step>) {
    let store = Arc::new(MemoryStore::new());
    let catalog = open_on(&store).await;
    let all = interest(&SERVICES, &["a", "b"]);
    let mut lease = catalog.grant_lease(Duration::from_secs(60)).await.unwrap();
    let mut follower = catalog.subscribe(all.clone());
    let mut followed = Snapshot::default();
    apply(&mut followed, follower.snapshot());
    let mut readers = Readers { resumed: followed.clone(), followed, follower };
    let half = steps.len() / 2;
    let mut early = store.load("").await.unwrap();
    for (number, step) in steps.into_iter().enumerate() {
        if number == half {
            early = store.load("").await.unwrap();
        }
        run(&catalog, &mut lease, &mut readers, step, &all).await;
    }
    run(&catalog, &mut lease, &mut readers, Step::Take, &all).await;
    run(&catalog, &mut lease, &mut readers, Step::Resume, &all).await;
    let expected = fresh(&catalog, &all);
    assert_eq!(readers.followed, expected, "the follower");
    assert_eq!(readers.resumed, expected, "the resumer");
    assert_eq!(fresh(&open_on(&store).await, &all), expected, "a restarted server");
    one_that_lost_track_catches_up(&catalog, &early, store.load("").await.unwrap(), &all);
    let mut rules = Intentions::new(Action::Allow);
    for (intention, ..) in catalog.intentions() {
        if intention.destination != party("c") {
            rules.insert(intention.source.clone(), intention.destination.clone(), intention.action);
        }
    }
    assert_eq!(*expected.intentions, rules);
    for name in SERVICES {
        let view = &expected.services[&service(name)];
        assert_eq!(view.endpoints, truth(&catalog, name), "endpoints of {name}");
        let any = !catalog.health(&service(name)).is_empty() || !view.endpoints.is_empty();
        assert_eq!(view.exists, any, "existence of {name}");
    }
    nothing_is_left_when_all_is_removed(&catalog, lease).await;
}

/// A state of an earlier moment, led to the present by a listing instead of by all commits.
fn one_that_lost_track_catches_up(catalog: &Catalog, early: &Image, now: Image, all: &Interest) {
    let load = |image| State::load(image, "10.0.0.1".to_owned(), Action::Allow).unwrap();
    let mut state = load(early);
    let before: BTreeMap<_, _> = everything(&state, all);
    let effects = state.apply(&state.catch_up(now));
    let live = catalog.shared.read();
    assert_eq!(everything(&state, all), everything(&live.state, all), "one that lost track");
    assert_eq!(state.versions, live.state.versions);
    let after = everything(&state, all);
    let changed = before.keys().chain(after.keys()).filter(|r| before.get(*r) != after.get(*r));
    for resource in changed {
        assert!(effects.resources.contains(resource), "{resource:?} changed unnoticed");
    }
}

fn everything(state: &State, all: &Interest) -> BTreeMap<Resource, Change> {
    let covered = state.covered(all).into_iter();
    covered.filter_map(|resource| state.change(&resource).map(|change| (resource, change))).collect()
}

async fn nothing_is_left_when_all_is_removed(catalog: &Catalog, lease: LeaseId) {
    catalog.revoke_lease(lease).await.unwrap();
    for node in [n1(), node_of(1)] {
        for record in catalog.instances_on(&node) {
            catalog.deregister(&node, &record.instance.id).await.unwrap();
        }
    }
    catalog.delete_check(&n1(), "disk").await.unwrap();
    for (intention, ..) in catalog.intentions() {
        catalog.delete_intention(&intention.source, &intention.destination).await.unwrap();
    }
    let live = catalog.shared.read();
    let state = &live.state;
    assert_eq!(state.versions.len(), 1, "only the node of the server: {:?}", state.versions);
    assert_eq!((state.nodes.len(), state.instance_count), (1, 0));
    assert!(state.services.is_empty() && state.connect.is_empty() && state.owned.is_empty());
    assert!(state.nodes[&n1()].attached.is_empty() && state.intentions.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn all_readers_agree(steps in prop::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(everyone_sees_the_truth(steps));
    }
}
