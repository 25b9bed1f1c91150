//! One Sync stream: the thin shell around [`Flow`] that reads requests, asks the catalog and writes.
//!
//! A stream holds its instances by a claim and keeps their lease. Whoever ends the stream, the
//! lease stays: only `Leave` removes the instances at once, otherwise they go when it runs out. An
//! observer's stream holds nothing and only follows; root rotation does not wait for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use super::admission::add_drain_checks;
use super::convert;
use super::failure::of_catalog;
use super::flow::{Flow, Overdue};
use super::hello::{Greeting, Hold};
use super::limits::{HELLO_TIMEOUT, MAX_REFUSALS};
use super::peer::{Peer, Proven};
use super::sessions::Sessions;
use super::{Settings, stopping};
use crate::ca::Ca;
use crate::catalog::{Batch, Catalog, CatalogError, Owner, Subscription, Unlisted};
use crate::model::snapshot::Change;
use crate::model::{Bundle, CheckId, NodeName, Position, Registration};
use crate::pb;
use pb::sync_request::Message as Request;
use pb::sync_response::Message as Response;

/// The word for the trust bundle in a refusal.
const BUNDLE_KEY: &str = "bundle";

pub(super) type Outbound = mpsc::Sender<Result<pb::SyncResponse, Status>>;

/// What all streams of a server share.
pub(super) struct Context {
    pub catalog: Catalog,
    pub ca: Ca,
    pub sessions: Sessions,
    pub settings: Settings,
    /// Turns true when the server shuts down.
    pub stop: watch::Receiver<bool>,
}

/// Runs a stream to its end and tells the client why it ended.
pub(super) async fn run(
    context: Arc<Context>,
    peer: Peer,
    mut inbound: Streaming<pb::SyncRequest>,
    outbound: Outbound,
) {
    let ended = async {
        let mut stream = Stream::open(&context, &peer, &mut inbound).await?;
        let ended = stream.drive(&mut inbound, &outbound).await;
        if let (Ok(End::Left), Some(hold)) = (&ended, stream.hold) {
            hold.claim.leave();
        }
        ended
    };
    match ended.await {
        Ok(end) => tracing::debug!(peer = %peer.address, ?end, "stream ended"),
        Err(status) => {
            tracing::info!(peer = %peer.address, code = ?status.code(), cause = status.message(), "stream closed");
            // A client that does not read cannot be told.
            let _told = timeout(HELLO_TIMEOUT, outbound.send(Err(status))).await;
        }
    }
}

/// How a stream ended without a fault of either side.
#[derive(Debug)]
enum End {
    /// The sidecar closed its half, to come back by another stream.
    Closed,
    /// The sidecar asked to be removed, and was.
    Left,
}

/// What happened next.
enum Event {
    Request(Result<Option<pb::SyncRequest>, Status>),
    Send,
    Changed,
    Bundle,
    Replaced,
    Stopping,
    Clock,
}

struct Stream {
    context: Arc<Context>,
    proven: Proven,
    /// As registered, for registering them again when draining.
    registrations: Vec<Registration>,
    node: NodeName,
    checks: BTreeSet<CheckId>,
    /// `None` for an observer.
    hold: Option<Hold>,
    subscription: Subscription,
    bundle: watch::Receiver<Arc<Bundle>>,
    /// Version of the bundle last put into the flow.
    offered: u64,
    flow: Flow,
    heard: Instant,
}

impl Stream {
    /// Takes the first message and registers what it says.
    async fn open(
        context: &Arc<Context>,
        peer: &Peer,
        inbound: &mut Streaming<pb::SyncRequest>,
    ) -> Result<Self, Status> {
        let hello = first_message(inbound).await?;
        let (greeting, bid) = Greeting::read(context, peer, hello)?;
        let hold = match greeting.observe {
            true => None,
            false => Some(greeting.take_hold(context, bid).await?),
        };
        let now = Instant::now();
        let checks = greeting.registrations.iter().flat_map(|one| &one.checks);
        let checks = checks.map(|check| check.id.clone()).collect();
        let mut stream = Self {
            subscription: context.catalog.subscribe(greeting.interest),
            bundle: context.ca.bundle(),
            flow: Flow::new(now, context.settings.heartbeat),
            context: Arc::clone(context),
            offered: greeting.bundle_version,
            proven: greeting.proven,
            registrations: greeting.registrations,
            node: greeting.node,
            heard: now,
            checks,
            hold,
        };
        stream.greet(greeting.resume);
        Ok(stream)
    }

