//! The Sync streams that are alive: which sidecar holds which instance, and how it does.
//!
//! Written by `sync`, read by `mesh` (whose report is this?), by the API through the catalog's board
//! of sidecars, and by root rotation (`census`). An instance has at most one stream. A later
//! stream of the same process takes over; another process is refused while the first is heard of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::limits::BOARD_KEEP;
use crate::ca::rotation::Census;
use crate::catalog::Catalog;
use crate::catalog::proxies::ProxyStatus;
use crate::model::{EndpointId, ServiceName};

/// All live streams of this server. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    catalog: Catalog,
    live: Arc<Mutex<Live>>,
}

#[derive(Default)]
struct Live {
    next_stream: u64,
    /// By stream.
    streams: HashMap<u64, Session>,
    /// Every instance that a stream holds.
    holders: HashMap<EndpointId, u64>,
}

struct Session {
    instances: Vec<EndpointId>,
    process: Vec<u8>,
    heard: Instant,
    bundle: u64,
    root_key_id: String,
    status: ProxyStatus,
    /// Dropped to tell the stream that another one took over.
    _replaced: oneshot::Sender<()>,
}

/// Why an instance cannot be claimed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub instance: EndpointId,
}

/// What a stream wants to hold.
pub(super) struct Bid {
    pub instances: Vec<EndpointId>,
    /// Names the sidecar's process; empty when it has no name.
    pub process: Vec<u8>,
    pub bundle: u64,
    /// Of the root above its certificate.
    pub root_key_id: String,
    pub status: ProxyStatus,
}

/// A stream's hold on its instances. Ends with it.
pub(super) struct Claim {
    sessions: Sessions,
    stream: u64,
    left: bool,
}

impl Sessions {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, live: Arc::default() }
    }

    /// Sidecars connected to this server.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().streams.len()
    }

    /// Counts the sidecars for a rotation of the root: who has a bundle of this version, and whose leaf
    /// is below the root with this key id.
    #[must_use]
    pub fn census(&self, bundle: u64, root_key_id: &str, now: SystemTime) -> Census {
        let mut census = Census::default();
        for session in self.lock().streams.values() {
            census.connected += 1;
            census.behind += usize::from(session.bundle < bundle);
            census.old_leaf += usize::from(session.root_key_id != root_key_id);
        }
        let is_away =
            |proxy: &ProxyStatus| !proxy.connected && proxy.leaf_not_after.is_some_and(|end| end > now);
        census.away = self.catalog.proxies().iter().filter(|proxy| is_away(proxy)).count();
        census
    }

    /// Takes hold of instances. Whoever held them and was silent for `patience`, or is the same
    /// process, loses them: the returned channel of that stream closes.
    pub(super) fn claim(
        &self,
        bid: Bid,
        now: Instant,
        patience: Duration,
    ) -> Result<(Claim, oneshot::Receiver<()>), Taken> {
        let live = &mut *self.lock();
        for instance in &bid.instances {
            if live.holder_of(instance).is_some_and(|held| held.resists(&bid.process, now, patience)) {
                return Err(Taken { instance: instance.clone() });
            }
        }
        for instance in &bid.instances {
            if let Some(stream) = live.holders.get(instance).copied() {
                live.remove(stream);
            }
        }
        let (replaced, watch) = oneshot::channel();
        live.next_stream += 1;
        let stream = live.next_stream;
        for instance in &bid.instances {
            live.holders.insert(instance.clone(), stream);
        }
        self.catalog.update_proxy(bid.status.clone());
        let Bid { instances, process, bundle, root_key_id, status } = bid;
        let session =
            Session { instances, process, heard: now, bundle, root_key_id, status, _replaced: replaced };
        live.streams.insert(stream, session);
        Ok((Claim { sessions: self.clone(), stream, left: false }, watch))
    }

    /// Takes a sidecar's word on its certificate, if it is connected here as `service`.
    pub(super) fn report_leaf(
        &self,
        instance: &EndpointId,
        service: &ServiceName,
        not_after: Option<SystemTime>,
    ) -> bool {
        let live = &mut *self.lock();
        let Some(stream) = live.holders.get(instance).copied() else { return false };
        let Some(session) = live.streams.get_mut(&stream) else { return false };
        if session.status.service != *service {
            return false;
        }
        session.status.leaf_not_after = not_after;
        self.catalog.update_proxy(session.status.clone());
        true
    }

    /// Forgets sidecars that went away long ago and whose instance is gone.
    pub(super) fn sweep(&self, now: SystemTime) {
        for proxy in self.catalog.proxies() {
            let long_gone = now.duration_since(proxy.since).is_ok_and(|gone| gone >= BOARD_KEEP);
            let unknown = self.catalog.instance(&proxy.node, &proxy.instance).is_none();
            if !proxy.connected && long_gone && unknown {
                self.catalog.remove_proxy(&proxy.node, &proxy.instance);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        // Every change below is complete before anything that could panic.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn holder_of(&self, instance: &EndpointId) -> Option<&Session> {
        self.streams.get(self.holders.get(instance)?)
    }

    fn remove(&mut self, stream: u64) -> Option<Session> {
        let session = self.streams.remove(&stream)?;
        for instance in &session.instances {
            self.holders.remove(instance);
        }
        Some(session)
    }
}

impl Session {
    fn resists(&self, process: &[u8], now: Instant, patience: Duration) -> bool {
        let same = !process.is_empty() && self.process == process;
        !same && now.saturating_duration_since(self.heard) < patience
    }
}

impl Claim {
    /// The sidecar gave a sign of life.
    pub(super) fn heard(&self, now: Instant) {
        if let Some(session) = self.sessions.lock().streams.get_mut(&self.stream) {
            session.heard = now;
        }
    }

    /// The sidecar works with this trust bundle now.
    pub(super) fn holds_bundle(&self, version: u64) {
        if let Some(session) = self.sessions.lock().streams.get_mut(&self.stream) {
            session.bundle = version;
        }
    }

    /// Changes what the board says of the sidecar.
    pub(super) fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        let live = &mut *self.sessions.lock();
        if let Some(session) = live.streams.get_mut(&self.stream) {
            change(&mut session.status);
            self.sessions.catalog.update_proxy(session.status.clone());
        }
    }

    /// Ends the hold of a sidecar that is gone for good.
    pub(super) fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Claim {
    /// A stream that was replaced has nothing to say any more.
    fn drop(&mut self) {
        let Some(session) = self.sessions.lock().remove(self.stream) else { return };
        let mut status = session.status;
        if self.left {
            self.sessions.catalog.remove_proxy(&status.node, &status.instance);
        } else {
            status.connected = false;
            status.since = SystemTime::now();
            self.sessions.catalog.update_proxy(status);
        }
    }
}
