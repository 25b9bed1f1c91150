//! The lanes one worker keeps to its peers.
//!
//! Dials of one key are shared: a thousand connections that arrive at once wait for one handshake.
//! A lane that is congested or full is avoided, and another one opened, up to a bound.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::watch;

use super::driver::Driver;
use super::handshake::HandshakeError;
use super::lane::{Lane, Mode};
use crate::model::{Reason, ServiceName};
use crate::net::limits;

/// What a lane belongs to: lanes of different keys are never mixed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub service: ServiceName,
    pub address: SocketAddr,
    /// Generation of our own identity.
    pub generation: u64,
}

/// A dial's result, shared by all who wait for it.
type Dialled = Result<Lane, Rc<HandshakeError>>;

/// See the module.
#[derive(Default)]
pub struct Pool {
    lanes: RefCell<HashMap<Key, Vec<Lane>>>,
    dialling: RefCell<HashMap<Key, watch::Receiver<Option<Dialled>>>>,
    /// Peers that speak Connect mode: one TLS connection for each application connection.
    raw: RefCell<HashSet<SocketAddr>>,
}

impl Pool {
    /// A lane that takes a new stream: one that is open and at ease, or a new one made by `dial`.
    ///
    /// # Errors
    /// Why the dial failed, shared with everyone who waited for it.
    pub async fn lane<F>(self: &Rc<Self>, key: &Key, dial: impl Fn() -> F) -> Dialled
    where
        F: Future<Output = Result<(Lane, Driver), HandshakeError>> + 'static,
    {
        if let Some(lane) = self.best(key) {
            return Ok(lane);
        }
        if self.raw.borrow().contains(&key.address) {
            let (lane, driver) = dial().await.map_err(Rc::new)?;
            self.keep(key, lane.clone(), driver);
            return Ok(lane);
        }
        loop {
            let lane = self.dialled(key, &dial).await?;
            // Others who waited may have filled it meanwhile; then a further one is needed.
            if lane.mode() == Mode::Raw || !lane.is_open() {
                return Ok(lane);
            }
            if let Some(best) = self.best(key) {
                return Ok(best);
            }
        }
    }

    /// The result of the dial that is under way, or of a new one.
    async fn dialled<F>(self: &Rc<Self>, key: &Key, dial: &impl Fn() -> F) -> Dialled
    where
        F: Future<Output = Result<(Lane, Driver), HandshakeError>> + 'static,
    {
        // A dial whose task is gone without a result is none.
        let alive = |waiting: &watch::Receiver<_>| waiting.has_changed().is_ok();
        let shared = self.dialling.borrow().get(key).filter(|waiting| alive(waiting)).cloned();
        let mut waiting = shared.unwrap_or_else(|| self.start(key.clone(), dial()));
        match waiting.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(dialled)) => dialled.clone(),
            Ok(None) | Err(_) => Err(Rc::new(HandshakeError::Timeout { address: key.address })),
        }
    }

    fn start<F>(self: &Rc<Self>, key: Key, dial: F) -> watch::Receiver<Option<Dialled>>
    where
        F: Future<Output = Result<(Lane, Driver), HandshakeError>> + 'static,
    {
        let (done, waiting) = watch::channel(None);
        self.dialling.borrow_mut().insert(key.clone(), waiting.clone());
        let pool = Rc::clone(self);
        // A task of its own: the dial goes on for the others when the first caller gives up.
        tokio::task::spawn_local(async move {
            let result = dial.await;
            pool.dialling.borrow_mut().remove(&key);
            let dialled = match result {
                Ok((lane, driver)) => {
                    pool.keep(&key, lane.clone(), driver);
                    Ok(lane)
                }
                Err(error) => Err(Rc::new(error)),
            };
            done.send_replace(Some(dialled));
        });
        waiting
    }

    fn keep(self: &Rc<Self>, key: &Key, lane: Lane, driver: Driver) {
        if lane.mode() == Mode::Raw {
            self.raw.borrow_mut().insert(key.address);
            tokio::task::spawn_local(driver.run());
            return;
        }
        self.raw.borrow_mut().remove(&key.address);
        self.lanes.borrow_mut().entry(key.clone()).or_default().push(lane.clone());
        let (pool, key) = (Rc::clone(self), key.clone());
        tokio::task::spawn_local(async move {
            let end = driver.run().await;
            tracing::debug!(service = %key.service, address = %key.address, reason = %end.reason, detail = %end.detail, "lane ended");
            pool.drop_lane(&key, &lane);
        });
    }

    fn drop_lane(&self, key: &Key, lane: &Lane) {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(kept) = lanes.get_mut(key) {
            kept.retain(|other| !other.is(lane));
            if kept.is_empty() {
                lanes.remove(key);
            }
        }
    }

    /// The least loaded open lane; `None` when a further one should be opened.
    fn best(&self, key: &Key) -> Option<Lane> {
        let lanes = self.lanes.borrow();
        let open: Vec<&Lane> = lanes.get(key)?.iter().filter(|lane| lane.is_open()).collect();
        let strain = |lane: &Lane| (lane.is_congested(), lane.carries_bulk());
        let best = open.iter().min_by_key(|lane| (strain(lane), lane.streams()))?;
        let at_ease = strain(best) == (false, false) && best.streams() < limits::STREAMS_PER_LANE;
        (at_ease || open.len() >= limits::LANES_PER_ENDPOINT).then(|| Lane::clone(best))
    }

    /// Retires every lane that `keep` does not want; running streams finish.
    pub fn retire_unless(&self, keep: impl Fn(&Key) -> bool) {
        for (key, lanes) in &*self.lanes.borrow() {
            if !keep(key) {
                for lane in lanes {
                    lane.retire(Reason::Ok);
                }
            }
        }
    }

    /// Lanes held now.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lanes.borrow().values().map(Vec::len).sum()
    }
}
