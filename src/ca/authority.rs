//! All roots of a trust domain and how far their rotation is: what the store keeps, as a value.
//!
//! Each change makes a new value with a higher version; `document` reads and writes it, `driver` and
//! [`super::Ca`] put it into the store. Invariants: exactly one root is active; the bundle's version
//! grows with every change of what it says; the oldest root is in every bundle that a sidecar with a
//! living leaf can have, which is why that one cross-signs the active root.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::cross;
use super::issue::random;
use super::limits::{MAX_ROOTS, slack};
use super::root::Root;
use super::rotation::{Rotation, Step};
use super::{CaError, RootInfo, pem};
use crate::model::{Bundle, TrustDomain, hex};

/// See the module.
#[derive(Clone)]
pub(super) struct Authority {
    pub(super) domain: TrustDomain,
    /// Grows with every change.
    pub(super) version: u64,
    pub(super) bundle_version: u64,
    /// In the order in which they joined.
    pub(super) members: Vec<Member>,
    /// Index of the root that signs.
    pub(super) active: usize,
    pub(super) rotation: Option<Rotation>,
    /// Longest life that any leaf was ever given. Only grows: a root that stays too long does no harm.
    pub(super) longest_leaf: Duration,
    /// Set over Consul's API; goes before the server's own setting.
    pub(super) leaf_ttl: Option<Duration>,
    /// What Consul's API was told, without keys.
    pub(super) config: Option<serde_json::Value>,
    /// The key of a request that an external authority is to sign.
    pub(super) requested: Option<Arc<Zeroizing<Vec<u8>>>>,
}

/// A root in the bundle.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) root: Arc<Root>,
    /// The same name and key signed by the oldest root: for whom knows no other.
    pub(super) cross: Option<Arc<[u8]>>,
    /// Seconds since the Unix epoch from which on no leaf under it can be alive.
    pub(super) retire_at: Option<u64>,
}

impl Member {
    pub(super) const fn new(root: Arc<Root>) -> Self {
        Self { root, cross: None, retire_at: None }
    }
}

impl Authority {
    /// A new trust domain with its first root.
    pub(super) fn create(now: SystemTime) -> Result<Self, CaError> {
        let domain = TrustDomain::new(&format!("{}.consul", uuid_v4(random()?)))
            .map_err(|error| CaError::Signing(error.to_string()))?;
        let root = Root::create(&domain, now)?;
        Ok(Self {
            domain,
            version: 1,
            bundle_version: 1,
            members: vec![Member::new(Arc::new(root))],
            active: 0,
            rotation: None,
            longest_leaf: Duration::ZERO,
            leaf_ttl: None,
            config: None,
            requested: None,
        })
    }

    /// The root that signs.
    pub(super) fn active(&self) -> &Arc<Root> {
        // `active` is checked where an authority is made.
        &self.members[self.active].root
    }

    /// The active root's key as the oldest root has signed it.
    pub(super) fn cross(&self) -> Option<&Arc<[u8]>> {
        self.members[self.active].cross.as_ref()
    }

    /// The root that has been in the bundle for the longest time.
    pub(super) fn oldest(&self) -> &Member {
        &self.members[0]
    }

    /// The root that takes over, while the rotation prepares.
    fn prepared(&self) -> Option<usize> {
        let rotation = self.rotation.as_ref().filter(|rotation| rotation.step == Step::Prepare)?;
        self.members.iter().position(|member| member.root.id() == rotation.to)
    }

    /// Whether the oldest root can sign the key of the one that takes over.
    pub(super) fn can_cross(&self) -> bool {
        self.oldest().root.signer().is_some()
    }

    /// When the old roots may leave.
    pub(super) fn retiring(&self) -> Vec<u64> {
        self.members.iter().filter_map(|member| member.retire_at).collect()
    }

    /// For how long a leaf can be alive after its root has stopped to sign, with slack.
    pub(super) fn horizon(&self) -> Duration {
        self.longest_leaf + slack(self.longest_leaf)
    }

    /// What peers are to trust; the root that signs comes first.
    pub(super) fn bundle(&self) -> Bundle {
        let first = std::iter::once(&self.members[self.active]);
        let roots = first.chain(self.others()).map(|member| Arc::from(member.root.certificate()));
        Bundle {
            trust_domain: self.domain.clone(),
            version: self.bundle_version,
            roots: roots.collect(),
        }
    }

