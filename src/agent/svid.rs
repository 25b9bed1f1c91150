//! The application's own certificate: the sidecar's identity once more, with a key that is not the
//! sidecar's.
//!
//! Runs when an application may ask for it (the Workload API). What is published was checked by the
//! rules of a peer; it is renewed as the sidecar's own is, and follows the trust bundle between renewals.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::convert;
use super::credentials::{CALL_TIMEOUT, MAX_SLEEP, called};
use super::fault::{CertificateFault, Fault};
use super::keeper::Keeper;
use super::renewal::Schedule;
use super::shared::{RECONNECT_LEAST, RECONNECT_MOST, Shared};
use crate::model::{Bundle, SpiffeId};
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;
use crate::pb;
use crate::pb::identity_client::IdentityClient;
use crate::tls::{Identity, KeyRequest, TlsError};

/// A certificate with its key, and what to trust.
#[derive(Clone)]
pub struct Svid {
    pub id: SpiffeId,
    /// DER, leaf first, then intermediates.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    pub bundle: Bundle,
    pub not_after: SystemTime,
}

impl fmt::Debug for Svid {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Keeps the application's certificate.
pub(super) struct Applicant {
    pub shared: Arc<Shared>,
    pub keeper: Arc<Keeper>,
    /// The connection in use, while there is one.
    pub channel: watch::Receiver<Option<Channel>>,
    pub sink: watch::Sender<Option<Arc<Svid>>>,
}

impl Applicant {
    /// Runs until the agent is gone.
    pub(super) async fn run(mut self) {
        let mut identities = self.keeper.watch();
        let mut held = None;
        while let Some(schedule) = self.obtain(held).await {
            self.keep(&schedule, &mut identities).await;
            held = Some(schedule);
        }
    }

    /// Tries until there is a new certificate; `None` when nobody will connect any more.
    async fn obtain(&mut self, held: Option<Schedule>) -> Option<Schedule> {
        let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST);
        let (mut failures, mut rng) = (0_u32, Rng::new());
        loop {
            let channel = self.channel.wait_for(Option::is_some).await.ok()?.clone()?;
            match self.request(channel).await {
                Ok(schedule) => {
                    if failures > 0 {
                        self.shared.recovered();
                    }
                    return Some(schedule);
                }
                Err(fault) => self.shared.complain(&fault),
            }
            failures = failures.saturating_add(1);
            sleep(match &held {
                Some(held) => held.pause(failures, Instant::now(), rng.fraction()),
                None => backoff.next(&mut rng),
            })
            .await;
        }
    }

    /// Until the certificate is to be renewed, is not of the trust bundle any more, or a while after
    /// another root has begun to sign.
    async fn keep(&self, schedule: &Schedule, identities: &mut watch::Receiver<Option<Arc<Identity>>>) {
        let mut reissue: Option<Instant> = None;
        loop {
            match self.follow_bundle() {
                Ok(true) => reissue = None,
                Ok(false) if reissue.is_none() => {
                    let pause = schedule.reissue_in(Rng::new().fraction());
                    reissue = Some(Instant::now() + pause);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::info!(%error, "the application's certificate is replaced before its time");
                    return;
                }
            }
            let now = Instant::now();
            let due = schedule.due_in(now, SystemTime::now());
            let due = reissue.map_or(due, |at| due.min(at.saturating_duration_since(now)));
            if due.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(due.min(MAX_SLEEP)) => {}
                Ok(()) = identities.changed() => {}
            }
        }
    }

    async fn request(&self, channel: Channel) -> Result<Schedule, Fault> {
        let server = self.shared.servers.current();
        let key = KeyRequest::generate().map_err(Fault::Key)?;
        let request = pb::IssueRequest { csr: key.csr.clone() };
        let answer = timeout(CALL_TIMEOUT, IdentityClient::new(channel).issue(request)).await;
        let got = called(&server, answer)?;
        let valid_for = Duration::from_millis(got.valid_for_ms);
        let svid = self.checked(got, key).map_err(|source| Fault::Certificate { server, source })?;
        let not_after = svid.not_after;
        tracing::info!(id = %svid.id, ?valid_for, "the application has a new certificate");
        self.sink.send_replace(Some(Arc::new(svid)));
        Ok(Schedule::new(Instant::now(), valid_for, not_after, Rng::new().fraction()))
    }

    fn checked(&self, got: pb::Certificate, key: KeyRequest) -> Result<Svid, CertificateFault> {
        let bundle = got.bundle.ok_or(CertificateFault::NoBundle)?;
        let bundle = convert::bundle(bundle).map_err(CertificateFault::Bundle)?;
        // A bundle that was pushed meanwhile is not taken back.
        let pushed = self.keeper.parts().map(|parts| parts.bundle);
        let bundle = pushed.filter(|pushed| pushed.version > bundle.version).unwrap_or(bundle);
        let identity = Identity::new(0, got.chain.clone(), &key.key, &bundle, SystemTime::now())?;
        let own = self.keeper.watch().borrow().as_ref().map(|own| own.id().clone());
        if own.as_ref() != Some(identity.id()) {
            let expected = own.map(|id| id.to_string()).unwrap_or_default();
            return Err(CertificateFault::Other { found: identity.id().to_string(), expected });
        }
        let (id, not_after) = (identity.id().clone(), identity.not_after());
        Ok(Svid { id, chain: got.chain, key: key.key, bundle, not_after })
    }

    /// Publishes the same certificate with the bundle in use, if that is a newer one. Says whether it is
    /// from the root that signs now.
    fn follow_bundle(&self) -> Result<bool, TlsError> {
        let Some(parts) = self.keeper.parts() else { return Ok(true) };
        let Some(svid) = self.sink.borrow().clone() else { return Ok(true) };
        let is_newer = parts.bundle.version > svid.bundle.version;
        let bundle = if is_newer { parts.bundle } else { svid.bundle.clone() };
        let identity = Identity::new(0, svid.chain.clone(), &svid.key, &bundle, SystemTime::now())?;
        if is_newer {
            self.sink.send_replace(Some(Arc::new(Svid { bundle, ..Svid::clone(&svid) })));
        }
        Ok(identity.is_current())
    }
}
