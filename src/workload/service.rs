//! The calls of the Workload API. Each answer is the whole state; the streams are made in [`follow`].

use std::sync::Arc;
use std::time::SystemTime;

use prost_types::Struct;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::follow::{Responses, Rules, current, follow};
use super::limits::{MAX_AUDIENCE_BYTES, MAX_AUDIENCES};
use super::mint::Mint;
use super::{claims, token};
use crate::agent::{Application, Svid};
use crate::model::JwtBundle;
use crate::pb::spiffe;
use crate::pb::spiffe::spiffe_workload_api_server::SpiffeWorkloadApi;

/// See the module.
pub(super) struct Api {
    application: Application,
    mint: Mint,
    stop: watch::Receiver<bool>,
}

impl Api {
    pub(super) fn new(application: Application, stop: watch::Receiver<bool>) -> Self {
        Self { mint: Mint::new(application.clone()), application, stop }
    }

    async fn follow_svid<T: 'static>(
        &self,
        is_news: fn(&Svid, &Svid) -> bool,
        message: fn(&Svid) -> T,
    ) -> Result<Responses<T>, Status> {
        let rules = Rules { is_news, check: is_valid, message };
        follow(&self.application.svid, &self.stop, rules).await
    }

    /// What the application is called.
    async fn svid(&self) -> Result<Arc<Svid>, Status> {
        current(&self.application.svid).await
    }
}

fn is_valid(svid: &Svid) -> Result<(), Status> {
    if svid.not_after > SystemTime::now() {
        return Ok(());
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
        let is_news = |told: &Svid, now: &Svid| told.key != now.key || told.bundle != now.bundle;
        let states = self.follow_svid(is_news, x509_svid).await?;
        tracing::info!(uid, pid, "an application follows its X.509-SVID");
        Ok(Response::new(states))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<spiffe::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Caller::admit(&request)?;
        let states = self.follow_svid(|told, now| told.bundle != now.bundle, x509_bundles).await?;
        Ok(Response::new(states))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<spiffe::JwtsvidRequest>,
    ) -> Result<Response<spiffe::JwtsvidResponse>, Status> {
        let Caller { uid, pid, .. } = Caller::admit(&request)?;
        let spiffe::JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        check_audience(&audience)?;
        let id = self.svid().await?.id.to_string();
        if !spiffe_id.is_empty() && spiffe_id != id {
            return Err(Status::permission_denied(format!(
                "the application is {id} and cannot have a token of another identity"
            )));
        }
        let svid = self.mint.token(audience).await?;
        tracing::info!(uid, pid, "an application takes a JWT-SVID");
        let svid = spiffe::Jwtsvid { spiffe_id: id, svid, hint: String::new() };
        Ok(Response::new(spiffe::JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<spiffe::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Caller::admit(&request)?;
        let rules = Rules { is_news: |told, now| told != now, check: |_| Ok(()), message: jwt_bundles };
        Ok(Response::new(follow(&self.application.jwt_keys, &self.stop, rules).await?))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<spiffe::ValidateJwtsvidRequest>,
    ) -> Result<Response<spiffe::ValidateJwtsvidResponse>, Status> {
        Caller::admit(&request)?;
        let spiffe::ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() {
            return Err(Status::invalid_argument("audience: it is empty; say who validates"));
        }
        let keys = current(&self.application.jwt_keys).await?;
        let valid = token::validate(&svid, &audience, &keys, SystemTime::now())
            .map_err(|why| Status::invalid_argument(format!("svid: {why}")))?;
        let claims: Struct = claims::message(valid.claims);
        let (spiffe_id, claims) = (valid.id.to_string(), Some(claims));
        Ok(Response::new(spiffe::ValidateJwtsvidResponse { spiffe_id, claims }))
    }
}

fn check_audience(audience: &[String]) -> Result<(), Status> {
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("audience: it is empty; say for whom the token is"));
    }
    if audience.len() > MAX_AUDIENCES || audience.iter().any(|one| one.len() > MAX_AUDIENCE_BYTES) {
        return Err(Status::invalid_argument(format!(
            "audience: at most {MAX_AUDIENCES} of {MAX_AUDIENCE_BYTES} bytes each are possible"
        )));
    }
    Ok(())
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

fn jwt_bundles(bundle: &JwtBundle) -> spiffe::JwtBundlesResponse {
    let document = bundle.jwks().to_string().into_bytes();
    spiffe::JwtBundlesResponse { bundles: [(bundle.trust_domain.id().to_string(), document)].into() }
}
