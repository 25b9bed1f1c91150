//! The `Registry` service: registration and discovery for tools.
//!
//! A caller that shows a certificate acts as that service and may write only its own instances; one
//! without may do anything, but only from the same machine, and with a token where the HTTP API needs one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::admission::{fill_addresses, may_register, may_touch, subject};
use super::callers::{Caller, Callers};
use super::convert::{self, Fault};
use super::failure::of_catalog;
use super::limits::{MAX_REMOTE_LEASES, WATCH_WAIT};
use super::stopping;
use crate::access::Scope;
use crate::catalog::{Catalog, CatalogError, LeaseId, Owner, Topic, Unlisted};
use crate::model::{CheckReport, CheckStatus, NodeName, ServiceName};
use crate::pb;

/// Seconds a lease may have.
const LEASE_RANGE_S: std::ops::RangeInclusive<u32> = 5..=86_400;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub(super) struct Registry {
    catalog: Catalog,
    callers: Callers,
    stop: watch::Receiver<bool>,
    /// Leases granted to services; nobody else may use them.
    granted: Arc<Mutex<HashMap<LeaseId, ServiceName>>>,
}

impl Registry {
    pub(super) fn new(catalog: Catalog, callers: Callers, stop: watch::Receiver<bool>) -> Self {
        Self { catalog, callers, stop, granted: Arc::default() }
    }

    fn own_node(&self) -> &NodeName {
        &self.catalog.settings().node
    }

    /// Whether a caller may use a lease.
    fn check_lease(&self, caller: &Caller, lease: LeaseId) -> Result<(), Status> {
        let Caller::Service(service) = caller else { return Ok(()) };
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if granted.get(&lease) == Some(service) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "lease {lease} was not granted to {service} by this server; get one with Registry.GrantLease"
        )))
    }

    fn remember(&self, caller: Caller, lease: LeaseId) -> Result<(), Status> {
        let Caller::Service(service) = caller else { return Ok(()) };
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if granted.len() >= MAX_REMOTE_LEASES {
            return Err(Status::resource_exhausted(format!(
                "{MAX_REMOTE_LEASES} leases are granted already; revoke some or wait until they run out"
            )));
        }
        granted.insert(lease, service);
        Ok(())
    }

    fn forget(&self, lease: LeaseId) {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
    }

    /// A lease with its time to live; zero when it is gone.
    async fn refreshed(&self, caller: &Caller, lease: LeaseId) -> Result<pb::Lease, Status> {
        self.check_lease(caller, lease)?;
        match self.catalog.keep_alive(lease).await {
            Ok(ttl) => Ok(pb::Lease { id: lease, ttl_s: whole_seconds(ttl) }),
            Err(CatalogError::NoLease(_)) => {
                self.forget(lease);
                Ok(pb::Lease { id: lease, ttl_s: 0 })
            }
            Err(error) => Err(of_catalog(&error)),
        }
    }

    fn check_reports(
        &self,
        caller: &Caller,
        node: &NodeName,
        reports: &[CheckReport],
    ) -> Result<(), Status> {
        let Caller::Service(service) = caller else { return Ok(()) };
        for report in reports {
            let check = self.catalog.check(node, &report.id);
            let owner = check.and_then(|known| known.check.instance.clone());
            let instance = owner.and_then(|(id, _)| self.catalog.instance(node, &id));
            if instance.is_none_or(|entry| subject(&entry.instance.instance) != service) {
                return Err(Status::permission_denied(format!(
                    "check {} on node {node} is not one of service {service}",
                    report.id
                )));
            }
        }
        Ok(())
    }

    fn state_of(&self, service: &ServiceName, passing_only: bool) -> pb::WatchResponse {
        let revision = self.catalog.index(&Topic::Service(service.clone()));
        let instances = self
            .catalog
            .health(service)
            .iter()
            .map(|entry| (entry, entry.status()))
            .filter(|(_, status)| !passing_only || *status == CheckStatus::Passing)
            .map(|(entry, status)| pb::ServiceInstance {
                instance: Some(entry.instance.instance.as_ref().into()),
                status: pb::CheckStatus::from(status).into(),
            })
            .collect();
        pb::WatchResponse { revision, instances }
    }

    /// Ends a response stream when the server shuts down.
    fn until_stop<T: 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<Responses<T>> {
        let mut stop = self.stop.clone();
        let stopped = async move { stopping(&mut stop).await };
        Response::new(Box::pin(stream.take_until(Box::pin(stopped))))
    }
}

