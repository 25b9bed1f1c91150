//! Which resources changed lately, so that a reader can resume. Pure.
//!
//! Keeps the last change of each resource only, by scope, so that resuming costs what changed for one
//! reader. Bounded; a position older than `floor` is not known any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::resource::{Resource, Scope};
use crate::store::Revision;

/// Changes that are remembered. At 1,000 changes a second a reader may be away for a minute and a half.
const MAX_CHANGES: usize = 100_000;

#[derive(Debug)]
pub(super) struct Changelog {
    /// Readers at this revision or later can resume.
    floor: Revision,
    by_scope: HashMap<Scope, BTreeMap<Arc<Resource>, Revision>>,
    order: VecDeque<(Revision, Arc<Resource>)>,
    capacity: usize,
}

impl Changelog {
    pub(super) fn new(loaded: Revision) -> Self {
        let (by_scope, order) = (HashMap::new(), VecDeque::new());
        Self { floor: loaded, by_scope, order, capacity: MAX_CHANGES }
    }

    pub(super) fn record(&mut self, revision: Revision, resources: &[Arc<Resource>]) {
        for resource in resources {
            let scope = self.by_scope.entry(resource.scope()).or_default();
            scope.insert(Arc::clone(resource), revision);
            self.order.push_back((revision, Arc::clone(resource)));
        }
        while self.order.len() > self.capacity {
            self.forget_oldest();
        }
    }

    /// What changed after a revision, or `None` when that is not known any more.
    pub(super) fn since(
        &self,
        revision: Revision,
        scopes: impl Iterator<Item = Scope>,
    ) -> Option<BTreeSet<Arc<Resource>>> {
        if revision < self.floor {
            return None;
        }
        let changed = scopes.filter_map(|scope| self.by_scope.get(&scope)).flatten();
        Some(changed.filter(|(_, at)| **at > revision).map(|(r, _)| Arc::clone(r)).collect())
    }

    fn forget_oldest(&mut self) {
        let Some((revision, resource)) = self.order.pop_front() else { return };
        self.floor = self.floor.max(revision);
        let scope = resource.scope();
        let Some(resources) = self.by_scope.get_mut(&scope) else { return };
        if resources.get(&resource) == Some(&revision) {
            resources.remove(&resource);
        }
        if resources.is_empty() {
            self.by_scope.remove(&scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    fn service(name: &str) -> Arc<Resource> {
        Arc::new(Resource::Service(ServiceName::new(name).unwrap()))
    }

    #[test]
    fn only_what_changed_later_and_is_followed_comes_back() {
        let mut log = Changelog::new(10);
        log.record(11, &[service("a"), service("b")]);
        log.record(12, &[service("a")]);
        let since = |revision| log.since(revision, [service("a").scope()].into_iter());
        assert_eq!(since(9), None, "before it was loaded");
        assert_eq!(since(10), Some([service("a")].into()));
        assert_eq!(since(11), Some([service("a")].into()));
        assert_eq!(since(12), Some([].into()));
    }

    #[test]
    fn what_is_forgotten_cannot_be_resumed_from() {
        let mut log = Changelog::new(0);
        log.capacity = 3;
        for revision in 1..=10 {
            log.record(revision, &[service(["a", "b"][usize::try_from(revision % 2).unwrap()])]);
        }
        let since = |revision| log.since(revision, ["a", "b"].map(|n| service(n).scope()).into_iter());
        assert_eq!(since(6), None);
        assert_eq!(since(7).unwrap().len(), 2);
        assert_eq!(since(9), Some([service("a")].into()));
        assert_eq!((log.order.len(), log.by_scope.len()), (3, 2));
    }
}
