//! What is known about the checks of a runner, and what of it is news. Pure: no tasks, no clock.
//!
//! Invariants: a report is queued for the first result and for every change of status; at most one
//! report per check is queued, always the latest; aliases are up to date after every call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{CheckDefinition, CheckId, CheckKind, CheckReport, CheckStatus, InstanceId};

/// State of all checks, and the reports that nobody has taken yet.
#[derive(Default)]
pub(super) struct Board {
    entries: BTreeMap<CheckId, Entry>,
    /// In the order in which checks became news, so that a flapping check does not starve others.
    outbox: VecDeque<CheckReport>,
}

struct Entry {
    instance: InstanceId,
    name: String,
    alias_of: Option<InstanceId>,
    status: CheckStatus,
    output: String,
    reported: bool,
}

impl Board {
    /// Takes out `gone` and puts in `new`; what else is there keeps its state.
    pub(super) fn change<'a>(
        &mut self,
        gone: &[CheckId],
        new: impl IntoIterator<Item = (&'a InstanceId, &'a CheckDefinition)>,
    ) {
        for id in gone {
            self.entries.remove(id);
            self.outbox.retain(|report| report.id != *id);
        }
        let new =
            new.into_iter().map(|(instance, check)| (check.id.clone(), Entry::new(instance, check)));
        self.entries.extend(new);
        self.refresh_aliases();
    }

    /// Takes in a result. One of an unknown check is dropped.
    pub(super) fn record(&mut self, id: &str, status: CheckStatus, output: String) {
        self.set(id, status, output);
        self.refresh_aliases();
    }

    /// The oldest report not taken yet.
    pub(super) fn next_report(&mut self) -> Option<CheckReport> {
        self.outbox.pop_front()
    }

    fn refresh_aliases(&mut self) {
        let aliases =
            self.entries.iter().filter_map(|(id, entry)| Some((id.clone(), entry.alias_of.clone()?)));
        for (id, target) in aliases.collect::<Vec<_>>() {
            let (status, output) = self.worst_of(&target);
            self.set(&id, status, output);
        }
    }

    fn set(&mut self, id: &str, status: CheckStatus, output: String) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let is_news = !entry.reported || entry.status != status;
        entry.reported = true;
        entry.status = status;
        entry.output.clone_from(&output);
        if is_news {
            self.post(CheckReport { id: id.to_owned(), status, output });
        }
    }

    fn post(&mut self, report: CheckReport) {
        if let Some(queued) = self.outbox.iter_mut().find(|queued| queued.id == report.id) {
            *queued = report;
        } else {
            self.outbox.push_back(report);
        }
    }

    /// The state that an alias of `instance` has. Aliases of aliases are followed to the checks that
    /// really run, each instance once, so that a circle of aliases cannot keep itself critical.
    fn worst_of(&self, instance: &InstanceId) -> (CheckStatus, String) {
        let mut to_visit = vec![instance];
        let mut visited = BTreeSet::new();
        let mut worst: Option<&Entry> = None;
        while let Some(current) = to_visit.pop() {
            if !visited.insert(current) {
                continue;
            }
            for entry in self.entries.values().filter(|entry| entry.instance == *current) {
                if let Some(target) = &entry.alias_of {
                    to_visit.push(target);
                } else if worst.is_none_or(|so_far| entry.status > so_far.status) {
                    worst = Some(entry);
                }
            }
        }
        match worst {
            None => (CheckStatus::Passing, "No checks found.".to_owned()),
            Some(entry) if entry.status == CheckStatus::Passing => {
                (CheckStatus::Passing, "All checks passing.".to_owned())
            }
            Some(entry) => {
                (entry.status, format!("Aliased check {:?} failing: {}", entry.name, entry.output))
            }
        }
    }
}

impl Entry {
    fn new(instance: &InstanceId, check: &CheckDefinition) -> Self {
        let alias_of = match &check.kind {
            CheckKind::Alias { service } => Some(service.clone()),
            _ => None,
        };
        Self {
            instance: instance.clone(),
            name: check.name.clone(),
            alias_of,
            status: check.initial,
            output: String::new(),
            reported: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use CheckStatus::{Critical, Passing, Warning};
    use proptest::prelude::*;

    use super::*;

    fn instance(name: &str) -> InstanceId {
        InstanceId::new(name).unwrap()
    }

    fn check(owner: &str, id: &str, alias_of: Option<&str>) -> (InstanceId, CheckDefinition) {
        let kind = match alias_of {
            Some(target) => CheckKind::Alias { service: instance(target) },
            None => CheckKind::Tcp { address: "127.0.0.1:1".into() },
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
            failures_before_critical: 0,
            deregister_critical_after: None,
        };
        (instance(owner), definition)
    }

    fn board(checks: &[(InstanceId, CheckDefinition)]) -> Board {
        let mut board = Board::default();
        board.change(&[], checks.iter().map(|(instance, check)| (instance, check)));
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
        let expected =
            [("alias".into(), Critical, failing), ("lonely".into(), Passing, "No checks found.".into())];
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
        board.change(&["b".to_owned()], [(&proxy, &alias)]);
        let expected = [
            ("a".into(), Passing, "fine".into()),
            ("alias".into(), Passing, "All checks passing.".into()),
        ];
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
}