    /// Queues what a new stream begins with.
    fn greet(&mut self, resume: Option<Position>) {
        let ttl_ms = self.context.settings.lease_ttl.as_millis();
        let lease_ttl_ms = u32::try_from(ttl_ms).unwrap_or(u32::MAX);
        self.flow.note(Response::Registered(pb::Registered { lease_ttl_ms }));
        let Some(batch) = resume.and_then(|position| self.subscription.resume(position)) else {
            let batch = self.subscription.snapshot();
            return self.offer_all(batch);
        };
        self.flow.delta(batch);
        let bundle = self.bundle.borrow_and_update().clone();
        if bundle.version != self.offered {
            self.offer(&bundle);
        }
    }

    /// Serves the stream until it ends.
    async fn drive(
        &mut self,
        inbound: &mut Streaming<pb::SyncRequest>,
        outbound: &Outbound,
    ) -> Result<End, Status> {
        let mut stop = self.context.stop.clone();
        loop {
            self.check_clock()?;
            let now = Instant::now();
            let (due, open) = (self.flow.is_due(now), self.flow.wants_changes());
            let wake = self.flow.wake(now).min(self.silence_ends());
            let event = tokio::select! {
                () = replaced(&mut self.hold) => Event::Replaced,
                () = stopping(&mut stop) => Event::Stopping,
                message = inbound.message() => Event::Request(message),
                permit = outbound.reserve(), if due => {
                    let Ok(permit) = permit else { return Ok(End::Closed) };
                    permit.send(Ok(self.next_message()));
                    Event::Send
                }
                () = self.subscription.changed(), if open => Event::Changed,
                Ok(()) = self.bundle.changed(), if open => Event::Bundle,
                () = sleep_until(wake) => Event::Clock,
            };
            match event {
                Event::Request(message) => {
                    let Some(request) = message? else { return Ok(End::Closed) };
                    if let Some(end) = self.take(request).await? {
                        return Ok(end);
                    }
                }
                Event::Changed => self.advance(),
                Event::Bundle => {
                    let bundle = self.bundle.borrow_and_update().clone();
                    self.offer(&bundle);
                }
                Event::Replaced => {
                    return Err(Status::aborted("a later stream of this sidecar took over"));
                }
                Event::Stopping => {
                    return Err(Status::unavailable("the server is shutting down; connect again"));
                }
                Event::Send | Event::Clock => {}
            }
        }
    }

    /// The message to send now, with the newest changes in it. An empty one cannot occur after
    /// `is_due`; the client would ignore it.
    fn next_message(&mut self) -> pb::SyncResponse {
        if self.flow.wants_changes() {
            self.advance();
        }
        pb::SyncResponse { message: self.flow.emit(Instant::now()) }
    }