    fn others(&self) -> impl Iterator<Item = &Member> {
        let others = self.members.iter().enumerate().filter(|(index, _)| *index != self.active);
        others.map(|(_, member)| member)
    }

    /// The active root first, then the others by age.
    pub(super) fn infos(&self) -> Vec<RootInfo> {
        let active = std::iter::once((&self.members[self.active], true));
        let all = active.chain(self.others().map(|member| (member, false)));
        all.map(|(member, active)| RootInfo {
            active,
            cross_pem: member.cross.as_ref().map(|der| pem::encode("CERTIFICATE", der)),
            leaves_at: member.retire_at.map(|at| UNIX_EPOCH + Duration::from_secs(at)),
            ..member.root.info().clone()
        })
        .collect()
    }

    /// The same with a change that does not concern the bundle.
    pub(super) fn changed(&self) -> Self {
        Self { version: self.version + 1, ..self.clone() }
    }

    /// The new root joins the bundle, and the rotation begins.
    pub(super) fn prepare(
        &self,
        root: Arc<Root>,
        patience: Duration,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        if self.prepared().is_some() {
            let text = "another rotation is being prepared; wait for it with `weft ca rotate --wait`";
            return Err(CaError::Rotating(text.to_owned()));
        }
        if self.members.iter().any(|member| member.root.id() == root.id()) {
            return Err(CaError::Import("this root is in the bundle already".to_owned()));
        }
        if self.members.len() >= MAX_ROOTS {
            let text = format!("the bundle has {MAX_ROOTS} roots; wait until an old one has left");
            return Err(CaError::Rotating(text));
        }
        if root.not_after() <= now {
            return Err(CaError::Import("the root has expired".to_owned()));
        }
        let mut next = self.changed();
        next.bundle_version += 1;
        let now = seconds(now);
        next.rotation = Some(Rotation {
            to: root.id().to_owned(),
            step: Step::Prepare,
            began: now,
            since: now,
            bundle: next.bundle_version,
            patience_s: patience.as_secs(),
        });
        next.members.push(Member::new(root));
        Ok(next)
    }

    /// The prepared root signs from now on; `None` when there is none.
    pub(super) fn activate(&self, now: SystemTime) -> Result<Option<Self>, CaError> {
        let Some(to) = self.prepared() else { return Ok(None) };
        let mut next = self.changed();
        next.bundle_version += 1;
        next.members[self.active].retire_at = Some(seconds(now) + self.horizon().as_secs());
        next.active = to;
        next.cross_sign(now)?;
        next.step(Step::Reissue, now);
        Ok(Some(next))
    }

    /// Roots whose last leaf is dead leave; `None` when there is none.
    pub(super) fn retire(&self, now: SystemTime) -> Result<Option<Self>, CaError> {
        let signing = Arc::clone(self.active());
        let is_over = |member: &Member| member.retire_at.is_some_and(|at| seconds(now) >= at);
        if !self.members.iter().any(is_over) {
            return Ok(None);
        }
        let mut next = self.changed();
        next.bundle_version += 1;
        next.members.retain(|member| !is_over(member));
        // The active one never has such a time.
        next.active =
            next.members.iter().position(|member| Arc::ptr_eq(&member.root, &signing)).unwrap_or(0);
        next.cross_sign(now)?;
        Ok(Some(next))
    }

    /// The next step of the rotation, when it is not there yet.
    pub(super) fn advance(&self, from: Step, to: Step, now: SystemTime) -> Option<Self> {
        self.rotation.as_ref().filter(|rotation| rotation.step == from)?;
        let mut next = self.changed();
        next.step(to, now);
        Some(next)
    }

    fn step(&mut self, to: Step, now: SystemTime) {
        if let Some(rotation) = &mut self.rotation {
            rotation.step = to;
            rotation.since = seconds(now);
        }
    }

    /// Makes the oldest root vouch for the active one.
    fn cross_sign(&mut self, now: SystemTime) -> Result<(), CaError> {
        let oldest = Arc::clone(&self.members[0].root);
        let horizon = self.horizon();
        for (index, member) in self.members.iter_mut().enumerate() {
            let signer = oldest.signer().filter(|_| index == self.active && index != 0);
            member.cross = match signer {
                Some(signer) => {
                    Some(cross::sign(signer, &member.root, &self.domain, horizon, now)?.into())
                }
                None => None,
            };
        }
        Ok(())
    }
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// RFC 9562, version 4.
fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex::encode(&bytes);
    let part = |from: usize, to: usize| &digits[from..to];
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}
