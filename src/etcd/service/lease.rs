//! `Lease`.

use futures_util::stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Service};
use crate::pb::etcd::etcdserverpb::lease_server::Lease;
use crate::pb::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

#[tonic::async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let answer = self.keys.grant(request.into_inner()).await?;
        Ok(Response::new(LeaseGrantResponse { header: self.complete(answer.header), ..answer }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let header = self.keys.revoke(request.get_ref().id).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.complete(Some(header)) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let state = (self.clone(), request.into_inner());
        let answers = stream::try_unfold(state, |(service, mut requests)| async move {
            let Some(LeaseKeepAliveRequest { id }) = requests.message().await? else { return Ok(None) };
            let ttl = service.keys.keep_alive(id).unwrap_or(0);
            let answer = LeaseKeepAliveResponse { header: service.header_now(), id, ttl };
            Ok(Some((answer, (service, requests))))
        });
        Ok(self.until_stop(answers))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = self.header_now();
        let gone = LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
        let Some(remaining) = self.keys.remaining(id) else { return Ok(Response::new(gone)) };
        Ok(Response::new(LeaseTimeToLiveResponse {
            ttl: i64::try_from(remaining.left.as_secs()).unwrap_or(i64::MAX),
            granted_ttl: remaining.granted_s,
            keys: if keys { remaining.keys } else { Vec::new() },
            ..gone
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.keys.leases().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.header_now(), leases }))
    }
}
