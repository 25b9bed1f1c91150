//! What a sidecar holds at a time, all workers together: the application's connections, peers and their
//! streams, and how many of those come from one address. Whoever is beyond is refused with a reset.
//!
//! `context` shares it; `outbound`, `inbound` and `dial` ask. Invariant: sockets of connections leave the
//! reserve of descriptors alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::net::capacity::Capacity;
use crate::net::seats::{Seat, Seats};

/// The label of a limit in `weft_limit_reached_total`.
pub(super) type Limit = &'static str;

/// See the module.
pub(super) struct Admission {
    descriptors: Arc<Seats>,
    connections: Arc<Seats>,
    streams: Arc<Seats>,
    peers: Arc<Seats>,
    sources: Arc<Sources>,
}

/// A socket's place under the limits.
pub(super) struct Place {
    _descriptor: Seat,
    _kind: Option<Seat>,
    _source: Option<FromSource>,
}

impl Admission {
    pub(super) fn new(capacity: &Capacity) -> Self {
        Self {
            descriptors: Seats::new(capacity.descriptors),
            connections: Seats::new(capacity.connections),
            streams: Seats::new(capacity.streams),
            peers: Seats::new(capacity.peers),
            sources: Arc::new(Sources { most: capacity.per_source, held: Mutex::default() }),
        }
    }

    /// For a connection of the application to an upstream.
    pub(super) fn connection(&self) -> Result<Place, Limit> {
        self.place(&self.connections, "connections", None)
    }

    /// For the application's end of a peer's stream.
    pub(super) fn stream(&self) -> Result<Place, Limit> {
        self.place(&self.streams, "streams", None)
    }

    /// For a peer's TLS connection.
    pub(super) fn peer(&self, address: IpAddr) -> Result<Place, Limit> {
        let source = Sources::take(&self.sources, address).ok_or("per_source")?;
        self.place(&self.peers, "inbound_tls", Some(source))
    }

    /// For a lane to a peer: connections that were let in need one, so it is never refused.
    pub(super) fn lane(&self) -> Place {
        Place { _descriptor: self.descriptors.take_regardless(), _kind: None, _source: None }
    }

    /// Sockets held now.
    pub(super) fn held(&self) -> usize {
        self.descriptors.held()
    }

    fn place(
        &self,
        kind: &Arc<Seats>,
        limit: Limit,
        source: Option<FromSource>,
    ) -> Result<Place, Limit> {
        let kind = kind.take().ok_or(limit)?;
        let descriptor = self.descriptors.take().ok_or("descriptors")?;
        Ok(Place { _descriptor: descriptor, _kind: Some(kind), _source: source })
    }
}

/// Peers' connections by address.
struct Sources {
    most: usize,
    held: Mutex<HashMap<IpAddr, usize>>,
}

impl Sources {
    fn take(this: &Arc<Self>, address: IpAddr) -> Option<FromSource> {
        let mut held = this.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= this.most {
            return None;
        }
        *count += 1;
        Some(FromSource { sources: Arc::clone(this), address })
    }
}

struct FromSource {
    sources: Arc<Sources>,
    address: IpAddr,
}

impl Drop for FromSource {
    fn drop(&mut self) {
        let mut held = self.sources.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Capacity = Capacity {
        descriptors: 5,
        connections: 3,
        streams: 4,
        peers: 3,
        handshakes: 2,
        per_source: 2,
        window_growth: 0,
    };

    #[test]
    fn each_kind_has_its_limit_and_all_share_the_descriptors() {
        let admission = Admission::new(&SMALL);
        let held: Vec<_> = (0..3).map(|_| admission.connection().ok().unwrap()).collect();
        assert_eq!(admission.connection().err(), Some("connections"));
        let lane = admission.lane();
        let stream = admission.stream().ok().unwrap();
        assert_eq!(admission.stream().err(), Some("descriptors"));
        drop(lane);
        assert!(admission.stream().is_ok());
        drop((held, stream));
        assert!((0..3).map(|_| admission.connection()).all(|place| place.is_ok()));
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let admission = Admission::new(&SMALL);
        let (one, two): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let held = (admission.peer(one).ok().unwrap(), admission.peer(one).ok().unwrap());
        assert_eq!(admission.peer(one).err(), Some("per_source"));
        let other = admission.peer(two).ok().unwrap();
        assert_eq!(admission.peer(two).err(), Some("inbound_tls"));
        drop(held);
        assert!(admission.peer(one).is_ok());
        drop(other);
        assert!(admission.sources.held.lock().unwrap().is_empty(), "nothing is kept of who left");
    }
}
