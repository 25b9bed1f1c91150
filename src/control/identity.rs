//! The `Identity` service: first certificates against a token, renewals, and what applications get.
//!
//! The identity in a certificate comes from the token's binding or from the caller's current
//! certificate, never from a request; of the request for signing only the public key counts.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, stream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tonic::{Request, Response, Status};

use super::limits::{MAX_ENROLMENTS, MAX_RENEWALS, MAX_TOKEN_BYTES, SIGNING_QUEUE_TIMEOUT};
use super::{convert, peer::Peer, stopping};
use crate::ca::{Ca, CaError, Leaf};
use crate::model::{JwtBundle, ServiceName};
use crate::pb;

#[derive(Clone)]
pub(super) struct Identity {
    ca: Ca,
    dev: bool,
    slots: Arc<Slots>,
    stop: watch::Receiver<bool>,
}

type JwtKeys = Pin<Box<dyn Stream<Item = Result<pb::JwtKeys, Status>> + Send>>;

/// Bounds signing. Renewals have their own slots, so that newcomers starve none.
struct Slots {
    enrolments: Semaphore,
    renewals: Semaphore,
}

impl Identity {
    pub(super) fn new(ca: Ca, dev: bool, stop: watch::Receiver<bool>) -> Self {
        let slots =
            Slots { enrolments: Semaphore::new(MAX_ENROLMENTS), renewals: Semaphore::new(MAX_RENEWALS) };
        Self { ca, dev, slots: Arc::new(slots), stop }
    }

    async fn first(&self, peer: &Peer, request: &pb::EnrolRequest) -> Result<Leaf, Status> {
        let service = convert::service(&request.service, "service")?;
        convert::csr(&request.csr)?;
        convert::within("token", request.token.len(), MAX_TOKEN_BYTES)?;
        let _slot = slot(&self.slots.enrolments).await?;
        if request.token.is_empty() {
            return self.without_token(peer, &service, &request.csr);
        }
        self.ca.enrol(&request.token, &service, &request.csr).await.map_err(|error| refusal(&error))
    }

    /// A server in dev mode believes whoever is on the same machine.
    fn without_token(&self, peer: &Peer, service: &ServiceName, csr: &[u8]) -> Result<Leaf, Status> {
        if !self.dev || !peer.is_local() {
            return Err(Status::unauthenticated(
                "a token is needed; create one on the server with `weft token create --service NAME`",
            ));
        }
        let id = self.ca.service_id(service).map_err(|error| refusal(&error))?;
        self.ca.issue(&id, csr).map_err(|error| refusal(&error))
    }

    /// One more certificate of whoever the caller has proven to be.
    async fn further(&self, peer: &Peer, csr: &[u8]) -> Result<Leaf, Status> {
        let (proven, _) = peer.service(SystemTime::now())?;
        convert::csr(csr)?;
        let _slot = slot(&self.slots.renewals).await?;
        self.ca.issue(&proven.id, csr).map_err(|error| refusal(&error))
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
        match self.first(&peer, &request).await {
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
        let leaf = self.further(&peer, &request.into_inner().csr).await?;
        tracing::debug!(id = %leaf.id, serial = %leaf.serial, "renewed");
        Ok(Response::new(self.certificate(leaf)))
    }

    async fn issue(
        &self,
        request: Request<pb::IssueRequest>,
    ) -> Result<Response<pb::Certificate>, Status> {
        let peer = Peer::of(&request)?;
        let leaf = self.further(&peer, &request.into_inner().csr).await?;
        tracing::info!(peer = %peer.address, id = %leaf.id, serial = %leaf.serial, "issued for an application");
        Ok(Response::new(self.certificate(leaf)))
    }

    async fn mint_jwt(&self, request: Request<pb::MintJwtRequest>) -> Result<Response<pb::Jwt>, Status> {
        let (proven, _) = Peer::of(&request)?.service(SystemTime::now())?;
        let pb::MintJwtRequest { audience, ttl_s } = request.into_inner();
        convert::audience(&audience)?;
        let ttl = convert::jwt_ttl(ttl_s)?;
        let jwt = self.ca.mint_jwt(&proven.id, &audience, ttl, proven.not_after);
        let jwt = jwt.map_err(|error| refusal(&error))?;
        tracing::debug!(id = %proven.id, ?audience, "token signed");
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

fn refusal(error: &CaError) -> Status {
    let message = error.to_string();
    match error {
        CaError::TokenRefused => Status::unauthenticated(message),
        CaError::TokenForOther { .. } => Status::permission_denied(message),
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
