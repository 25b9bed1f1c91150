//! The `Identity` service: first certificates against a token, renewals, and what applications get.
//!
//! The identity in a certificate comes from the token's binding or from the caller's current
//! certificate, never from a request; of the request for signing only the public key counts.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, stream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::convert;
use super::ledger::{self, Ledger};
use super::limits::{MAX_ENROLMENTS, MAX_RENEWALS, MAX_TOKEN_BYTES, SIGNING_QUEUE_TIMEOUT};
use super::peer::{Peer, Proven};
use super::rates::{Limit, Rates};
use super::stopping;
use crate::ca::{Ca, CaError, Jwt, Leaf};
use crate::model::{Bans, JwtBundle, Serial, ServiceName};
use crate::pb;

#[derive(Clone)]
pub(super) struct Identity {
    ca: Ca,
    dev: bool,
    bans: watch::Receiver<Arc<Bans>>,
    slots: Arc<Slots>,
    rates: Arc<Rates>,
    stop: watch::Receiver<bool>,
    ledger: Ledger,
}

type JwtKeys = Pin<Box<dyn Stream<Item = Result<pb::JwtKeys, Status>> + Send>>;

/// Bounds signing. Renewals have their own slots, so that newcomers starve none.
struct Slots {
    enrolments: Semaphore,
    renewals: Semaphore,
}

impl Identity {
    pub(super) fn new(
        ca: Ca,
        dev: bool,
        bans: watch::Receiver<Arc<Bans>>,
        (rates, ledger): (Arc<Rates>, Ledger),
        stop: watch::Receiver<bool>,
    ) -> Self {
        let slots =
            Slots { enrolments: Semaphore::new(MAX_ENROLMENTS), renewals: Semaphore::new(MAX_RENEWALS) };
        Self { ca, dev, bans, slots: Arc::new(slots), rates, stop, ledger }
    }

    async fn first(&self, peer: &Peer, request: &pb::EnrolRequest) -> Result<Leaf, Status> {
        let service = convert::service(&request.service, "service")?;
        convert::csr(&request.csr)?;
        convert::within("token", request.token.len(), MAX_TOKEN_BYTES)?;
        self.check_ban(&service)?;
        let source = peer.address.ip();
        self.rates.may_enrol(&service, source, Instant::now()).map_err(too_often)?;
        let leaf = self.admit(peer, &service, request).await;
        match &leaf {
            Ok(_) => self.rates.enrolled(&service, Instant::now()),
            Err(status) if is_wrong(status.code()) => self.rates.refused(source, Instant::now()),
            Err(_) => {}
        }
        leaf
    }

    async fn admit(
        &self,
        peer: &Peer,
        service: &ServiceName,
        request: &pb::EnrolRequest,
    ) -> Result<Leaf, Status> {
        let _slot = slot(&self.slots.enrolments).await?;
        if request.token.is_empty() {
            return self.without_token(peer, service, &request.csr).await;
        }
        self.ca.enrol(&request.token, service, &request.csr).await.map_err(|error| refusal(&error))
    }

    /// The verifier refuses certificates; a service that is banned gets no new ones either.
    fn check_ban(&self, service: &ServiceName) -> Result<(), Status> {
        let id = self.ca.service_id(service).map_err(|error| refusal(&error))?;
        if self.bans.borrow().has_identity(&id) {
            return Err(Status::permission_denied(format!(
                "service {service} is banned; lift that with `weft ban remove --service {service}`"
            )));
        }
        Ok(())
    }

    /// A server in dev mode believes whoever is on the same machine.
    async fn without_token(
        &self,
        peer: &Peer,
        service: &ServiceName,
        csr: &[u8],
    ) -> Result<Leaf, Status> {
        if !self.dev || !peer.is_local() {
            return Err(Status::unauthenticated(
                "a token is needed; create one on the server with `weft token create --service NAME`",
            ));
        }
        self.ca.admit(service, csr).await.map_err(|error| refusal(&error))
    }

