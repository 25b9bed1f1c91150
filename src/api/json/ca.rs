//! The certificate authority under `/v1/weft/ca`. The CLI reads and prints the same shapes.

use serde::{Deserialize, Serialize};

use crate::ca::{Overview, RootInfo, RotationInfo};
use crate::model::duration;
use crate::model::time::{epoch_ms, rfc3339};

/// `GET /v1/weft/ca`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaJson {
    pub trust_domain: String,
    /// Grows with every change of the authority.
    pub version: u64,
    pub bundle_version: u64,
    /// Whether the keys in the store are encrypted.
    pub encrypted: bool,
    pub leaf_ttl: String,
    /// A request waits for the signature of an external authority.
    pub requested: bool,
    /// The one that signs comes first.
    pub roots: Vec<CaRoot>,
    /// The last rotation.
    pub rotation: Option<RotationJson>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRoot {
    pub id: String,
    pub name: String,
    /// `active`, `prepared` or `retiring`.
    pub state: String,
    /// The key is with an external authority.
    pub external: bool,
    pub not_before: String,
    pub not_after: String,
    /// When it leaves the bundle.
    pub leaves_at: Option<String>,
    pub certificate: String,
    /// Its key as an older root has signed it.
    pub cross_certificate: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationJson {
    /// Id of the root that takes over, or has.
    pub root: String,
    /// `prepare`, `reissue`, `retire` or `done`.
    pub step: String,
    pub began: String,
    pub since: String,
    /// First version of the bundle that has the new root.
    pub bundle_version: u64,
    pub patience: String,
    /// Whether sidecars that sleep through it can follow.
    pub cross_signed: bool,
    pub proxies: RotationProxies,
}

/// The sidecars of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationProxies {
    pub connected: usize,
    /// Connected, and have not acknowledged the bundle with the new root.
    pub unacknowledged: usize,
    /// Not connected, with a certificate that is still good.
    pub away: usize,
    /// Connected with a certificate of another root than the active one.
    pub old_certificate: usize,
}

/// What a rotation begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootReply {
    /// Id of the root that takes over.
    pub root: String,
}

/// `POST /v1/weft/ca/csr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestReply {
    /// PKCS#10, PEM.
    pub csr: String,
}

impl CaJson {
    pub(in crate::api) fn new(trust_domain: &str, overview: &Overview) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            version: overview.version,
            bundle_version: overview.bundle_version,
            encrypted: overview.sealed,
            leaf_ttl: duration::format(overview.leaf_ttl),
            requested: overview.requested,
            roots: overview.roots.iter().map(root).collect(),
            rotation: overview.rotation.as_ref().map(rotation),
        }
    }
}

fn root(info: &RootInfo) -> CaRoot {
    let state = match (info.active, info.leaves_at) {
        (true, _) => "active",
        (false, None) => "prepared",
        (false, Some(_)) => "retiring",
    };
    CaRoot {
        id: info.id.clone(),
        name: info.name.clone(),
        state: state.to_owned(),
        external: info.is_external,
        not_before: rfc3339(epoch_ms(info.not_before)),
        not_after: rfc3339(epoch_ms(info.not_after)),
        leaves_at: info.leaves_at.map(|at| rfc3339(epoch_ms(at))),
        certificate: info.pem.clone(),
        cross_certificate: info.cross_pem.clone(),
    }
}

fn rotation(info: &RotationInfo) -> RotationJson {
    RotationJson {
        root: info.to.clone(),
        step: info.step.as_str().to_owned(),
        began: rfc3339(epoch_ms(info.began)),
        since: rfc3339(epoch_ms(info.since)),
        bundle_version: info.bundle,
        patience: duration::format(info.patience),
        cross_signed: info.cross_signed,
        proxies: RotationProxies {
            connected: info.census.connected,
            unacknowledged: info.census.behind,
            away: info.census.away,
            old_certificate: info.census.old_leaf,
        },
    }
}
