//! `Cluster` and `Maintenance`: one member that leads itself and has no alarms.

use tonic::{Request, Response, Status};

use super::{Service, TERM};
use crate::pb::etcd::etcdserverpb::cluster_server::Cluster;
use crate::pb::etcd::etcdserverpb::maintenance_server::Maintenance;
use crate::pb::etcd::etcdserverpb::{
    AlarmRequest, AlarmResponse, Member, MemberListRequest, MemberListResponse, StatusRequest,
    StatusResponse,
};

/// The version of etcd whose API this is a part of.
const VERSION: &str = "3.5.0";

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(
        &self,
        _request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let member = Member {
            id: self.id,
            name: self.name.clone(),
            client_ur_ls: vec![self.url.clone()],
            ..Member::default()
        };
        Ok(Response::new(MemberListResponse { header: self.header_now(), members: vec![member] }))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn alarm(&self, _request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        Ok(Response::new(AlarmResponse { header: self.header_now(), alarms: Vec::new() }))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let header = self.header_now();
        let revision = header.as_ref().map_or(0, |header| header.revision);
        let bytes = self.keys.read(|space| i64::try_from(space.bytes).unwrap_or(i64::MAX));
        let index = u64::try_from(revision).unwrap_or(0);
        Ok(Response::new(StatusResponse {
            header,
            version: VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: self.id,
            raft_index: index,
            raft_applied_index: index,
            raft_term: TERM,
            ..StatusResponse::default()
        }))
    }
}
