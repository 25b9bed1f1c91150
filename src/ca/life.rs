//! What people may do about the authority: look at it, rotate it, give it a root of their own.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;

use super::authority::{Authority, seconds};
use super::limits::MAX_PATIENCE;
use super::root::Root;
use super::rotation::{Census, Step};
use super::{Ca, CaError, RootInfo, document};

/// The authority as people see it.
#[derive(Debug, Clone)]
pub struct Overview {
    pub version: u64,
    pub bundle_version: u64,
    /// The active one first.
    pub roots: Vec<RootInfo>,
    pub rotation: Option<RotationInfo>,
    /// Whether the keys in the store are encrypted.
    pub sealed: bool,
    pub leaf_ttl: Duration,
    /// A request waits to be signed by an external authority.
    pub requested: bool,
}

/// The last rotation.
#[derive(Debug, Clone)]
pub struct RotationInfo {
    /// Id of the root that takes over, or has.
    pub to: String,
    pub step: Step,
    pub began: SystemTime,
    pub since: SystemTime,
    /// First version of the bundle that has the new root.
    pub bundle: u64,
    pub patience: Duration,
    /// Whether sidecars that sleep through it can follow.
    pub cross_signed: bool,
    pub census: Census,
}

impl Ca {
    /// Everything there is to see.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let state = self.0.state.load();
        let authority = &state.authority;
        Overview {
            version: authority.version,
            bundle_version: authority.bundle_version,
            roots: authority.infos(),
            rotation: self.rotation(authority),
            sealed: self.0.ring.seals(),
            leaf_ttl: state.leaf_ttl,
            requested: authority.requested.is_some(),
        }
    }

    fn rotation(&self, authority: &Authority) -> Option<RotationInfo> {
        let rotation = authority.rotation.clone()?;
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let count = self.0.count.get();
        let census = count.map(|count| count(rotation.bundle, &authority.active().info().key_id));
        Some(RotationInfo {
            step: rotation.step,
            began: at(rotation.began),
            since: at(rotation.since),
            bundle: rotation.bundle,
            patience: Duration::from_secs(rotation.patience_s),
            cross_signed: authority.can_cross(),
            census: census.unwrap_or_default(),
            to: rotation.to,
        })
    }

    /// The version of the authority and its changes.
    #[must_use]
    pub fn version(&self) -> watch::Receiver<u64> {
        self.0.version.clone()
    }

    /// Life of the leaves that are signed now.
    #[must_use]
    pub fn leaf_ttl(&self) -> Duration {
        self.0.state.load().leaf_ttl
    }

    /// Begins to replace the active root by a new one. Sidecars that are away are waited for at most
    /// `patience`. Returns the id of the new root.
    ///
    /// # Errors
    /// [`CaError::Rotating`] while another rotation prepares, or when the bundle is full.
    pub async fn rotate(&self, patience: Duration) -> Result<String, CaError> {
        let root = Root::create(self.trust_domain(), SystemTime::now())?;
        self.rotate_to(root, patience).await
    }

    pub(super) async fn rotate_to(&self, root: Root, patience: Duration) -> Result<String, CaError> {
        let root = Arc::new(root);
        let patience = patience.min(MAX_PATIENCE);
        self.change(|current| {
            let next = current.prepare(Arc::clone(&root), patience, SystemTime::now())?;
            Ok(Some(next))
        })
        .await?;
        tracing::info!(root = root.id(), "a new root joins the bundle");
        Ok(root.id().to_owned())
    }

    /// Keeps what Consul's API was told, and the life of leaves among it. `config` has no keys in it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn configure(
        &self,
        config: serde_json::Value,
        leaf_ttl: Option<Duration>,
    ) -> Result<(), CaError> {
        self.change(|current| {
            let longest_leaf = current.longest_leaf.max(leaf_ttl.unwrap_or_default());
            let config = Some(config.clone());
            Ok(Some(Authority { config, leaf_ttl, longest_leaf, ..current.changed() }))
        })
        .await
        .map(drop)
    }

    /// What [`Self::configure`] was told last.
    #[must_use]
    pub fn configuration(&self) -> Option<serde_json::Value> {
        self.0.state.load().authority.config.clone()
    }

    /// Id of the root that signs.
    #[must_use]
    pub fn active_root(&self) -> String {
        self.0.state.load().authority.active().id().to_owned()
    }

    /// Waits until a root signs, at most `limit`; says whether it does.
    pub async fn activated(&self, root: &str, limit: Duration) -> bool {
        let mut version = self.version();
        let signs = || self.0.state.load().authority.active().id() == root;
        timeout(limit, version.wait_for(|_| signs())).await.is_ok()
    }

    /// Writes a change and waits until this server works with it.
    pub(super) async fn change(
        &self,
        step: impl Fn(&Authority) -> Result<Option<Authority>, CaError>,
    ) -> Result<Authority, CaError> {
        let stored = document::change(&*self.0.store, &self.0.ring, step).await?;
        let mut version = self.version();
        // What is written is followed at once; a follower that has stopped has said so in the log.
        let followed = version.wait_for(|version| *version >= stored.version);
        let _late = timeout(Duration::from_secs(5), followed).await;
        Ok(stored)
    }

    /// What a token that lives so long is to pin. Servers present the active and the oldest root: the
    /// oldest counts if it stays for long enough, because the active one may not be active then.
    pub(super) fn pin_for(&self, ttl: Duration) -> String {
        let authority = Arc::clone(&self.0.state.load().authority);
        let end = seconds(SystemTime::now()) + ttl.as_secs();
        let oldest = authority.oldest();
        let root = match oldest.retire_at {
            Some(at) if at > end && oldest.root.signer().is_some() => &oldest.root,
            _ => authority.active(),
        };
        root.pin().to_owned()
    }
}
