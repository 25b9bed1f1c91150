//! Names to addresses: Consul's DNS interface, and zones with the names of Kubernetes and Cloud Map.
//!
//! `respond` is the pure half: bytes in, bytes out, over a few reads of the catalog ([`Registry`]).
//! `Server` is the other: UDP and TCP on one address, and recursors for the names of others. `app`
//! starts it. Nothing here writes to the catalog.

mod answer;
mod budget;
mod consul;
mod encode;
pub mod limits;
mod names;
mod recursor;
mod registry;
mod respond;
mod server;
mod settings;
mod tcp;
mod udp;
mod zones;

pub use self::registry::Registry;
pub use self::respond::{Forward, HEADER_BYTES, Outcome, Reply, Responder, Transport};
pub use self::server::{Server, Tuner};
pub use self::settings::{Domain, RecursorOrder, ServiceTtls, Settings, Soa, Zone, ZoneKind};

use std::io;
use std::net::SocketAddr;

use hickory_proto::ProtoError;

/// Why the DNS server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("`{text}` is not a domain: {source}")]
    Domain { text: String, source: Box<ProtoError> },
    #[error(
        "cannot listen on {address} for DNS over UDP and TCP: {source}; --dns-addr takes another, or `off`"
    )]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the recursor {0} is this DNS server itself; name one that knows other names")]
    OwnRecursor(SocketAddr),
}