    /// One more certificate of the caller's identity, for the application behind it.
    async fn beside(&self, proven: &Proven, csr: &[u8]) -> Result<Leaf, Status> {
        let enrolment = sidecars(proven)?;
        convert::csr(csr)?;
        // It takes nothing from the renewals of the sidecar.
        let name = format!("application of {}", enrolment.as_deref().unwrap_or(proven.id.as_str()));
        self.rates.renew(&name, Instant::now()).map_err(too_often)?;
        let _slot = slot(&self.slots.renewals).await?;
        self.ca.issue_beside(&proven.id, &proven.serial, csr).map_err(|error| refusal(&error))
    }

    /// A token of the caller's identity, for the application behind it.
    fn minted(&self, proven: &Proven, request: &pb::MintJwtRequest) -> Result<Jwt, Status> {
        let enrolment = sidecars(proven)?;
        convert::audience(&request.audience)?;
        let ttl = convert::jwt_ttl(request.ttl_s)?;
        let sidecar = enrolment.as_deref().unwrap_or(proven.id.as_str());
        self.rates.mint(sidecar, Instant::now()).map_err(too_often)?;
        let jwt = self.ca.mint_jwt(&proven.id, &request.audience, ttl, proven.not_after);
        jwt.map_err(|error| refusal(&error))
    }

    async fn next(&self, peer: &Peer, proven: &Proven, csr: &[u8]) -> Result<Leaf, Status> {
        convert::csr(csr)?;
        let enrolment = Serial::parse(&proven.serial).map(|serial| serial.enrolment.to_string());
        let sidecar = enrolment.as_deref().unwrap_or(proven.id.as_str());
        self.rates.renew(sidecar, Instant::now()).map_err(too_often)?;
        let _slot = slot(&self.slots.renewals).await?;
        let renewed = self.ca.renew(&proven.id, &proven.serial, csr).await;
        renewed.map_err(|error| {
            if let CaError::NotRenewed { enrolment, .. } = &error {
                let (peer, id, serial) = (peer.address, &proven.id, &proven.serial);
                tracing::error!(target: "weft::audit", %peer, %id, %serial, %enrolment, %error, "renewal refused");
            }
            refusal(&error)
        })
    }

    fn certificate(&self, leaf: Leaf) -> pb::Certificate {
        let bundle = self.ca.bundle().borrow().clone();
        let valid_for = leaf.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        pb::Certificate {
            chain: leaf.chain,
            spiffe_id: leaf.id.to_string(),
            not_before: unix_seconds(leaf.not_before),
            not_after: unix_seconds(leaf.not_after),
            bundle: Some(bundle.as_ref().into()),
            valid_for_ms: milliseconds(valid_for),
        }
    }
}

#[tonic::async_trait]
impl pb::identity_server::Identity for Identity {
    type WatchJwtKeysStream = JwtKeys;

    async fn enrol(
        &self,
        request: Request<pb::EnrolRequest>,
    ) -> Result<Response<pb::Certificate>, Status> {
        let peer = Peer::of(&request)?;
        let request = request.into_inner();
        let first = self.first(&peer, &request).await;
        match self.ledger.enter(entry("Enrol", &peer, None, &request.service), first).await {
            Ok(leaf) => {
                tracing::info!(peer = %peer.address, id = %leaf.id, serial = %leaf.serial, "enrolled");
                Ok(Response::new(self.certificate(leaf)))
            }
            Err(status) => {
                let (service, cause) = (&request.service, status.message());
                tracing::warn!(peer = %peer.address, ?service, cause, "enrolment refused");
                Err(status)
            }
        }
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::Certificate>, Status> {
        let peer = Peer::of(&request)?;
        let (proven, _) = peer.service(SystemTime::now())?;
        let renewed = self.next(&peer, &proven, &request.into_inner().csr).await;
        let leaf =
            self.ledger.enter(entry("Renew", &peer, Some(&proven), proven.id.as_str()), renewed).await?;
        tracing::debug!(id = %leaf.id, serial = %leaf.serial, "renewed");
        Ok(Response::new(self.certificate(leaf)))
    }

    async fn issue(
        &self,
        request: Request<pb::IssueRequest>,
    ) -> Result<Response<pb::Certificate>, Status> {
        let peer = Peer::of(&request)?;
        let (proven, _) = peer.service(SystemTime::now())?;
        let issued = self.beside(&proven, &request.into_inner().csr).await;
        let leaf =
            self.ledger.enter(entry("Issue", &peer, Some(&proven), proven.id.as_str()), issued).await?;
        tracing::info!(peer = %peer.address, id = %leaf.id, serial = %leaf.serial, "issued for an application");
        Ok(Response::new(self.certificate(leaf)))
    }

    async fn mint_jwt(&self, request: Request<pb::MintJwtRequest>) -> Result<Response<pb::Jwt>, Status> {
        let peer = Peer::of(&request)?;
        let (proven, _) = peer.service(SystemTime::now())?;
        let request = request.into_inner();
        let minted = self.minted(&proven, &request);
        let subject = format!("{} for {}", proven.id, request.audience.join(" "));
        let jwt = self.ledger.enter(entry("MintJwt", &peer, Some(&proven), &subject), minted).await?;
        tracing::debug!(id = %proven.id, audience = ?request.audience, "token signed");
        let valid_for = jwt.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        Ok(Response::new(pb::Jwt { token: jwt.token, valid_for_ms: milliseconds(valid_for) }))
    }

    async fn watch_jwt_keys(
        &self,
        request: Request<pb::WatchJwtKeysRequest>,
    ) -> Result<Response<JwtKeys>, Status> {
        Peer::of(&request)?.service(SystemTime::now())?;
        Ok(Response::new(follow(self.ca.jwt_bundle(), self.stop.clone())))
    }
}

/// What the ledger is told of a call.
fn entry<'a>(
    call: &'static str,
    peer: &Peer,
    caller: Option<&'a Proven>,
    subject: &'a str,
) -> ledger::Request<'a> {
    ledger::Request { call, peer: peer.address, caller: caller.map(|proven| &proven.id), subject }
}

