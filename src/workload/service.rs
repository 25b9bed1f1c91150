//! The calls of the Workload API.
//!
//! Each answer is the whole state. A stream gives it at once and again when it changes, and a slow reader
//! misses states, never the last one.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::{limits, stopping};
use crate::agent::Svid;
use crate::pb::spiffe;
use crate::pb::spiffe::spiffe_workload_api_server::SpiffeWorkloadApi;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// See the module.
pub(super) struct Api {
    svid: watch::Receiver<Option<Arc<Svid>>>,
    stop: watch::Receiver<bool>,
}

impl Api {
    pub(super) fn new(svid: watch::Receiver<Option<Arc<Svid>>>, stop: watch::Receiver<bool>) -> Self {
        Self { svid, stop }
    }

    /// What is there now; a sidecar that has just started gets a moment.
    async fn current(&self) -> Result<Arc<Svid>, Status> {
        let mut svid = self.svid.clone();
        let found = timeout(limits::FIRST_WAIT, svid.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(|found| found.ok()?.clone());
        valid(found.ok_or_else(|| {
            Status::unavailable(
                "the sidecar has no certificate for its application yet; its log says why, come again",
            )
        })?)
    }

    /// What is there now, and again whenever `is_news` says so of the last one and the present one.
    async fn follow<T: 'static>(
        &self,
        is_news: fn(&Arc<Svid>, &Arc<Svid>) -> bool,
        message: fn(&Svid) -> T,
    ) -> Result<Responses<T>, Status> {
        let follower = Follower {
            told: None,
            next: Some(self.current().await?),
            svid: self.svid.clone(),
            stop: self.stop.clone(),
            is_news,
        };
        let states = stream::unfold(Some(follower), move |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(svid) => Some((Ok(message(&svid)), Some(follower))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Box::pin(states))
    }
}

/// One open stream.
struct Follower {
    told: Option<Arc<Svid>>,
    /// To be told first.
    next: Option<Arc<Svid>>,
    svid: watch::Receiver<Option<Arc<Svid>>>,
    stop: watch::Receiver<bool>,
    is_news: fn(&Arc<Svid>, &Arc<Svid>) -> bool,
}

impl Follower {
    /// The next state.
    async fn next(&mut self) -> Result<Arc<Svid>, Status> {
        let (told, is_news) = (self.told.clone(), self.is_news);
        let is_next = |now: &Option<Arc<Svid>>| match (&told, now) {
            (Some(told), Some(now)) => is_news(told, now),
            (_, now) => now.is_some(),
        };
        let next = match self.next.take() {
            Some(next) => next,
            None => {
                let next = tokio::select! {
                    next = self.svid.wait_for(is_next) => next.ok().and_then(|next| next.clone()),
                    () = stopping(&mut self.stop) => None,
                };
                valid(next.ok_or_else(|| Status::unavailable("the sidecar is leaving; come again"))?)?
            }
        };
        self.told = Some(Arc::clone(&next));
        Ok(next)
    }
}

fn valid(svid: Arc<Svid>) -> Result<Arc<Svid>, Status> {
    if svid.not_after > SystemTime::now() {
        return Ok(svid);
    }
    Err(Status::unavailable(
        "the application's certificate has expired and could not be renewed; the sidecar's log says why",
    ))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = Responses<spiffe::X509svidResponse>;
    type FetchX509BundlesStream = Responses<spiffe::X509BundlesResponse>;
    type FetchJWTBundlesStream = Responses<spiffe::JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<spiffe::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let Caller { uid, pid, .. } = Caller::admit(&request)?;
        let states = self.follow(|told, now| !Arc::ptr_eq(told, now), x509_svid).await?;
        tracing::info!(uid, pid, "an application follows its X.509-SVID");
        Ok(Response::new(states))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<spiffe::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Caller::admit(&request)?;
        let states = self.follow(|told, now| told.bundle != now.bundle, x509_bundles).await?;
        Ok(Response::new(states))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<spiffe::JwtsvidRequest>,
    ) -> Result<Response<spiffe::JwtsvidResponse>, Status> {
        Caller::admit(&request)?;
        Err(Status::unimplemented("there are no JWT-SVIDs yet"))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<spiffe::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Caller::admit(&request)?;
        Err(Status::unimplemented("there are no JWT-SVIDs yet"))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<spiffe::ValidateJwtsvidRequest>,
    ) -> Result<Response<spiffe::ValidateJwtsvidResponse>, Status> {
        Caller::admit(&request)?;
        Err(Status::unimplemented("there are no JWT-SVIDs yet"))
    }
}

fn x509_svid(svid: &Svid) -> spiffe::X509svidResponse {
    let default = spiffe::X509svid {
        spiffe_id: svid.id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.to_vec(),
        bundle: svid.bundle.roots.concat(),
        hint: String::new(),
    };
    spiffe::X509svidResponse { svids: vec![default], ..spiffe::X509svidResponse::default() }
}

fn x509_bundles(svid: &Svid) -> spiffe::X509BundlesResponse {
    let bundle = (svid.bundle.trust_domain.id().to_string(), svid.bundle.roots.concat());
    spiffe::X509BundlesResponse { crl: Vec::new(), bundles: [bundle].into() }
}
