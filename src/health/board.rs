//! What is known about the checks of a runner, and what of it is news. Pure: no tasks, no clock.
//!
//! Invariants: a report is queued for the first result and for every change of status; at most one
//! report per check is queued, always the latest; aliases are up to date after every call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{Check, CheckDefinition, CheckId, CheckKind, CheckReport, CheckStatus, InstanceId};

/// State of all checks, and the reports that nobody has taken yet.
#[derive(Default)]
pub(super) struct Board {
    entries: BTreeMap<CheckId, Entry>,
    /// In the order in which checks became news, so that a flapping check does not starve others.
    outbox: VecDeque<CheckReport>,
    /// Instances there are.
    instances: BTreeSet<InstanceId>,
    /// Checks that somebody else runs.
    others: Vec<Check>,
}

struct Entry {
    /// `None` for a check of the node, which counts for every instance.
    instance: Option<InstanceId>,
    name: String,
    source: Source,
    status: CheckStatus,
    output: String,
    reported: bool,
}

/// Where a check has its state from.
enum Source {
    /// From results of its own.
    Results,
    /// From the checks of an instance, or of the node alone.
    Alias(Option<InstanceId>),
}

/// What is known of a check that runs, here or elsewhere.
struct Seen<'a> {
    name: &'a str,
    status: CheckStatus,
    output: &'a str,
}

impl Board {
    /// Takes out `gone` and puts in `new`; what else is there keeps its state.
    pub(super) fn change<'a>(
        &mut self,
        gone: &[CheckId],
        new: impl IntoIterator<Item = (Option<&'a InstanceId>, &'a CheckDefinition)>,
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

    /// Says what aliases have to know besides: which instances there are, and the checks that others run.
    pub(super) fn surround(&mut self, instances: BTreeSet<InstanceId>, others: Vec<Check>) {
        self.instances = instances;
        self.others = others;
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
        let alias = |(id, entry): (&CheckId, &Entry)| match &entry.source {
            Source::Alias(target) => Some((id.clone(), target.clone())),
            Source::Results => None,
        };
        let aliases: Vec<_> = self.entries.iter().filter_map(alias).collect();
        for (id, target) in aliases {
            let (status, output) = self.worst_of(target.as_ref());
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

    /// The state that an alias has: the worst of the checks of its target and of the node. Aliases of
    /// aliases are followed to the checks that really run, each instance once, so that a circle of
    /// aliases cannot keep itself critical.
    fn worst_of(&self, target: Option<&InstanceId>) -> (CheckStatus, String) {
        let mut to_visit = vec![None, target];
        let mut visited = BTreeSet::new();
        let mut worst: Option<Seen<'_>> = None;
        let mut found = false;
        while let Some(current) = to_visit.pop() {
            if !visited.insert(current) {
                continue;
            }
            for entry in self.entries.values().filter(|entry| entry.instance.as_ref() == current) {
                found |= current == target;
                match &entry.source {
                    Source::Alias(target) => to_visit.push(target.as_ref()),
                    Source::Results => take_worse(&mut worst, entry.seen()),
                }
            }
            for check in self.others.iter().filter(|check| about(check) == current) {
                found |= current == target;
                let (name, output) = (check.name.as_str(), check.output.as_str());
                take_worse(&mut worst, Seen { name, status: check.status, output });
            }
        }
        if let Some(id) = target.filter(|id| !found && !self.instances.contains(*id)) {
            return (CheckStatus::Critical, format!("Service {id} could not be found"));
        }
        match worst {
            None => (CheckStatus::Passing, "No checks found.".to_owned()),
            Some(Seen { status: CheckStatus::Passing, .. }) => {
                (CheckStatus::Passing, "All checks passing.".to_owned())
            }
            Some(Seen { name, status, output }) => {
                (status, format!("Aliased check {name:?} failing: {output}"))
            }
        }
    }
}

fn about(check: &Check) -> Option<&InstanceId> {
    check.instance.as_ref().map(|(instance, _)| instance)
}

/// Of two equally bad checks the first stays.
fn take_worse<'a>(worst: &mut Option<Seen<'a>>, seen: Seen<'a>) {
    if worst.as_ref().is_none_or(|so_far| seen.status > so_far.status) {
        *worst = Some(seen);
    }
}

impl Entry {
    fn new(instance: Option<&InstanceId>, check: &CheckDefinition) -> Self {
        let source = match &check.kind {
            CheckKind::Alias { service, .. } => Source::Alias(service.clone()),
            _ => Source::Results,
        };
        Self {
            instance: instance.cloned(),
            name: check.name.clone(),
            source,
            status: check.initial,
            output: String::new(),
            reported: false,
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen { name: &self.name, status: self.status, output: &self.output }
    }
}

#[cfg(test)]
mod tests;
