//! Gets the first certificate and renews it, for the life of the agent.
//!
//! Every certificate has a new key. The old one stays in use until the new one is published or it
//! expires; an expired identity stays published too, so that peers see why handshakes fail.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use super::connect::dial;
use super::convert;
use super::fault::{CertificateFault, Fault};
use super::keeper::Keeper;
use super::renewal::Schedule;
use super::shared::{RECONNECT_LEAST, Role, Shared};
use crate::model::ServiceName;
use crate::model::token::Token;
use crate::net::backoff::Backoff;
use crate::net::rng::Rng;
use crate::pb;
use crate::pb::identity_client::IdentityClient;
use crate::tls::{self, KeyRequest};

/// Time for one call. Signing takes milliseconds, a queue before it at most 2 s.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause before the first certificate: a proxy that has none serves within a second of the
/// server's return. Later on there is time to spare, and more sidecars to spread.
const FIRST_MOST: Duration = Duration::from_secs(1);
/// Longest sleep, so that a wall clock that was set is noticed.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Where certificates come from.
pub(super) struct Credentials {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    /// Only the process that holds the instance renews.
    role: watch::Receiver<Role>,
    service: ServiceName,
    token: Option<String>,
}

impl Credentials {
    pub(super) fn new(
        shared: &Arc<Shared>,
        keeper: &Arc<Keeper>,
        role: &watch::Receiver<Role>,
        service: ServiceName,
        token: Option<String>,
    ) -> Self {
        let (shared, keeper, role) = (Arc::clone(shared), Arc::clone(keeper), role.clone());
        Self { shared, keeper, role, service, token }
    }

    /// Enrols, unless there is a certificate already, then renews for ever.
    ///
    /// # Errors
    /// When the first enrolment is refused in a way that no retry can mend.
    pub(super) async fn run(self) -> Fault {
        let mut schedule = match self.inherited() {
            Some(schedule) => schedule,
            None => match self.first().await {
                Ok(schedule) => schedule,
                Err(fault) => return fault,
            },
        };
        loop {
            self.wait(&schedule).await;
            schedule = self.next(schedule).await;
        }
    }