    /// Takes one request; says when it was the last.
    async fn take(&mut self, request: pb::SyncRequest) -> Result<Option<End>, Status> {
        self.heard = Instant::now();
        if let Some(hold) = &self.hold {
            hold.claim.heard(self.heard);
        }
        match request.message {
            Some(Request::Heartbeat(_)) => self.keep_alive().await?,
            Some(Request::Ack(ack)) => self.acknowledged(ack),
            Some(Request::Checks(_) | Request::Drain(_)) if self.hold.is_none() => {
                return Err(Status::failed_precondition(
                    "an observer speaks for no instance; open a stream that holds it",
                ));
            }
            Some(Request::Checks(reports)) => self.report(reports).await?,
            Some(Request::Drain(_)) => self.drain().await?,
            Some(Request::Leave(_)) => return self.remove().await.map(Some),
            Some(Request::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "hello: only the first message may be one; open another stream",
                ));
            }
            // A kind of message from a later version: nothing that this server could do.
            None => {}
        }
        Ok(None)
    }

    /// Removes the instances, if they are held by this stream.
    async fn remove(&self) -> Result<End, Status> {
        let Some(hold) = &self.hold else { return Ok(End::Left) };
        match self.context.catalog.revoke_lease(hold.lease).await {
            Ok(()) | Err(CatalogError::NoLease(_)) => Ok(End::Left),
            Err(error) => Err(of_catalog(&error)),
        }
    }

    async fn keep_alive(&self) -> Result<(), Status> {
        let Some(hold) = &self.hold else { return Ok(()) };
        match self.context.catalog.keep_alive(hold.lease).await {
            Ok(_) => Ok(()),
            Err(CatalogError::NoLease(_)) => Err(Status::aborted(
                "the lease of the instances ran out and they were removed; connect again to register them",
            )),
            Err(error) => Err(of_catalog(&error)),
        }
    }

    fn acknowledged(&mut self, ack: pb::Ack) {
        let position = ack.position.map(Position::from).unwrap_or_default();
        if !self.flow.acknowledge(position) {
            return;
        }
        for refusal in ack.refused.iter().take(MAX_REFUSALS) {
            let (resource, reason) = (&refusal.resource, &refusal.reason);
            tracing::warn!(id = %self.proven.id, resource, reason, "a sidecar refused a resource");
        }
        let Some(hold) = &self.hold else { return };
        if !ack.refused.iter().any(|refusal| refusal.resource == BUNDLE_KEY) {
            hold.claim.holds_bundle(self.offered);
        }
        let refused = ack.refused.into_iter().take(MAX_REFUSALS);
        let refused =
            refused.map(|refusal| format!("{}: {}", refusal.resource, refusal.reason)).collect();
        hold.claim.update(|status| {
            status.acknowledged = position;
            status.refused = refused;
        });
    }

    /// Results of checks that this sidecar has not registered are left out.
    async fn report(&self, reports: pb::CheckReports) -> Result<(), Status> {
        let (own, foreign): (Vec<_>, Vec<_>) = convert::reports(reports.reports)?
            .into_iter()
            .partition(|one| self.checks.contains(&one.id));
        for report in foreign {
            tracing::warn!(id = %self.proven.id, check = report.id, "a sidecar reported on a foreign check");
        }
        match self.context.catalog.report_checks(&self.node, own).await {
            // Somebody deregistered the instance; its sidecar does not know yet.
            Ok(()) | Err(CatalogError::NoCheck(_)) => Ok(()),
            Err(error) => Err(of_catalog(&error)),
        }
    }

    async fn drain(&mut self) -> Result<(), Status> {
        let Some(hold) = &self.hold else { return Ok(()) };
        let mut registrations = self.registrations.clone();
        add_drain_checks(&mut registrations);
        let drained = self
            .context
            .catalog
            .register(registrations, Owner::Lease(hold.lease), Unlisted::Remove)
            .await;
        drained.map_err(|error| of_catalog(&error))?;
        hold.claim.update(|status| status.draining = true);
        self.flow.note(Response::Drained(pb::Drained {}));
        Ok(())
    }

    fn offer(&mut self, bundle: &Bundle) {
        // Whatever changed before goes along, or the position would not be true.
        let mut batch = self.subscription.take();
        if batch.snapshot {
            return self.offer_all(batch);
        }
        self.offered = bundle.version;
        batch.changes.push(Change::Bundle(bundle.clone()));
        self.flow.delta(batch);
    }

    /// Moves what has changed into the flow.
    fn advance(&mut self) {
        let batch = self.subscription.take();
        if batch.snapshot {
            self.offer_all(batch);
        } else {
            self.flow.delta(batch);
        }
    }

    /// A snapshot is whole with the bundle in it.
    fn offer_all(&mut self, mut batch: Batch) {
        let bundle = self.bundle.borrow_and_update().clone();
        self.offered = bundle.version;
        batch.changes.push(Change::Bundle(bundle.as_ref().clone()));
        self.flow.snapshot(batch, Instant::now());
    }

    fn silence_ends(&self) -> Instant {
        self.heard + self.context.settings.lease_ttl
    }

    /// Ends a stream that lags hopelessly, is silent, or whose certificate has expired.
    fn check_clock(&mut self) -> Result<(), Status> {
        let now = Instant::now();
        match self.flow.overdue(now) {
            Some(Overdue::Lost) => {
                return Err(Status::deadline_exceeded("no acknowledgement for too long; connect again"));
            }
            Some(Overdue::Lagging) => tracing::warn!(id = %self.proven.id, "a sidecar lags behind"),
            None => {}
        }
        if now >= self.silence_ends() {
            return Err(Status::deadline_exceeded("no heartbeat for a whole lease; connect again"));
        }
        if SystemTime::now() >= self.proven.not_after {
            return Err(Status::unauthenticated(
                "the certificate of this connection has expired; renew it and connect again",
            ));
        }
        Ok(())
    }
}

/// Waits until a later stream has taken over; an observer's is never replaced.
async fn replaced(hold: &mut Option<Hold>) {
    match hold {
        Some(hold) => drop((&mut hold.replaced).await),
        None => std::future::pending().await,
    }
}

async fn first_message(inbound: &mut Streaming<pb::SyncRequest>) -> Result<pb::Hello, Status> {
    match timeout(HELLO_TIMEOUT, inbound.message()).await {
        Ok(Ok(Some(pb::SyncRequest { message: Some(Request::Hello(hello)) }))) => Ok(hello),
        Ok(Ok(Some(_))) => Err(Status::invalid_argument("the first message must be `hello`")),
        Ok(Ok(None)) => Err(Status::invalid_argument("the stream ended before `hello`")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no `hello` came in time")),
    }
}