/// The enrolment of a sidecar's certificate, if it names one. One that [`Identity::beside`] gave out is no
/// sidecar's: whoever got hold of it shall not get more than it can do for as long as it lives.
fn sidecars(proven: &Proven) -> Result<Option<String>, Status> {
    match Serial::parse(&proven.serial) {
        Some(serial) if serial.generation == 0 => Err(Status::permission_denied(
            "this certificate was made for an application; only its sidecar can ask for another or for tokens",
        )),
        serial => Ok(serial.map(|serial| serial.enrolment.to_string())),
    }
}

/// The present state and every later one, until the server stops.
fn follow(bundle: watch::Receiver<Arc<JwtBundle>>, stop: watch::Receiver<bool>) -> JwtKeys {
    let mut bundle = bundle;
    bundle.mark_changed();
    let states = stream::unfold((bundle, stop), |(mut bundle, mut stop)| async move {
        tokio::select! {
            changed = bundle.changed() => changed.ok()?,
            () = stopping(&mut stop) => return None,
        }
        let state = pb::JwtKeys::from(bundle.borrow_and_update().as_ref());
        Some((Ok(state), (bundle, stop)))
    });
    Box::pin(states)
}

async fn slot(slots: &Semaphore) -> Result<SemaphorePermit<'_>, Status> {
    match tokio::time::timeout(SIGNING_QUEUE_TIMEOUT, slots.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Status::resource_exhausted(
            "the server is signing as many certificates as it may at once; try again in a few seconds",
        )),
    }
}

/// Whether the caller had no right to what it asked for, or asked for nothing that could be.
const fn is_wrong(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument)
}

fn too_often(limit: Limit) -> Status {
    Status::resource_exhausted(format!(
        "this is asked for too often ({limit}); try again in a few seconds"
    ))
}

fn refusal(error: &CaError) -> Status {
    let message = error.to_string();
    match error {
        CaError::TokenRefused => Status::unauthenticated(message),
        CaError::TokenForOther { .. } | CaError::NotRenewed { .. } => Status::permission_denied(message),
        CaError::TooManyEnrolments => Status::resource_exhausted(message),
        CaError::Request(_) => Status::invalid_argument(format!("csr: {message}")),
        CaError::Store(_) => Status::unavailable(message),
        CaError::Name { .. } => Status::invalid_argument(format!("service: {message}")),
        CaError::Signing(_)
        | CaError::Seal(_)
        | CaError::Import(_)
        | CaError::Rotating(_)
        | CaError::TokenLimit(_)
        | CaError::File { .. }
        | CaError::Exists(_)
        | CaError::SameFile(_) => Status::internal(message),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
