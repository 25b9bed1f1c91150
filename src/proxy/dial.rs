//! From an application's connection to an open stream: choose an endpoint, get a lane, ask, and go
//! elsewhere when it is certain that no application saw a byte.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::balance;
use super::connection::{Connection, OUTBOUND};
use super::context::Context;
use super::endpoint::{InFlight, Stats};
use super::settings::Route;
use crate::model::{Endpoint, EndpointId, Reason};
use crate::net::{limits, socket};
use crate::tunnel::handshake::{self, HandshakeError};
use crate::tunnel::pool::Key;
use crate::tunnel::{Driver, End, Stream, Verdict};

/// An open stream and its place in the endpoint's load.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) _in_flight: InFlight,
}

/// One application connection on its way to an endpoint.
pub(super) struct Dialler<'a> {
    ctx: &'a Rc<Context>,
    upstream: &'a Route,
    app: &'a TcpStream,
    /// The application's first bytes, kept until an endpoint has taken the stream.
    early: Vec<u8>,
    early_ended: bool,
    failed: BTreeSet<EndpointId>,
}

/// What one attempt came to.
enum Attempt {
    Opened(Opened),
    /// No application saw a byte. `elsewhere` says that the same endpoint is no use.
    TryAgain {
        end: End,
        elsewhere: bool,
    },
    Final(End),
}

struct Choice {
    endpoint: Arc<Endpoint>,
    stats: Rc<Stats>,
}

impl<'a> Dialler<'a> {
    pub(super) const fn new(ctx: &'a Rc<Context>, upstream: &'a Route, app: &'a TcpStream) -> Self {
        Self { ctx, upstream, app, early: Vec::new(), early_ended: false, failed: BTreeSet::new() }
    }

    /// Tries endpoints until one takes the stream, or says why none did.
    pub(super) async fn open(mut self, record: &mut Connection) -> Result<Opened, End> {
        let mut last: Option<End> = None;
        for attempt in 1..=limits::DIAL_ATTEMPTS {
            let choice = match self.choose() {
                Ok(choice) => choice,
                // What the last endpoint said explains more than that there is no further one.
                Err(none) => return Err(last.unwrap_or(none)),
            };
            record.access().attempts = attempt;
            record.access().endpoint = Some(choice.endpoint.id.clone());
            match self.attempt(&choice, record).await {
                Attempt::Opened(opened) => return Ok(opened),
                Attempt::Final(end) => return Err(end),
                Attempt::TryAgain { end, elsewhere } => {
                    if elsewhere {
                        self.failed.insert(choice.endpoint.id.clone());
                    }
                    last = Some(end);
                }
            }
        }
        Err(last.unwrap_or_else(|| End::new(Reason::NoHealthyEndpoint, "no attempt was possible")))
    }

    fn choose(&self) -> Result<Choice, End> {
        let snapshot = self.ctx.snapshot();
        let name = &self.upstream.destination;
        let view =
            snapshot.services.get(name).filter(|view| view.exists).ok_or_else(|| {
                End::new(Reason::NoService, format!("no service {name} is registered"))
            })?;
        let now = Instant::now();
        let (mut choices, mut candidates) = (Vec::new(), Vec::new());
        for (id, state) in &view.endpoints {
            if state.weight() > 0 && !self.failed.contains(id) {
                let stats = self.ctx.endpoints.get(id);
                candidates.push(stats.candidate(state.weight(), now));
                choices.push(Choice { endpoint: state.endpoint.clone(), stats });
            }
        }
        match balance::choose(&candidates, &mut self.ctx.rng.borrow_mut()) {
            Some(index) => Ok(choices.swap_remove(index)),
            None => Err(End::new(
                Reason::NoHealthyEndpoint,
                format!("none of the {} endpoints of {name} is healthy", view.endpoints.len()),
            )),
        }
    }

    async fn attempt(&mut self, choice: &Choice, record: &mut Connection) -> Attempt {
        let started = Instant::now();
        let in_flight = InFlight::new(&choice.stats);
        let stream = match self.lane_stream(choice, record).await {
            Ok(Some(stream)) => stream,
            // The lane closed between being chosen and being used: the next try opens a new one.
            Ok(None) => return again(End::new(Reason::PeerReset, "the connection was closing"), false),
            Err(end) => {
                self.count_failure(choice);
                return again(end, true);
            }
        };
        if !self.early.is_empty() {
            stream.send_early(&self.early);
        }
        let verdict = match self.verdict(&stream).await {
            Ok(verdict) => verdict,
            Err(end) => {
                if end.reason == Reason::ConnectTimeout {
                    self.count_failure(choice);
                }
                stream.reset(end.reason, &end.detail);
                return Attempt::Final(end);
            }
        };
        match verdict {
            Verdict::Opened => {
                choice.stats.succeeded(Instant::now(), started.elapsed());
                Attempt::Opened(Opened { stream, _in_flight: in_flight })
            }
            // Every endpoint of the service applies the same intentions.
            Verdict::Refused { reason: Reason::Denied, detail } => {
                Attempt::Final(End::new(Reason::Denied, detail))
            }
            Verdict::Refused { reason, detail } => {
                self.count_failure(choice);
                again(End::new(reason, detail), true)
            }
            Verdict::Lost { reason, detail, untouched } => {
                let end = End::new(reason, detail);
                if untouched {
                    return again(end, false);
                }
                self.count_failure(choice);
                // Without a byte sent, no application can have seen one.
                if self.early.is_empty() { again(end, true) } else { Attempt::Final(end) }
            }
        }
    }

