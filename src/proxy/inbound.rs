//! The side that accepts for its application: verify, authorize each stream, dial the application,
//! and cut what a change of policy forbids.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use super::connection::{Connection, INBOUND};
use super::context::Context;
use super::lobby::Lobby;
use crate::model::{Reason, ServiceName, SpiffeId, Verdict};
use crate::net::accept::Acceptor;
use crate::net::drain::{Phase, Watcher};
use crate::net::socket;
use crate::tunnel::handshake::HandshakeError;
use crate::tunnel::{Driver, End, Lane, Stream, handshake};

/// The inbound port of one worker.
pub(super) struct Inbound {
    ctx: Rc<Context>,
    drain: Watcher,
    lanes: RefCell<Vec<Lane>>,
    lobby: Lobby,
    turn: handshake::Turn,
}

/// Accepts peers until the drain begins, then lets them go.
pub(super) async fn serve(ctx: Rc<Context>, listener: TcpListener, drain: Watcher) {
    let lobby = Lobby::new(ctx.plan.capacity.handshakes);
    let inbound = Rc::new(Inbound {
        ctx,
        drain,
        lanes: RefCell::new(Vec::new()),
        lobby,
        turn: handshake::Turn::new(1),
    });
    inbound.accept(listener).await;
    inbound.retire_all(Reason::Drained);
}

impl Inbound {
    async fn accept(self: &Rc<Self>, listener: TcpListener) {
        let metrics = self.ctx.metrics.clone();
        let mut acceptor = Acceptor::new(listener).noticing(move || metrics.limit_reached("accept"));
        let (mut drain, mut identity) = (self.drain.clone(), self.ctx.agent.identity.clone());
        loop {
            let (peer, address) = tokio::select! {
                accepted = acceptor.accept() => accepted,
                () = drain.reached(Phase::Draining) => return,
                Ok(()) = identity.changed() => {
                    self.retire_all(Reason::Ok); // new streams shall see the new certificate
                    continue;
                }
            };
            let Some(place) = self.ctx.admitted(self.ctx.plan.admission.peer(address.ip())) else {
                socket::reset_on_close(&peer);
                continue;
            };
            let inbound = Rc::clone(self);
            tokio::task::spawn_local(async move {
                if let Some((lane, driver)) = inbound.prove(peer, address).await {
                    inbound.run(lane, driver).await;
                }
                drop(place);
            });
        }
    }

    /// A handshake in the lobby.
    async fn prove(self: &Rc<Self>, peer: TcpStream, address: SocketAddr) -> Option<(Lane, Driver)> {
        let (guest, crowded) = self.lobby.enter();
        if crowded {
            self.ctx.limit_reached("handshakes");
        }
        tokio::select! {
            biased;
            proved = self.handshake(peer, address) => proved,
            () = guest.asked_to_leave() => None,
        }
    }

    async fn handshake(self: &Rc<Self>, peer: TcpStream, address: SocketAddr) -> Option<(Lane, Driver)> {
        let Some(identity) = self.ctx.ready().await else {
            tracing::warn!(peer = %address, "refused a peer: no certificate or configuration yet");
            return None;
        };
        let established =
            match handshake::accept(peer, address, identity.server_config(), &self.turn).await {
                Ok(established) => {
                    self.ctx.metrics.tls_handshake(INBOUND, Reason::Ok);
                    established
                }
                // Checks of the port do so all the time, our own among them.
                Err(HandshakeError::Silent { .. }) => return None,
                Err(error) => {
                    self.ctx.metrics.tls_handshake(INBOUND, error.reason());
                    tracing::info!(peer = %address, reason = %error.reason(), %error, "refused a peer");
                    return None;
                }
            };
        let inbound = Rc::clone(self);
        let source = established.peer.id.clone();
        let expires = identity.not_after().min(established.peer.not_after);
        let on_open = Box::new(move |stream: Stream| {
            let (inbound, source) = (Rc::clone(&inbound), source.clone());
            tokio::task::spawn_local(async move { inbound.stream(stream, source, address).await });
        });
        let (lane, driver) = Driver::new(established, expires, Some(on_open));
        let held = (self.ctx.metrics.lane(INBOUND), self.ctx.guarded(&lane));
        Some((lane, driver.holding(held)))
    }

    async fn run(&self, lane: Lane, driver: Driver) {
        self.lanes.borrow_mut().push(lane.clone());
        if self.drain.phase() > Phase::Running {
            lane.retire(Reason::Drained);
        }
        let end = driver.run().await;
        tracing::debug!(peer = %lane.peer(), reason = %end.reason, detail = %end.detail, "lane ended");
        self.lanes.borrow_mut().retain(|other| !other.is(&lane));
    }

