//! The board of sidecars that are, or lately were, connected: written by `control`, read by `api`.

use std::time::SystemTime;

use crate::model::{InstanceId, NodeName, Position, ServiceName};

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