    /// The timetable of a predecessor's certificate: renewed at two fifths of what the wall clock says is left,
    /// so that successors in a row do not put it off.
    fn inherited(&self) -> Option<Schedule> {
        let not_after = self.keeper.watch().borrow().as_ref()?.not_after();
        let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Schedule::new(Instant::now(), left, not_after, Rng::new().fraction()))
    }

    /// Tries until there is a first certificate. The key stays the same, because a token whose answer
    /// was lost is good for that key only.
    async fn first(&self) -> Result<Schedule, Fault> {
        let key = KeyRequest::generate().map_err(Fault::Key)?;
        let mut backoff = Backoff::new(RECONNECT_LEAST, FIRST_MOST);
        // Servers in a row that are of another mesh: when all are, waiting does not help.
        let mut strangers = 0;
        loop {
            let server = self.shared.servers.current();
            match self.counted(self.enrol(&server, &key)).await {
                Ok(schedule) => return Ok(schedule),
                Err(fault) if fault.ends_enrolment() => return Err(fault),
                Err(fault) => {
                    strangers = if fault.is_of_another_mesh() { strangers + 1 } else { 0 };
                    if strangers >= self.shared.servers.count() {
                        return Err(fault);
                    }
                    self.shared.complain(&fault);
                    self.shared.servers.advance();
                    sleep(backoff.next(&mut Rng::new())).await;
                }
            }
        }
    }

    /// Until the certificate is to be renewed, or a while after another root has begun to sign.
    async fn wait(&self, schedule: &Schedule) {
        let mut identities = self.keeper.watch();
        let mut reissue: Option<Instant> = None;
        loop {
            let is_current =
                identities.borrow_and_update().as_ref().is_none_or(|identity| identity.is_current());
            let now = Instant::now();
            reissue = match (is_current, reissue) {
                (true, _) => None,
                (false, None) => Some(now + schedule.reissue_in(Rng::new().fraction())),
                (false, set) => set,
            };
            let due = schedule.due_in(now, SystemTime::now());
            let due = reissue.map_or(due, |at| due.min(at.saturating_duration_since(now)));
            if due.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(due.min(MAX_SLEEP)) => {}
                () = self.keeper.renew_now.notified() => return,
                // The keeper lives as long as this, and so does its end.
                Ok(()) = identities.changed() => {}
            }
        }
    }

    /// Tries until there is another certificate. The key stays the same: the server signs once for each
    /// generation, and again for that key only, because an answer may be lost.
    async fn next(&self, held: Schedule) -> Schedule {
        let (mut failures, mut key) = (0_u32, None);
        loop {
            let server = self.shared.servers.current();
            match self.counted(self.attempt(&server, &held, &mut key)).await {
                Ok(schedule) => return schedule,
                Err(fault) if held.has_expired(Instant::now()) => self.shared.cry_out(&fault),
                Err(fault) => self.shared.complain(&fault),
            }
            self.shared.servers.advance();
            failures = failures.saturating_add(1);
            sleep(held.pause(failures, Instant::now(), Rng::new().fraction())).await;
        }
    }

    /// One attempt, once this process holds the instance and no successor is being told of the certificate.
    async fn attempt(
        &self,
        server: &str,
        held: &Schedule,
        key: &mut Option<KeyRequest>,
    ) -> Result<Schedule, Fault> {
        let _renewing = loop {
            if self.role.clone().wait_for(|role| *role == Role::Holder).await.is_err() {
                std::future::pending::<()>().await; // the agent is gone, and this task with it
            }
            let renewing = self.keeper.renewing.lock().await;
            if *self.role.borrow() == Role::Holder {
                break renewing;
            }
        };
        let key = match key {
            Some(key) => key,
            None => key.insert(KeyRequest::generate().map_err(Fault::Key)?),
        };
        self.renew_or_enrol(server, held, key).await
    }

    /// Counts how an attempt ends.
    async fn counted<T>(&self, attempt: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let result = attempt.await;
        self.shared.status.send_modify(|status| match &result {
            Ok(_) => status.certificates += 1,
            Err(_) => status.certificate_failures += 1,
        });
        result
    }

    /// A certificate that has expired proves nothing any more: only a token helps then. The wall clock
    /// alone is not believed before the server has refused the certificate.
    async fn renew_or_enrol(
        &self,
        server: &str,
        held: &Schedule,
        key: &KeyRequest,
    ) -> Result<Schedule, Fault> {
        if !held.has_expired(Instant::now()) {
            match self.renew(server, key).await {
                Err(Fault::Tls { .. } | Fault::Refused { .. })
                    if held.looks_expired(SystemTime::now()) => {}
                result => return result,
            }
        }
        self.enrol(server, key).await
    }

    async fn enrol(&self, server: &str, key: &KeyRequest) -> Result<Schedule, Fault> {
        let token = self.token.as_deref().map(Token::parse).transpose()?;
        let config = tls::bootstrap_config(token.as_ref().map(Token::pin));
        let request = pb::EnrolRequest {
            token: token.as_ref().map(|token| token.to_text().to_string()).unwrap_or_default(),
            service: self.service.to_string(),
            csr: key.csr.clone(),
        };
        let mut client = client(server, config, token.is_none()).await?;
        let answer = timeout(CALL_TIMEOUT, client.enrol(request)).await;
        self.install(server, key, called(server, answer)?)
    }

    async fn renew(&self, server: &str, key: &KeyRequest) -> Result<Schedule, Fault> {
        let identity = self.keeper.watch().borrow().clone();
        let Some(identity) = identity else {
            return Err(Fault::Certificate {
                server: server.to_owned(),
                source: CertificateFault::None,
            });
        };
        let mut client = client(server, identity.control_config(), false).await?;
        let answer =
            timeout(CALL_TIMEOUT, client.renew(pb::RenewRequest { csr: key.csr.clone() })).await;
        self.install(server, key, called(server, answer)?)
    }

    fn install(&self, server: &str, key: &KeyRequest, got: pb::Certificate) -> Result<Schedule, Fault> {
        let valid_for = Duration::from_millis(got.valid_for_ms);
        let installed = (|| {
            let bundle = got.bundle.ok_or(CertificateFault::NoBundle)?;
            let bundle = convert::bundle(bundle).map_err(CertificateFault::Bundle)?;
            self.keeper.install(got.chain, key.key.clone(), bundle, SystemTime::now())
        })();
        let identity =
            installed.map_err(|source| Fault::Certificate { server: server.to_owned(), source })?;
        tracing::info!(id = %identity.id(), serial = identity.serial(), ?valid_for, "certificate installed");
        Ok(Schedule::new(Instant::now(), valid_for, identity.not_after(), Rng::new().fraction()))
    }
}

async fn client(
    server: &str,
    config: Arc<ClientConfig>,
    local_only: bool,
) -> Result<IdentityClient<Channel>, Fault> {
    dial(server, config, local_only).await.map(IdentityClient::new)
}

pub(super) fn called<T>(
    server: &str,
    answer: Result<Result<tonic::Response<T>, tonic::Status>, tokio::time::error::Elapsed>,
) -> Result<T, Fault> {
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Fault::of_call(server, status)),
        Err(_) => Err(Fault::Timeout { server: server.to_owned(), limit: CALL_TIMEOUT }),
    }
}
