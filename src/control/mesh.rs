//! The `Mesh` service: opens Sync streams and takes reports.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{self, Fault};
use super::edges::{EdgeKey, EdgeTotals, Edges, Side};
use super::limits::{MAX_EDGES_PER_REPORT, OUTBOUND_QUEUE};
use super::peer::Peer;
use super::sync::{self, Context};
use crate::model::{EndpointId, Reason, ServiceName};
use crate::pb;

#[derive(Clone)]
pub(super) struct Mesh {
    context: Arc<Context>,
    edges: Edges,
}

impl Mesh {
    pub(super) const fn new(context: Arc<Context>, edges: Edges) -> Self {
        Self { context, edges }
    }
}

#[tonic::async_trait]
impl pb::mesh_server::Mesh for Mesh {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<pb::SyncResponse, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<pb::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let peer = Peer::of(&request)?;
        // Refused before a stream is made, and again by the stream for what it does.
        peer.service(SystemTime::now())?;
        let (outbound, responses) = mpsc::channel(OUTBOUND_QUEUE);
        // Ends with the request stream, the connection, or the server.
        tokio::spawn(sync::run(Arc::clone(&self.context), peer, request.into_inner(), outbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportResponse>, Status> {
        let (_, service) = Peer::of(&request)?.service(SystemTime::now())?;
        let report = request.into_inner();
        let instance = EndpointId {
            node: convert::node_name(&report.node, "node", None)?,
            instance: convert::instance_id(&report.instance, "instance")?,
        };
        convert::within("edges", report.edges.len(), MAX_EDGES_PER_REPORT)?;
        let edges = report.edges.iter().enumerate();
        let edges = edges.map(|(i, one)| edge(one, i, &service)).collect::<Result<Vec<_>, Status>>()?;
        let leaf_expires = unix_time(report.leaf_not_after);
        if !self.context.sessions.report_leaf(&instance, &service, leaf_expires) {
            return Err(Status::failed_precondition(format!(
                "instance {instance} of {service} has no stream here; open Mesh.Sync first"
            )));
        }
        for (key, totals) in edges {
            self.edges.add(key, totals);
        }
        Ok(Response::new(pb::ReportResponse {}))
    }
}

/// One count; its reporter must be one end of it.
fn edge(
    message: &pb::EdgeCount,
    i: usize,
    reporter: &ServiceName,
) -> Result<(EdgeKey, EdgeTotals), Status> {
    let source = convert::service(&message.source, &format!("edges[{i}].source"))?;
    let destination = convert::service(&message.destination, &format!("edges[{i}].destination"))?;
    let reported_by = if source == *reporter {
        Side::Source
    } else if destination == *reporter {
        Side::Destination
    } else {
        return Err(Status::permission_denied(format!(
            "edges[{i}]: {reporter} is neither source nor destination of {source} -> {destination}"
        )));
    };
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == message.reason);
    let reason = reason.ok_or_else(|| {
        Fault::new(format!("edges[{i}].reason"), format!("{:?} is not a known reason", message.reason))
    })?;
    let totals = EdgeTotals {
        connections: message.connections,
        bytes_sent: message.bytes_sent,
        bytes_received: message.bytes_received,
    };
    Ok((EdgeKey { source, destination, reported_by, reason }, totals))
}

fn unix_time(seconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
