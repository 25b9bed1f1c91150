//! The gRPC services over the keys: thin, but for the streams.

mod kv;
mod lease;
mod member;
mod watch;

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch as channel;
use tonic::service::Routes;
use tonic::{Response, Status};

use super::limits::MAX_MESSAGE_BYTES;
use super::shell::Keys;
use crate::pb::etcd::etcdserverpb::ResponseHeader;
use crate::pb::etcd::etcdserverpb::cluster_server::ClusterServer;
use crate::pb::etcd::etcdserverpb::kv_server::KvServer;
use crate::pb::etcd::etcdserverpb::lease_server::LeaseServer;
use crate::pb::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::pb::etcd::etcdserverpb::watch_server::WatchServer;

/// There are no elections; the least number that clients take for a server with a leader.
const TERM: u64 = 2;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the services share.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) keys: Keys,
    /// Of the cluster and of its one member; never 0.
    pub(super) id: u64,
    pub(super) name: String,
    /// Where clients reach it.
    pub(super) url: String,
    pub(super) stop: channel::Receiver<bool>,
}

impl Service {
    pub(super) fn routes(self) -> Routes {
        let mut routes = Routes::builder();
        routes
            .add_service(KvServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(LeaseServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(WatchServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
            .add_service(ClusterServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self));
        routes.routes()
    }

    /// The header of an answer at a revision.
    fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader { cluster_id: self.id, member_id: self.id, revision, raft_term: TERM }
    }

    /// The header of an answer that is of now.
    fn header_now(&self) -> Option<ResponseHeader> {
        Some(self.header(*self.keys.revision().borrow()))
    }

    /// The header of an answer of the keys, completed.
    fn complete(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        header.map(|header| self.header(header.revision))
    }

    /// Ends a stream of answers when the server shuts down.
    fn until_stop<T: 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<Answers<T>> {
        let mut stop = self.stop.clone();
        let stopped = Box::pin(async move {
            // An error means that the server is gone, which says stop as well.
            let _gone = stop.wait_for(|stop| *stop).await;
        });
        Response::new(Box::pin(stream.take_until(stopped)))
    }
}
