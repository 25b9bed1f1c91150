//! What is news, what aliases make of their targets, and that reports lead to the truth.

use std::time::Duration;

use CheckStatus::{Critical, Passing, Warning};
use proptest::prelude::*;

use super::*;

fn instance(name: &str) -> InstanceId {
    InstanceId::new(name).unwrap()
}

fn check(owner: &str, id: &str, alias_of: Option<&str>) -> (InstanceId, CheckDefinition) {
    let kind = match alias_of {
        Some(target) => CheckKind::Alias { service: Some(instance(target)), node: None },
        None => CheckKind::Tcp { address: "127.0.0.1:1".into(), use_tls: false, tls_skip_verify: false },
    };
    let definition = CheckDefinition {
        id: id.into(),
        name: format!("check {id}"),
        notes: String::new(),
        kind,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        initial: Critical,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    };
    (instance(owner), definition)
}

fn board(checks: &[(InstanceId, CheckDefinition)]) -> Board {
    let mut board = Board::default();
    board.change(&[], checks.iter().map(|(instance, check)| (Some(instance), check)));
    board
}

fn drain(board: &mut Board) -> Vec<(String, CheckStatus, String)> {
    std::iter::from_fn(|| board.next_report()).map(|r| (r.id, r.status, r.output)).collect()
}

#[test]
fn the_first_result_and_changes_are_news() {
    let mut board = board(&[check("web", "a", None)]);
    assert!(drain(&mut board).is_empty());
    board.record("a", Critical, "down".into());
    assert_eq!(drain(&mut board), [("a".into(), Critical, "down".into())]);
    board.record("a", Critical, "still down".into());
    assert!(drain(&mut board).is_empty());
    board.record("a", Passing, "up".into());
    assert_eq!(drain(&mut board), [("a".into(), Passing, "up".into())]);
    board.record("unknown", Passing, String::new());
    assert!(drain(&mut board).is_empty());
}

#[test]
fn only_the_latest_report_waits_and_keeps_its_place() {
    let mut board = board(&[check("web", "a", None), check("web", "b", None)]);
    board.record("a", Critical, "1".into());
    board.record("b", Passing, "2".into());
    board.record("a", Passing, "3".into());
    let expected = [("a".into(), Passing, "3".into()), ("b".into(), Passing, "2".into())];
    assert_eq!(drain(&mut board), expected);
}

#[test]
fn an_alias_copies_the_worst_state() {
    let checks = [
        check("web", "a", None),
        check("web", "b", None),
        check("proxy", "alias", Some("web")),
        check("other", "lonely", Some("nobody")),
    ];
    let mut board = board(&checks);
    let failing = "Aliased check \"check a\" failing: ".to_owned();
    let missing = "Service nobody could not be found".to_owned();
    let expected = [("alias".into(), Critical, failing), ("lonely".into(), Critical, missing)];
    assert_eq!(drain(&mut board), expected);
    board.record("a", Passing, "fine".into());
    board.record("b", Warning, "slow".into());
    assert_eq!(
        drain(&mut board).into_iter().find(|r| r.0 == "alias").unwrap(),
        ("alias".into(), Warning, "Aliased check \"check b\" failing: slow".into())
    );
    board.record("b", Passing, "fine".into());
    assert_eq!(
        drain(&mut board).into_iter().find(|r| r.0 == "alias").unwrap(),
        ("alias".into(), Passing, "All checks passing.".into())
    );
}

#[test]
fn what_is_gone_is_not_reported_and_what_stays_keeps_its_state() {
    let mut board = board(&[check("web", "a", None), check("web", "b", None)]);
    board.record("a", Passing, "fine".into());
    board.record("b", Critical, "down".into());
    let (proxy, alias) = check("proxy", "alias", Some("web"));
    board.change(&["b".to_owned()], [(Some(&proxy), &alias)]);
    let expected =
        [("a".into(), Passing, "fine".into()), ("alias".into(), Passing, "All checks passing.".into())];
    assert_eq!(drain(&mut board), expected);
    board.record("a", Passing, "fine".into());
    board.record("b", Passing, "late".into());
    assert!(drain(&mut board).is_empty());
}

