//! What ends sessions: time, and the catalog on which they depend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::shell::{Shared, Subject};
use super::{KvError, SessionFault, SessionId};
use crate::catalog::Topic;
use crate::store::StoreError;

/// Sessions that are ended at the same time; the store commits them as a group.
const AT_ONCE: usize = 64;
/// Pause before an end that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// What sessions depend on is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Ends sessions whose time is over, until the store stops. `orphans` are sessions that are gone while
/// locks of theirs are not.
pub(super) async fn expire(shared: Arc<Shared>, orphans: Vec<SessionId>) {
    let mut over = orphans;
    while end_all(&shared, over, "its time is over").await.is_ok() {
        over = shared.clock.over().await;
    }
}

/// Ends sessions that have lost their node or a check, until the store stops.
pub(super) async fn review(shared: Arc<Shared>) {
    loop {
        // Before the look: what changes meanwhile is looked at again.
        let catalog = &shared.catalog;
        let (checks, nodes) = (catalog.index(&Topic::Checks), catalog.index(&Topic::Nodes));
        let sessions = shared.index(&Subject::Sessions);
        for (reason, lost) in lost(&shared) {
            if end_all(&shared, lost, &reason).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = catalog.wait(&Topic::Checks, checks, LOOK_AGAIN) => {}
            _ = catalog.wait(&Topic::Nodes, nodes, LOOK_AGAIN) => {}
            () = shared.sessions_changed(sessions, LOOK_AGAIN) => {}
        }
    }
}

/// Sessions that may not live, by the reason.
fn lost(shared: &Shared) -> BTreeMap<String, Vec<SessionId>> {
    let mut by_node: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for session in shared.replica.read(|state| state.sessions_on(None)) {
        by_node.entry(session.node.clone()).or_default().push(session);
    }
    let mut lost: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (node, sessions) in by_node {
        let checks = shared.checks_on(node.as_str());
        for session in sessions {
            if let Err(fault) = session.may_live(checks.as_ref()) {
                lost.entry(describe(&fault)).or_default().push(session.id.clone());
            }
        }
    }
    lost
}

fn describe(fault: &SessionFault) -> String {
    match fault {
        SessionFault::NoNode => "its node is gone".to_owned(),
        SessionFault::NoCheck(id) => format!("its check {id:?} is gone"),
        other => other.to_string(),
    }
}

/// Ends sessions, several at a time. Fails when the store has stopped.
async fn end_all(shared: &Shared, sessions: Vec<SessionId>, reason: &str) -> Result<(), StoreError> {
    let ends = sessions.into_iter().map(|id| async move { (shared.end_session(&id).await, id) });
    let mut ends = futures_util::stream::iter(ends).buffer_unordered(AT_ONCE);
    while let Some((result, session)) = ends.next().await {
        match result {
            Ok(()) => tracing::info!(%session, reason, "a session has ended"),
            Err(KvError::Store(StoreError::Stopped(reason))) => {
                return Err(StoreError::Stopped(reason));
            }
            Err(error) => {
                tracing::warn!(%session, %error, "a session could not be ended and is tried again");
                shared.clock.grant(session, RETRY);
            }
        }
    }
    Ok(())
}