#[tonic::async_trait]
impl pb::registry_server::Registry for Registry {
    type KeepAliveStream = Responses<pb::Lease>;
    type WatchStream = Responses<pb::WatchResponse>;

    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        let (peer, caller) = self.callers.admit(&request, Scope::ServiceWrite).await?;
        let request = request.into_inner();
        let default_node = matches!(caller, Caller::Local).then(|| self.own_node());
        let instances = Vec::from_iter(request.instance);
        let mut registrations = convert::registrations(instances, request.checks, default_node)?;
        if let Caller::Service(service) = &caller {
            may_register(&self.catalog, service, &registrations)?;
            fill_addresses(&mut registrations, peer.address.ip());
        }
        let owner = if request.lease == 0 {
            Owner::Permanent
        } else {
            self.check_lease(&caller, request.lease)?;
            Owner::Lease(request.lease)
        };
        let registered = self.catalog.register(registrations, owner, Unlisted::Remove).await;
        let revision = registered.map_err(|error| of_catalog(&error))?;
        Ok(Response::new(pb::RegisterResponse { revision }))
    }

    async fn deregister(
        &self,
        request: Request<pb::DeregisterRequest>,
    ) -> Result<Response<pb::DeregisterResponse>, Status> {
        let (_, caller) = self.callers.admit(&request, Scope::ServiceWrite).await?;
        let request = request.into_inner();
        let node = convert::node_name(&request.node, "node", Some(self.own_node()))?;
        let id = convert::instance_id(&request.id, "id")?;
        if let Caller::Service(service) = &caller {
            may_touch(&self.catalog, service, &node, &id)?;
        }
        let removed = self.catalog.deregister(&node, &id).await.map_err(|error| of_catalog(&error))?;
        Ok(Response::new(pb::DeregisterResponse { removed }))
    }

    async fn report_checks(
        &self,
        request: Request<pb::ReportChecksRequest>,
    ) -> Result<Response<pb::ReportChecksResponse>, Status> {
        let (_, caller) = self.callers.admit(&request, Scope::ServiceWrite).await?;
        let request = request.into_inner();
        let node = convert::node_name(&request.node, "node", Some(self.own_node()))?;
        let reports = convert::reports(request.reports)?;
        self.check_reports(&caller, &node, &reports)?;
        self.catalog.report_checks(&node, reports).await.map_err(|error| of_catalog(&error))?;
        Ok(Response::new(pb::ReportChecksResponse {}))
    }

    async fn grant_lease(
        &self,
        request: Request<pb::GrantLeaseRequest>,
    ) -> Result<Response<pb::Lease>, Status> {
        let (_, caller) = self.callers.admit(&request, Scope::ServiceWrite).await?;
        let ttl_s = request.into_inner().ttl_s;
        if !LEASE_RANGE_S.contains(&ttl_s) {
            let (least, most) = (LEASE_RANGE_S.start(), LEASE_RANGE_S.end());
            let reason = format!("{ttl_s} is out of range; give {least} to {most} seconds");
            return Err(Fault::new("ttl_s", reason).into());
        }
        let granted = self.catalog.grant_lease(Duration::from_secs(ttl_s.into())).await;
        let id = granted.map_err(|error| of_catalog(&error))?;
        self.remember(caller, id)?;
        Ok(Response::new(pb::Lease { id, ttl_s }))
    }

    async fn keep_alive(
        &self,
        request: Request<Streaming<pb::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let (_, caller) = self.callers.admit(&request, Scope::ServiceWrite).await?;
        let state = (self.clone(), caller, request.into_inner());
        let answers = stream::try_unfold(state, |(registry, caller, mut requests)| async move {
            let Some(request) = requests.message().await? else { return Ok(None) };
            let lease = registry.refreshed(&caller, request.lease).await?;
            Ok(Some((lease, (registry, caller, requests))))
        });
        Ok(self.until_stop(answers))
    }

    async fn revoke_lease(
        &self,
        request: Request<pb::RevokeLeaseRequest>,
    ) -> Result<Response<pb::RevokeLeaseResponse>, Status> {
        let (_, caller) = self.callers.admit(&request, Scope::ServiceWrite).await?;
        let lease = request.into_inner().lease;
        self.check_lease(&caller, lease)?;
        self.catalog.revoke_lease(lease).await.map_err(|error| of_catalog(&error))?;
        self.forget(lease);
        Ok(Response::new(pb::RevokeLeaseResponse {}))
    }

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.callers.admit(&request, Scope::ServiceRead).await?;
        let request = request.into_inner();
        let service = convert::service(&request.service, "service")?;
        let state = (self.clone(), service, None);
        let states = stream::unfold(state, move |(registry, service, seen)| async move {
            if let Some(seen) = seen {
                let topic = Topic::Service(service.clone());
                while registry.catalog.wait(&topic, seen, WATCH_WAIT).await <= seen {}
            }
            let state = registry.state_of(&service, request.passing_only);
            let seen = Some(state.revision);
            Some((Ok(state), (registry, service, seen)))
        });
        Ok(self.until_stop(states))
    }
}

/// Rounded up, so that a live lease is never shown as zero.
fn whole_seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}
