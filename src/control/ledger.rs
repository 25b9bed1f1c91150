//! Tells whoever listens of each certificate that was asked for, and of what came of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::ca::Leaf;

/// A certificate that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `Enrol`, `Renew` or `Issue`.
    pub call: &'static str,
    pub peer: SocketAddr,
    /// The identity that the caller has proven; empty when it had none.
    pub caller: String,
    /// What the certificate was to be for, as the caller said it or has proven it.
    pub subject: String,
    /// Serial number of what was signed, or why nothing was.
    pub outcome: Result<String, String>,
}

type Tell = Box<dyn Fn(Asked) + Send + Sync>;

/// Cheap to clone. There is one listener; of several the first stays.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<OnceLock<Tell>>);

impl Ledger {
    pub(super) fn listen(&self, tell: impl Fn(Asked) + Send + Sync + 'static) {
        if self.0.set(Box::new(tell)).is_err() {
            tracing::error!("somebody listens to what certificates are asked for already");
        }
    }

    pub(super) fn enrolled(&self, peer: SocketAddr, service: &str, leaf: Result<&Leaf, &Status>) {
        self.tell("Enrol", peer, &"", &service, leaf);
    }

    pub(super) fn renewed(
        &self,
        peer: SocketAddr,
        identity: &dyn fmt::Display,
        leaf: Result<&Leaf, &Status>,
    ) {
        self.tell("Renew", peer, identity, identity, leaf);
    }

    /// A certificate for the application behind a sidecar.
    pub(super) fn issued(
        &self,
        peer: SocketAddr,
        identity: &dyn fmt::Display,
        leaf: Result<&Leaf, &Status>,
    ) {
        self.tell("Issue", peer, identity, identity, leaf);
    }

    fn tell(
        &self,
        call: &'static str,
        peer: SocketAddr,
        caller: &dyn fmt::Display,
        subject: &dyn fmt::Display,
        leaf: Result<&Leaf, &Status>,
    ) {
        let Some(tell) = self.0.get() else { return };
        let outcome = match leaf {
            Ok(leaf) => Ok(leaf.serial.clone()),
            Err(status) => Err(status.message().to_owned()),
        };
        tell(Asked { call, peer, caller: caller.to_string(), subject: subject.to_string(), outcome });
    }
}
