//! The board of sidecars that are, or lately were, connected: written by `control`, read by `api`.
//! In memory only, bounded: a full board forgets who has been away longest.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::model::{EndpointId, InstanceId, NodeName, Position, ServiceName};

/// Most sidecars on the board: twice what a server has to hold connected.
const MAX_PROXIES: usize = 20_000;

/// One sidecar as the server sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyStatus {
    pub node: NodeName,
    /// The application instance behind the sidecar.
    pub instance: InstanceId,
    pub service: ServiceName,
    pub version: String,
    pub connected: bool,
    pub since: SystemTime,
    /// Last acknowledged position.
    pub acknowledged: Position,
    /// Resources refused in the last batch.
    pub refused: Vec<String>,
    pub leaf_not_after: Option<SystemTime>,
    pub draining: bool,
}

/// All sidecars, by their application instance.
#[derive(Debug, Default)]
pub(super) struct Board {
    proxies: Mutex<HashMap<EndpointId, ProxyStatus>>,
}

impl Board {
    /// All of them, by service, then by instance.
    pub(super) fn list(&self) -> Vec<ProxyStatus> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by(|a, b| (&a.service, &a.instance, &a.node).cmp(&(&b.service, &b.instance, &b.node)));
        all
    }

    pub(super) fn put(&self, status: ProxyStatus) {
        let id = EndpointId { node: status.node.clone(), instance: status.instance.clone() };
        let mut proxies = self.lock();
        if proxies.len() >= MAX_PROXIES && !proxies.contains_key(&id) {
            // Those who are away first, then the oldest.
            let worst = proxies.iter().min_by_key(|(_, status)| (status.connected, status.since));
            if let Some(worst) = worst.map(|(id, _)| id.clone()) {
                proxies.remove(&worst);
            }
        }
        proxies.insert(id, status);
    }

    pub(super) fn remove(&self, id: &EndpointId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointId, ProxyStatus>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn status(number: usize, connected: bool) -> ProxyStatus {
        ProxyStatus {
            node: NodeName::new("n1").unwrap(),
            instance: InstanceId::new(format!("web-{number}")).unwrap(),
            service: ServiceName::new("web").unwrap(),
            version: String::new(),
            connected,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64),
            acknowledged: Position::default(),
            refused: Vec::new(),
            leaf_not_after: None,
            draining: false,
        }
    }

    #[test]
    fn a_full_board_forgets_who_is_away_longest() {
        let board = Board::default();
        for number in 0..MAX_PROXIES {
            board.put(status(number, number != 7 && number != 8));
        }
        board.put(status(3, true));
        assert_eq!(board.list().len(), MAX_PROXIES, "a known one takes no new place");
        board.put(status(MAX_PROXIES, true));
        let listed =
            |number| board.lock().values().any(|s| *s == status(number, number != 7 && number != 8));
        assert!(!listed(7) && listed(8) && listed(0) && listed(MAX_PROXIES));
        assert_eq!(board.list().len(), MAX_PROXIES);
    }
}
