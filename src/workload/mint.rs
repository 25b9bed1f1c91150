//! Tokens that were signed lately, so that an application that asks for one with each of its requests does
//! not ask the control plane each time, and has one while the control plane is away.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;

use super::limits::{MAX_KEPT_TOKENS, MAX_MINTING};
use crate::agent::{Application, MintError, Minted};

/// See the module.
pub(super) struct Mint {
    application: Application,
    kept: Mutex<HashMap<Vec<String>, Kept>>,
    minting: Semaphore,
}

#[derive(Clone)]
struct Kept {
    token: String,
    /// Half of its life: from then on a new one is asked for.
    stale: Instant,
    end: Instant,
}

impl Mint {
    pub(super) fn new(application: Application) -> Self {
        Self { application, kept: Mutex::default(), minting: Semaphore::new(MAX_MINTING) }
    }

    /// A token for these audiences with at least half of its life before it, or while the control plane is
    /// away with what is left.
    pub(super) async fn token(&self, audience: Vec<String>) -> Result<String, Status> {
        let kept = self.lock().get(&audience).cloned();
        if let Some(kept) = kept.as_ref().filter(|kept| Instant::now() < kept.stale) {
            return Ok(kept.token.clone());
        }
        // It is never closed.
        let _turn = self.minting.acquire().await;
        match self.application.mint(audience.clone()).await {
            Ok(minted) => Ok(self.keep(audience, minted)),
            Err(MintError::Refused(why)) => Err(Status::permission_denied(why)),
            Err(error) => match kept.filter(|kept| Instant::now() < kept.end) {
                Some(kept) => Ok(kept.token),
                None => Err(Status::unavailable(format!("no token: {error}; come again"))),
            },
        }
    }

    fn keep(&self, audience: Vec<String>, minted: Minted) -> String {
        let Minted { token, valid_for } = minted;
        let now = Instant::now();
        let mut kept = self.lock();
        kept.retain(|_, one| now < one.end);
        if kept.len() < MAX_KEPT_TOKENS || kept.contains_key(&audience) {
            let (stale, end) = (now + valid_for / 2, now + valid_for);
            kept.insert(audience, Kept { token: token.clone(), stale, end });
        }
        token
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<String>, Kept>> {
        // Each change is one call.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
