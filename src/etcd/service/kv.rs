//! `KV`.

use tonic::{Request, Response, Status};

use super::Service;
use crate::pb::etcd::etcdserverpb::kv_server::Kv;
use crate::pb::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let answer = self.keys.range(request.get_ref())?;
        Ok(Response::new(RangeResponse { header: self.complete(answer.header), ..answer }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let answer = self.keys.put(request.into_inner()).await?;
        Ok(Response::new(PutResponse { header: self.complete(answer.header), ..answer }))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let answer = self.keys.delete(request.into_inner()).await?;
        Ok(Response::new(DeleteRangeResponse { header: self.complete(answer.header), ..answer }))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let answer = self.keys.txn(request.into_inner()).await?;
        Ok(Response::new(TxnResponse { header: self.complete(answer.header), ..answer }))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let header = self.keys.compact(request.get_ref().revision)?;
        Ok(Response::new(CompactionResponse { header: self.complete(Some(header)) }))
    }
}
