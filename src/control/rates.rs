//! How often certificates and tokens may be asked for: token buckets for each sidecar, service and source, and for
//! all together. Pure but for a lock and a listener; `identity` asks it.
//!
//! Renewals and first certificates share no bucket, so that no storm of newcomers keeps a sidecar from
//! renewing. Only what somebody has proven takes from a service's or sidecar's bucket: a caller without a
//! token cannot use up that of another service, only its own address's. Bounded: buckets that are full
//! again are forgotten, and what finds no room shares one bucket.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use super::limits::{
    ENROL_ALL, ENROL_SERVICE, MAX_RATED, MINT_ALL, MINT_SIDECAR, REFUSED_SOURCE, RENEW_ALL,
    RENEW_SIDECAR, Rate,
};
use crate::model::ServiceName;

type Tell = Box<dyn Fn(&'static str) + Send + Sync>;

/// The limit that was met, as metrics and answers name it.
pub(super) type Limit = &'static str;

/// See the module.
pub(super) struct Rates {
    state: Mutex<State>,
    listener: OnceLock<Tell>,
}

struct State {
    enrol_all: Bucket,
    enrol_service: Table<ServiceName>,
    refused_source: Table<IpAddr>,
    mint_all: Bucket,
    mint_sidecar: Table<String>,
    renew_all: Bucket,
    renew_sidecar: Table<String>,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        let state = State {
            enrol_all: Bucket::full(ENROL_ALL, now),
            enrol_service: Table::new(ENROL_SERVICE, now),
            refused_source: Table::new(REFUSED_SOURCE, now),
            mint_all: Bucket::full(MINT_ALL, now),
            mint_sidecar: Table::new(MINT_SIDECAR, now),
            renew_all: Bucket::full(RENEW_ALL, now),
            renew_sidecar: Table::new(RENEW_SIDECAR, now),
        };
        Self { state: Mutex::new(state), listener: OnceLock::new() }
    }

    /// Calls `tell` with each limit that is met. It must not block.
    pub(super) fn listen(&self, tell: impl Fn(Limit) + Send + Sync + 'static) {
        if self.listener.set(Box::new(tell)).is_err() {
            tracing::error!("somebody listens to the rates of signing already");
        }
    }

    /// Whether `source` may try to get a first certificate of `service`. Takes nothing yet.
    pub(super) fn may_enrol(
        &self,
        service: &ServiceName,
        source: IpAddr,
        now: Instant,
    ) -> Result<(), Limit> {
        let state = self.lock();
        let met = if !state.refused_source.has(&of_one_holder(source), now) {
            Err("enrol_refused_source")
        } else if !state.enrol_service.has(service, now) {
            Err("enrol_service")
        } else if !state.enrol_all.has(now) {
            Err("enrol_all")
        } else {
            Ok(())
        };
        drop(state);
        self.told(met)
    }

    /// A first certificate was granted.
    pub(super) fn enrolled(&self, service: &ServiceName, now: Instant) {
        let mut state = self.lock();
        state.enrol_service.take(service, now);
        state.enrol_all.take(now);
    }

    /// Somebody at `source` had no right to what they asked for.
    pub(super) fn refused(&self, source: IpAddr, now: Instant) {
        self.lock().refused_source.take(&of_one_holder(source), now);
    }

    /// Takes a renewal of the sidecar that `name` stands for.
    pub(super) fn renew(&self, name: &str, now: Instant) -> Result<(), Limit> {
        let mut state = self.lock();
        let met = if !state.renew_sidecar.take(&name.to_owned(), now) {
            Err("renew_sidecar")
        } else if !state.renew_all.take(now) {
            Err("renew_all")
        } else {
            Ok(())
        };
        drop(state);
        self.told(met)
    }

    /// Takes a token of the sidecar that `name` stands for.
    pub(super) fn mint(&self, name: &str, now: Instant) -> Result<(), Limit> {
        let mut state = self.lock();
        let met = if !state.mint_sidecar.take(&name.to_owned(), now) {
            Err("mint_sidecar")
        } else if !state.mint_all.take(now) {
            Err("mint_all")
        } else {
            Ok(())
        };
        drop(state);
        self.told(met)
    }

    fn told(&self, met: Result<(), Limit>) -> Result<(), Limit> {
        if let (Err(limit), Some(tell)) = (met, self.listener.get()) {
            tell(limit);
        }
        met
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one IPv6 address usually has its whole /64.
fn of_one_holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    held: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, held: f64::from(rate.burst), at: now }
    }

    fn held(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.held + since * f64::from(self.rate.per_second)).min(f64::from(self.rate.burst))
    }

    fn has(&self, now: Instant) -> bool {
        self.held(now) >= 1.0
    }

    fn take(&mut self, now: Instant) -> bool {
        let held = self.held(now);
        let has = held >= 1.0;
        self.held = if has { held - 1.0 } else { held };
        self.at = now;
        has
    }

    fn is_full(&self, now: Instant) -> bool {
        self.held(now) >= f64::from(self.rate.burst)
    }
}

/// A bucket for each key; keys that are not there have a full one.
struct Table<K> {
    rate: Rate,
    buckets: HashMap<K, Bucket>,
    /// Of all that find no room.
    others: Bucket,
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, buckets: HashMap::new(), others: Bucket::full(rate, now) }
    }

    fn has(&self, key: &K, now: Instant) -> bool {
        match self.buckets.get(key) {
            Some(bucket) => bucket.has(now),
            None => self.buckets.len() < MAX_RATED || self.others.has(now),
        }
    }

    fn take(&mut self, key: &K, now: Instant) -> bool {
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.take(now);
        }
        if self.buckets.len() >= MAX_RATED {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.buckets.len() >= MAX_RATED {
            return self.others.take(now);
        }
        let mut bucket = Bucket::full(self.rate, now);
        let has = bucket.take(now);
        self.buckets.insert(key.clone(), bucket);
        has
    }
}

#[cfg(test)]
#[path = "tests/rates.rs"]
mod tests;