    /// A stream on a lane to the endpoint, new or kept.
    async fn lane_stream(
        &self,
        choice: &Choice,
        record: &mut Connection,
    ) -> Result<Option<Stream>, End> {
        let endpoint = &choice.endpoint;
        let name = self.upstream.destination.clone();
        let address = socket::resolve(&endpoint.host, endpoint.port, self.upstream.connect_timeout)
            .await
            .map_err(|error| {
                End::new(Reason::ConnectRefused, format!("cannot resolve {}: {error}", endpoint.host))
            })?;
        record.access().endpoint_address = Some(address);
        let identity = self
            .ctx
            .identity()
            .ok_or_else(|| End::new(Reason::ConfigStale, "this sidecar has no certificate yet"))?;
        let config = identity
            .client_config(&name)
            .map_err(|error| End::new(Reason::IdentityMismatch, error.to_string()))?;
        let key = Key { service: name.clone(), address, generation: identity.generation() };
        let (limit, not_after) = (self.upstream.connect_timeout, identity.not_after());
        let metrics = self.ctx.metrics.clone();
        let dial = || {
            let (config, metrics) = (Arc::clone(&config), metrics.clone());
            async move {
                let established = handshake::connect(address, config, limit).await;
                let result = established.as_ref().err().map_or(Reason::Ok, HandshakeError::reason);
                // Without a connection there was no handshake.
                if result != Reason::ConnectRefused {
                    metrics.tls_handshake(OUTBOUND, result);
                }
                let established = established?;
                let expires = not_after.min(established.expires);
                let (lane, driver) = Driver::new(established, expires, None);
                Ok::<_, HandshakeError>((lane, driver.holding(metrics.lane(OUTBOUND))))
            }
        };
        let lane = self
            .ctx
            .pool
            .lane(&key, dial)
            .await
            .map_err(|error| End::new(error.reason(), error.to_string()))?;
        record.access().destination_id = Some(lane.peer().clone());
        Ok(lane.open(&name, 0))
    }

    /// Waits for the verdict and passes the application's first bytes on meanwhile.
    async fn verdict(&mut self, stream: &Stream) -> Result<Verdict, End> {
        let limit = tokio::time::sleep(limits::VERDICT);
        tokio::pin!(limit);
        loop {
            let room = limits::EARLY_BYTES - self.early.len();
            tokio::select! {
                biased;
                verdict = stream.verdict() => return Ok(verdict),
                ready = self.app.readable(), if room > 0 && !self.early_ended => {
                    ready.map_err(app_gone)?;
                    self.read_early(stream, room)?;
                }
                () = &mut limit => {
                    let detail = "the peer did not answer in time";
                    return Err(End::new(Reason::ConnectTimeout, detail));
                }
            }
        }
    }

    fn read_early(&mut self, stream: &Stream, room: usize) -> Result<(), End> {
        let held = self.early.len();
        self.early.resize(held + room, 0);
        let read = self.app.try_read(&mut self.early[held..]);
        self.early.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.early_ended = true, // the pump sees it again and passes it on
            Ok(_) => stream.send_early(&self.early[held..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(app_gone(error)),
        }
        Ok(())
    }

    fn count_failure(&self, choice: &Choice) {
        let mut rng = self.ctx.rng.borrow_mut();
        if let Some(ejection) = choice.stats.failed(Instant::now(), &mut rng) {
            let (service, endpoint) = (&self.upstream.destination, &choice.endpoint.id);
            let for_ms = ejection.as_millis();
            self.ctx.metrics.ejected(service.as_str());
            tracing::warn!(%service, %endpoint, for_ms, "endpoint ejected after repeated failures");
        }
    }
}

const fn again(end: End, elsewhere: bool) -> Attempt {
    Attempt::TryAgain { end, elsewhere }
}

fn app_gone(error: io::Error) -> End {
    End::new(Reason::AppReset, format!("the application went away before it was connected: {error}"))
}
