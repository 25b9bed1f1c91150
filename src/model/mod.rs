//! Pure data and decisions: names, SPIFFE IDs, services, checks, intentions and what a proxy sees.
//!
//! Everyone may use this module; it uses nothing else of the crate, does no I/O, reads no clock and
//! starts no task. Whatever needs the time takes it as an argument.

pub mod ban;
pub mod check;
pub mod duration;
pub mod go_json;
pub mod hex;
pub mod intention;
pub mod jwt;
pub mod name;
pub mod pem;
pub mod reason;
pub mod serial;
pub mod service;
pub mod snapshot;
pub mod spiffe;
pub mod time;
pub mod token;
pub mod upstream;

pub use ban::{Ban, BanError, Bans};
pub use check::{Check, CheckDefinition, CheckId, CheckKind, CheckReport, CheckStatus};
pub use intention::{Action, Intention, Intentions, Party, Verdict};
pub use jwt::{JwtBundle, JwtKey};
pub use name::{InstanceId, NameError, NodeName, ServiceName};
pub use reason::Reason;
pub use serial::{EnrolmentId, Serial};
pub use service::{Definition, Instance, Kind, ProxySpec, Registration, Sidecar, Upstream, Weights};
pub use snapshot::{Bundle, Endpoint, EndpointId, Position, ServiceView, Snapshot};
pub use spiffe::{SpiffeId, TrustDomain};
pub use token::{Token, TokenError};
pub use upstream::{EjectionPolicy, UpstreamConfig, UpstreamLimits};
