//! The part of etcd's v3 API that registries use: keys with revisions, leases, transactions, watches.
//!
//! `app` opens the [`Keys`], binds a [`Server`] if there is to be a listener, and runs the [`Bridge`],
//! which makes instances of the catalog of keys such as `/services/<name>/<instance>`. Pure: `keyspace`
//! and `history` (what one commit does), `draft` (what requests mean), `check`, `compare`, `range`,
//! `watcher` and `instance`. Requests and answers are the protobuf messages themselves: this module is
//! about nothing else. Invariants: what was answered is durable and visible; revisions are etcd's and
//! never go backwards; a watch hears every event from its first revision on, or that it cannot.

mod bridge;
mod check;
mod compare;
mod draft;
mod fault;
mod history;
mod instance;
mod keyspace;
pub mod limits;
mod range;
mod record;
mod server;
mod service;
mod shell;
mod span;
#[cfg(test)]
mod tests;
mod watcher;

pub use self::bridge::Bridge;
pub use self::fault::Fault;
pub use self::server::{EtcdError, Server};
pub use self::shell::Keys;