    fn retire_all(&self, reason: Reason) {
        for lane in &*self.lanes.borrow() {
            lane.retire(reason);
        }
    }

    /// One stream: subscribe to policy, then decide, then dial, then copy, and decide again on change.
    async fn stream(&self, stream: Stream, source_id: SpiffeId, client: SocketAddr) {
        let own = &self.ctx.plan.service;
        let Some((_, source)) = source_id.service() else {
            stream.refuse(Reason::Denied, "the caller's identity is not that of a service");
            return;
        };
        let mut record = Connection::open(INBOUND, &source, own, Some(client), &self.ctx.metrics);
        record.access().source_id = Some(source_id.clone());
        record.access().attempts = 1;
        if let Some(identity) = self.ctx.identity() {
            record.access().destination_id = Some(identity.id().clone());
        }
        let end = self.carry(stream, &source, &mut record).await;
        record.close(end);
    }

    async fn carry(&self, mut stream: Stream, source: &ServiceName, record: &mut Connection) -> End {
        let own = &self.ctx.plan.service;
        let mut changes = self.ctx.agent.changes.clone();
        changes.mark_unchanged();
        let asked = stream.request().service;
        if !asked.is_empty() && !asked.eq_ignore_ascii_case(own.as_str()) {
            return refuse(stream, End::new(Reason::NoService, format!("this sidecar serves {own}")));
        }
        let verdict = self.decide(source);
        record.authorized(&verdict);
        if !verdict.is_allowed() {
            return refuse(stream, denied(&verdict));
        }
        let Some(_place) = self.ctx.admitted(self.ctx.plan.admission.stream()) else {
            return refuse(stream, End::new(Reason::Overloaded, "this sidecar carries all it can"));
        };
        let app = match self.dial_app(record).await {
            Ok(app) => Rc::new(app),
            Err(end) => return refuse(stream, end),
        };
        socket::face_application(&app);
        stream.accept();
        record.connected();
        let mut drain = self.drain.clone();
        let end = tokio::select! {
            biased;
            end = self.forbidden(source, verdict, &mut changes, record) => end,
            end = stream.pump(&app) => end,
            () = drain.reached(Phase::Closing) => End::new(Reason::Drained, "the sidecar stopped"),
        };
        // Of this connection, `sent` is what the caller's application sent.
        let (to_caller, from_caller) = stream.bytes();
        record.moved(from_caller, to_caller);
        if end.reason != Reason::Ok {
            stream.reset(end.reason, &end.detail);
        }
        end
    }

    fn decide(&self, source: &ServiceName) -> Verdict {
        self.ctx.snapshot().intentions.decide(source, &self.ctx.plan.service)
    }

    /// Waits until a change of policy forbids the connection. `last` is the verdict that stands.
    async fn forbidden(
        &self,
        source: &ServiceName,
        mut last: Verdict,
        changes: &mut tokio::sync::watch::Receiver<u64>,
        record: &mut Connection,
    ) -> End {
        loop {
            let verdict = self.decide(source);
            if verdict != last {
                record.authorized(&verdict);
                last = verdict;
            }
            if !last.is_allowed() {
                return denied(&last);
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await; // the agent is gone: what it last said stands
            }
        }
    }

    async fn dial_app(&self, record: &mut Connection) -> Result<TcpStream, End> {
        let app = &self.ctx.plan.app;
        let limit = self.ctx.local_dial_limit();
        let refused = |error: std::io::Error| {
            let detail = format!("cannot reach the application at {}:{}: {error}", app.host, app.port);
            // It may have been taken and reset before we could look.
            let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
            End::new(if reset { Reason::AppReset } else { Reason::AppRefused }, detail)
        };
        let address = socket::resolve(&app.host, app.port, limit).await.map_err(refused)?;
        record.access().endpoint_address = Some(address);
        if self.ctx.plan.leads_back(address) {
            let detail =
                format!("the application's address {address} is a port of this sidecar: a loop");
            return Err(End::new(Reason::AppRefused, detail));
        }
        socket::connect(address, limit).await.map_err(refused)
    }
}

fn refuse(stream: Stream, end: End) -> End {
    stream.refuse(end.reason, &end.detail);
    end
}

fn denied(verdict: &Verdict) -> End {
    End::new(Reason::Denied, verdict.to_string())
}
