//! An upstream without its socket: how it is dialled, its circuit, and what all workers know of its
//! endpoints. Made by `settings`; `dial` goes by it.

use std::sync::Arc;
use std::time::Duration;

use super::admission::Limit;
use super::outlier::Outliers;
use crate::model::{ServiceName, UpstreamConfig};
use crate::net::limits;
use crate::net::seats::{Seat, Seats};

/// See the module.
pub(super) struct Route {
    /// Its place among the routes of the plan.
    pub(super) index: usize,
    pub(super) destination: ServiceName,
    /// One attempt: TCP and TLS, and then the answer to OPEN.
    pub(super) connect_timeout: Duration,
    pub(super) outliers: Outliers,
    /// Use every endpoint when none is healthy.
    pub(super) panic: bool,
    connections: Option<Arc<Seats>>,
    pending: Option<Arc<Seats>>,
}

/// A connection's place in the circuit of its upstream.
pub(super) struct InCircuit {
    _connection: Option<Seat>,
    pending: Option<Seat>,
}

impl InCircuit {
    /// It is open, and no longer pending.
    pub(super) fn opened(&mut self) {
        self.pending = None;
    }
}

impl Route {
    pub(super) fn new(index: usize, destination: ServiceName, config: &UpstreamConfig) -> Self {
        let seats = |most: Option<u32>| most.map(|most| Seats::new(most as usize));
        Self {
            index,
            destination,
            connect_timeout: config.connect_timeout.unwrap_or(limits::DIAL),
            outliers: Outliers::new(config.ejection),
            panic: config.panic,
            connections: seats(config.limits.connections),
            pending: seats(config.limits.pending),
        }
    }

    /// Lets a connection into the circuit, or says which limit it has reached.
    pub(super) fn enter(&self) -> Result<InCircuit, Limit> {
        Ok(InCircuit {
            _connection: seat(self.connections.as_ref(), "max_connections")?,
            pending: seat(self.pending.as_ref(), "max_pending")?,
        })
    }
}

/// Without a limit there is nothing to sit on.
fn seat(seats: Option<&Arc<Seats>>, limit: Limit) -> Result<Option<Seat>, Limit> {
    seats.map(|seats| seats.take().ok_or(limit)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UpstreamLimits;

    fn route(connections: Option<u32>, pending: Option<u32>) -> Route {
        let limits = UpstreamLimits { connections, pending };
        let config = UpstreamConfig { limits, ..UpstreamConfig::default() };
        Route::new(0, ServiceName::new("db").unwrap(), &config)
    }

    #[test]
    fn the_circuit_bounds_what_is_open_and_what_is_pending() {
        let route = route(Some(2), Some(1));
        let mut one = route.enter().ok().unwrap();
        assert_eq!(route.enter().err(), Some("max_pending"));
        one.opened();
        let mut two = route.enter().ok().unwrap();
        two.opened();
        assert_eq!(route.enter().err(), Some("max_connections"));
        drop(one);
        assert!(route.enter().is_ok());
    }

    #[test]
    fn without_limits_all_may_enter_and_zero_lets_nobody_in() {
        let open = route(None, None);
        let all: Vec<_> = (0..5000).map(|_| open.enter()).collect();
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(route(Some(0), None).enter().err(), Some("max_connections"));
        assert_eq!(route(None, Some(0)).enter().err(), Some("max_pending"));
    }
}
