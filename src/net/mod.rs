//! Edges to the operating system and its clock: sockets, accepting, limits, draining, backoff, deadlines,
//! waiting, random numbers, who may look into our memory.
//!
//! Nothing here knows of services or identities. Whoever opens a socket does it through this module,
//! so that every TCP option stands in one place.

pub mod accept;
pub mod backoff;
pub mod capacity;
pub mod deadlines;
pub mod drain;
pub mod handover;
pub mod http2;
pub mod limits;
pub mod local;
pub mod memory;
pub mod privacy;
pub mod rng;
pub mod seats;
pub mod socket;
pub mod systemd;
pub mod waiters;