#[test]
fn a_circle_of_aliases_recovers() {
    let checks = [
        check("x", "x-own", None),
        check("x", "x-alias", Some("y")),
        check("y", "y-alias", Some("x")),
        check("z", "z-alias", Some("y")),
    ];
    let mut board = board(&checks);
    board.record("x-own", Passing, String::new());
    for id in ["x-alias", "y-alias", "z-alias"] {
        assert_eq!(board.entries[id].status, Passing, "{id}");
    }
}

proptest! {
    /// Whoever takes reports at any pace ends up with the true state of every check that reported.
    #[test]
    fn reports_always_lead_to_the_truth(
        steps in prop::collection::vec((0usize..4, 0usize..3, any::<bool>()), 0..60)
    ) {
        let ids = ["a", "b", "c", "d"];
        let checks: Vec<_> = ids.iter().map(|id| check("web", id, None))
            .chain([check("proxy", "alias", Some("web"))]).collect();
        let mut board = board(&checks);
        let mut seen = BTreeMap::new();
        for (which, status, take) in steps {
            board.record(ids[which], [Passing, Warning, Critical][status], String::new());
            prop_assert!(board.outbox.len() <= checks.len());
            if take && let Some(report) = board.next_report() {
                seen.insert(report.id, report.status);
            }
        }
        while let Some(report) = board.next_report() {
            seen.insert(report.id, report.status);
        }
        for (id, entry) in board.entries.iter().filter(|(_, entry)| entry.reported) {
            prop_assert_eq!(seen.get(id), Some(&entry.status));
        }
        let worst = ids.iter().map(|id| board.entries[*id].status).max().unwrap();
        prop_assert_eq!(board.entries["alias"].status, worst);
    }
}

#[test]
fn an_alias_counts_the_checks_of_the_node_and_those_that_others_run() {
    let mut board = Board::default();
    let (proxy, alias) = check("proxy", "alias", Some("web"));
    let (_, node) = check("unused", "memory", None);
    let kind = CheckKind::Alias { service: None, node: None };
    let of_node = CheckDefinition { kind, ..check("unused", "of node", None).1 };
    board.change(&[], [(Some(&proxy), &alias), (None, &node), (None, &of_node)]);
    let state = |board: &Board, id: &str| {
        let entry = &board.entries[id];
        (entry.status, entry.output.clone())
    };
    assert_eq!(state(&board, "alias"), (Critical, "Service web could not be found".to_owned()));
    assert_eq!(state(&board, "of node").0, Critical, "memory has not passed yet");

    board.surround(BTreeSet::from([instance("web")]), Vec::new());
    board.record("memory", Passing, String::new());
    assert_eq!(state(&board, "alias"), (Passing, "All checks passing.".to_owned()));
    assert_eq!(state(&board, "of node"), (Passing, "All checks passing.".to_owned()));

    let maintenance = Check {
        node: crate::model::NodeName::new("n1").unwrap(),
        id: "_service_maintenance:web".to_owned(),
        name: "Service Maintenance Mode".to_owned(),
        notes: String::new(),
        status: Critical,
        output: String::new(),
        instance: Some((instance("web"), crate::model::ServiceName::new("web").unwrap())),
        type_name: "maintenance".to_owned(),
        definition: None,
        shown: None,
    };
    board.surround(BTreeSet::from([instance("web")]), vec![maintenance]);
    let failing = "Aliased check \"Service Maintenance Mode\" failing: ".to_owned();
    assert_eq!(state(&board, "alias"), (Critical, failing));
    assert_eq!(state(&board, "of node").0, Passing, "a service is no matter of the node");
}
