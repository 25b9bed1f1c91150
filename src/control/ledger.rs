//! Tells whoever listens of each certificate and token that was asked for, and of what came of it, before
//! the answer leaves: what cannot be written down is not handed out.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::ca::{Jwt, Leaf};
use crate::model::SpiffeId;

/// A certificate or a token that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `Enrol`, `Renew`, `Issue` or `MintJwt`.
    pub call: &'static str,
    pub peer: SocketAddr,
    /// The identity that the caller has proven; empty when it had none.
    pub caller: String,
    /// What was to be signed for, as the caller said it or has proven it.
    pub subject: String,
    /// Serial number of a certificate or fingerprint of a token, or why nothing was signed.
    pub outcome: Result<String, String>,
}

/// Whether it was written down, or why not.
pub type Written = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

type Tell = Box<dyn Fn(Asked) -> Written + Send + Sync>;

/// Cheap to clone. There is one listener; of several the first stays.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<OnceLock<Tell>>);

/// Who asks, from where, for what.
pub(super) struct Request<'a> {
    pub(super) call: &'static str,
    pub(super) peer: SocketAddr,
    /// `None` for a caller that has proven nothing.
    pub(super) caller: Option<&'a SpiffeId>,
    pub(super) subject: &'a str,
}

/// Something signed, by which it is found again.
pub(super) trait Signed {
    fn mark(&self) -> String;
}

impl Signed for Leaf {
    fn mark(&self) -> String {
        self.serial.clone()
    }
}

impl Signed for Jwt {
    fn mark(&self) -> String {
        self.fingerprint()
    }
}

impl Ledger {
    pub(super) fn listen(&self, tell: impl Fn(Asked) -> Written + Send + Sync + 'static) {
        if self.0.set(Box::new(tell)).is_err() {
            tracing::error!("somebody listens to what certificates are asked for already");
        }
    }

    /// Gives the result back when it is written down.
    ///
    /// # Errors
    /// The one of `result`, and `UNAVAILABLE` when something was signed that cannot be written down.
    pub(super) async fn enter<T: Signed>(
        &self,
        request: Request<'_>,
        result: Result<T, Status>,
    ) -> Result<T, Status> {
        let Some(tell) = self.0.get() else { return result };
        let Request { call, peer, caller, subject } = request;
        let outcome = match &result {
            Ok(signed) => Ok(signed.mark()),
            Err(status) => Err(status.message().to_owned()),
        };
        let caller = caller.map(ToString::to_string).unwrap_or_default();
        let written = tell(Asked { call, peer, caller, subject: subject.to_string(), outcome }).await;
        let signed = result?;
        written.map_err(|why| {
            Status::unavailable(format!("{why}; nothing is signed until it is written again"))
        })?;
        Ok(signed)
    }
}
