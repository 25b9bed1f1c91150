//! Deregisters instances of the server's own node that were critical for as long as one of their checks
//! allows (`deregister_critical_service_after`).
//!
//! The decision is pure: what has been critical since when, with time passed in. A server that starts
//! counts from its start, so that its own downtime deregisters nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::catalog::{Catalog, CheckRecord, Topic};
use crate::model::{CheckId, CheckStatus, InstanceId};

/// Checks are looked at again at least this often, as Consul does.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Checks that are critical and have a limit, and since when.
#[derive(Debug, Default)]
struct Reaper {
    since: BTreeMap<CheckId, Instant>,
}

impl Reaper {
    /// Looks at the checks of the node: whom to deregister now, and when the next limit is over.
    fn look(&mut self, checks: &[CheckRecord], now: Instant) -> (BTreeSet<InstanceId>, Option<Instant>) {
        let mut over = BTreeSet::new();
        let mut next: Option<Instant> = None;
        let mut critical = BTreeMap::new();
        for record in checks {
            let check = &record.check;
            let limit = check.definition.as_ref().and_then(|found| found.deregister_critical_after);
            let (Some(limit), Some((instance, _))) = (limit, &check.instance) else { continue };
            if check.status != CheckStatus::Critical {
                continue;
            }
            let since = self.since.get(&check.id).copied().unwrap_or(now);
            critical.insert(check.id.clone(), since);
            let end = since + limit;
            if end <= now {
                over.insert(instance.clone());
            } else {
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        self.since = critical;
        (over, next)
    }
}

/// Follows the checks of the server's node. Never returns.
pub(super) async fn run(catalog: &Catalog) {
    let node = &catalog.settings().node;
    let mut reaper = Reaper::default();
    loop {
        let index = catalog.index(&Topic::Checks);
        let (over, next) = reaper.look(&catalog.checks_on(node), Instant::now());
        for id in over {
            match catalog.deregister(node, &id).await {
                Ok(_) => tracing::info!(instance = %id, "deregistered: critical for too long"),
                Err(error) => tracing::warn!(instance = %id, %error, "cannot deregister; trying again"),
            }
        }
        let latest = Instant::now() + LOOK_AGAIN;
        tokio::select! {
            _ = catalog.wait(&Topic::Checks, index, LOOK_AGAIN) => {}
            () = sleep_until(next.map_or(latest, |next| next.min(latest))) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Check, CheckDefinition, CheckKind, NodeName, ServiceName};

    const MINUTE: Duration = Duration::from_secs(60);

    fn record(id: &str, status: CheckStatus, limit: Option<Duration>) -> CheckRecord {
        let kind = CheckKind::Ttl { ttl: MINUTE };
        let mut definition = CheckDefinition::new(id.to_owned(), id.to_owned(), kind);
        definition.deregister_critical_after = limit;
        let about = (InstanceId::new(id).unwrap(), ServiceName::new("web").unwrap());
        let node = NodeName::new("n1").unwrap();
        let mut check = Check::declared(&node, Some(about), &definition);
        check.status = status;
        CheckRecord { check: Arc::new(check), created: 1, modified: 1 }
    }

    fn names(over: &BTreeSet<InstanceId>) -> Vec<&str> {
        over.iter().map(InstanceId::as_str).collect()
    }

    #[test]
    fn only_what_stays_critical_goes_and_a_recovery_starts_anew() {
        let start = Instant::now();
        let (bad, fine) = (CheckStatus::Critical, CheckStatus::Passing);
        let mut reaper = Reaper::default();
        let all = [
            record("a", bad, Some(MINUTE)),
            record("b", bad, Some(2 * MINUTE)),
            record("never", bad, None),
            record("fine", fine, Some(MINUTE)),
        ];
        let (over, next) = reaper.look(&all, start);
        assert_eq!((names(&over), next), (vec![], Some(start + MINUTE)));
        let (over, _) = reaper.look(&all, start + MINUTE / 2);
        assert!(over.is_empty());
        let (over, next) = reaper.look(&all, start + MINUTE);
        assert_eq!((names(&over), next), (vec!["a"], Some(start + 2 * MINUTE)));

        let (over, next) = reaper.look(&[record("b", fine, Some(2 * MINUTE))], start + MINUTE);
        assert_eq!((names(&over), next), (vec![], None));
        let late = start + 3 * MINUTE;
        let (over, next) = reaper.look(&[record("b", bad, Some(2 * MINUTE))], late);
        assert_eq!((names(&over), next), (vec![], Some(late + 2 * MINUTE)));
    }
}
