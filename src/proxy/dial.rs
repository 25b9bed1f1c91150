//! From an application's connection to an open stream: choose an endpoint, get a lane, ask, and go
//! elsewhere when it is certain that no application saw a byte.
//!
//! The application's first bytes go ahead of the verdict only to an endpoint that answers: a stream
//! whose bytes went ahead stays where it is, whatever happens. `outbound` calls it.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::balance::{self, Candidate};
use super::connection::{Connection, OUTBOUND};
use super::context::Context;
use super::endpoint::{InFlight, Stats, Waiting};
use super::outlier::may_be_out;
use super::passive;
use super::route::{InCircuit, Route};
use crate::model::{Endpoint, EndpointId, Reason, ServiceView};
use crate::net::{limits, socket};
use crate::tunnel::handshake::{self, HandshakeError};
use crate::tunnel::pool::Key;
use crate::tunnel::{Driver, End, Lane, Stream, Verdict};

/// An open stream and its places in the load of its endpoint and upstream.
pub(super) struct Opened {
    pub(super) stream: Stream,
    _in_flight: InFlight,
    _circuit: InCircuit,
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

/// Why an attempt came to nothing.
enum Failure {
    /// No application saw a byte.
    TryAgain { end: End, at: Next },
    /// An application may have, or it would be the same everywhere.
    Final(End),
}

/// Where a stream may go next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// To the same endpoint, too: there is nothing wrong with it.
    Anywhere,
    /// Not there again, which is nobody's fault.
    Elsewhere,
    /// Not there again, on the retry budget.
    ElsewhereOnBudget,
}

#[derive(Clone)]
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
        let mut circuit = self.upstream.enter().map_err(|limit| {
            self.ctx.limit_reached(limit);
            let name = &self.upstream.destination;
            End::new(Reason::Overloaded, format!("upstream {name} has reached its `{limit}`"))
        })?;
        self.ctx.upstream(self.upstream).retries.borrow_mut().connection(now());
        let (stream, in_flight) = self.open_somewhere(record).await?;
        circuit.opened();
        Ok(Opened { stream, _in_flight: in_flight, _circuit: circuit })
    }

    async fn open_somewhere(&mut self, record: &mut Connection) -> Result<(Stream, InFlight), End> {
        let mut last: Option<(End, Next)> = None;
        let (mut attempts, mut moves) = (0, 0);
        loop {
            let choice = match (self.choose(), last) {
                (Ok(_), Some((end, Next::ElsewhereOnBudget))) if !self.may_retry() => return Err(end),
                (Ok(choice), _) => choice,
                // What the last endpoint said explains more than that there is no further one.
                (Err(_), Some((end, _))) => return Err(end),
                (Err(none), None) => return Err(none),
            };
            record.access().attempts = attempts + moves + 1;
            record.access().endpoint = Some(choice.endpoint.id.clone());
            let (end, at) = match self.attempt(&choice, record).await {
                Ok(opened) => return Ok(opened),
                Err(Failure::Final(end)) => return Err(end),
                Err(Failure::TryAgain { end, at }) => (end, at),
            };
            if at == Next::Anywhere {
                moves += 1;
            } else {
                attempts += 1;
                self.failed.insert(choice.endpoint.id.clone());
            }
            if attempts >= limits::DIAL_ATTEMPTS || moves >= limits::LANE_MOVES {
                return Err(end);
            }
            last = Some((end, at));
        }
    }

    fn may_retry(&self) -> bool {
        let fits = self.ctx.upstream(self.upstream).retries.borrow_mut().retry(now());
        if !fits {
            self.ctx.limit_reached("retry_budget");
        }
        fits
    }

    fn choose(&self) -> Result<Choice, End> {
        let snapshot = self.ctx.snapshot();
        let name = &self.upstream.destination;
        let view =
            snapshot.services.get(name).filter(|view| view.exists).ok_or_else(|| {
                End::new(Reason::NoService, format!("no service {name} is registered"))
            })?;
        let (mut choices, candidates) = self.candidates(view);
        match balance::choose(&candidates, self.upstream.panic, &mut self.ctx.rng.borrow_mut()) {
            Some(index) => Ok(choices.swap_remove(index)),
            None => {
                let out = candidates.iter().filter(|c| c.ejected_until.is_some()).count();
                let all = view.endpoints.len();
                let detail = format!("none of the {all} endpoints of {name} is healthy, {out} ejected");
                Err(End::new(Reason::NoHealthyEndpoint, detail))
            }
        }
    }

    fn candidates(&self, view: &ServiceView) -> (Vec<Choice>, Vec<Candidate>) {
        let (now, outliers) = (now(), &self.upstream.outliers);
        let endpoints = &self.ctx.upstream(self.upstream).endpoints;
        let (mut choices, mut candidates) = (Vec::new(), Vec::new());
        let (mut healthy, mut out) = (0, 0);
        for (id, state) in &view.endpoints {
            let stats = endpoints.get(id, || outliers.health(id));
            let candidate = stats.candidate(state.weight(), self.failed.contains(id), now);
            healthy += usize::from(candidate.weight > 0);
            out += usize::from(candidate.weight > 0 && candidate.ejected_until.is_some());
            candidates.push(candidate);
            choices.push(Choice { endpoint: state.endpoint.clone(), stats });
        }
        let most = may_be_out(healthy, &outliers.policy);
        if out > most {
            balance::take_back(&mut candidates, most);
        }
        (choices, candidates)
    }

    /// Whether the stream could go to an endpoint that is well.
    fn has_alternative(&self, to: &Choice) -> bool {
        let snapshot = self.ctx.snapshot();
        let Some(view) = snapshot.services.get(&self.upstream.destination) else { return false };
        let (choices, candidates) = self.candidates(view);
        let is_well = |(choice, candidate): (&Choice, &Candidate)| {
            choice.endpoint.id != to.endpoint.id && candidate.is_well()
        };
        choices.iter().zip(&candidates).any(is_well)
    }

    async fn attempt(
        &mut self,
        choice: &Choice,
        record: &mut Connection,
    ) -> Result<(Stream, InFlight), Failure> {
        let started = Instant::now();
        let in_flight = InFlight::new(&choice.stats);
        let _waiting = Waiting::new(&choice.stats, started.into_std());
        let lane = self.lane_in_time(choice, started, record).await?;
        record.access().destination_id = Some(lane.peer().clone());
        let Some(stream) = lane.open(&self.upstream.destination, 0) else {
            // The lane closed between being chosen and being used: the next try opens a new one.
            return again(End::new(Reason::PeerReset, "the connection was closing"), Next::Anywhere);
        };
        let (verdict, sent) = self.verdict(&stream, choice).await;
        match verdict {
            Ok(Verdict::Opened) => {
                choice.stats.heard(now());
                stream.send_early(&self.early[sent..]);
                let id = &choice.endpoint.id;
                passive::succeeded(self.ctx, self.upstream.index, id, &choice.stats, started.elapsed());
                Ok((stream, in_flight))
            }
            Ok(Verdict::Refused { reason, detail }) => {
                choice.stats.heard(now());
                let end = End::new(reason, detail);
                if reason == Reason::Denied {
                    return Err(Failure::Final(end)); // every endpoint applies the same intentions
                }
                self.blame(choice);
                again(end, Next::ElsewhereOnBudget)
            }
            Ok(Verdict::Lost { reason, detail, untouched: true }) => {
                again(End::new(reason, detail), Next::Anywhere)
            }
            Ok(Verdict::Lost { reason, detail, untouched: false }) => {
                self.blame(choice);
                Err(given_up(End::new(reason, detail), sent))
            }
            Err(Silence::AppGone(end)) => {
                stream.reset(end.reason, &end.detail);
                Err(Failure::Final(end))
            }
            Err(Silence::Peer) => Err(self.unanswered(stream, started, sent, choice)),
        }
    }

    /// The peer has not answered, and this stream waits no longer.
    fn unanswered(&self, stream: Stream, asked: Instant, sent: usize, choice: &Choice) -> Failure {
        let detail = match sent {
            0 => "the peer did not answer in time".to_owned(),
            _ => format!("the peer did not answer in time, and {sent} bytes are on their way to it"),
        };
        let end = End::new(Reason::ConnectTimeout, detail);
        if !choice.stats.has_spoken_since(asked.into_std()) {
            stream.lane().retire(end.reason); // nobody else shall wait there
        }
        self.strike(choice);
        stream.reset(end.reason, &end.detail);
        given_up(end, sent)
    }

    /// A lane to the endpoint, new or kept. The dial of a new one goes on for others when this stream
    /// has no more patience and goes elsewhere.
    async fn lane_in_time(
        &self,
        choice: &Choice,
        started: Instant,
        record: &mut Connection,
    ) -> Result<Lane, Failure> {
        let lane = self.lane(choice, record);
        tokio::pin!(lane);
        tokio::select! {
            biased;
            lane = &mut lane => return lane,
            () = sleep_until(started + self.patience()) => {}
        }
        if self.has_alternative(choice) {
            self.strike(choice);
            let detail = "no connection to the peer in time";
            return again(End::new(Reason::ConnectTimeout, detail), Next::ElsewhereOnBudget);
        }
        lane.await
    }

    async fn lane(&self, choice: &Choice, record: &mut Connection) -> Result<Lane, Failure> {
        let (endpoint, limit) = (&choice.endpoint, self.upstream.connect_timeout);
        let name = self.upstream.destination.clone();
        let unresolved = |error| {
            self.blame(choice);
            let detail = format!("cannot resolve {}: {error}", endpoint.host);
            let end = End::new(Reason::ConnectRefused, detail);
            Failure::TryAgain { end, at: Next::ElsewhereOnBudget }
        };
        let address = socket::resolve(&endpoint.host, endpoint.port, limit).await.map_err(unresolved)?;
        record.access().endpoint_address = Some(address);
        if self.ctx.plan.leads_back(address) {
            let id = &endpoint.id;
            let detail = format!("endpoint {id} at {address} is this sidecar itself: a loop");
            return again(End::new(Reason::NoHealthyEndpoint, detail), Next::Elsewhere);
        }
        let stale = |reason, detail: String| Failure::Final(End::new(reason, detail));
        let identity = self.ctx.identity().ok_or_else(|| {
            stale(Reason::ConfigStale, "this sidecar has no certificate yet".to_owned())
        })?;
        let config = identity
            .client_config(&name)
            .map_err(|error| stale(Reason::IdentityMismatch, error.to_string()))?;
        let key = Key { service: name, address, generation: identity.generation() };
        let not_after = identity.not_after();
        let dial = || {
            let (ctx, config, choice) = (Rc::clone(self.ctx), Arc::clone(&config), choice.clone());
            let index = self.upstream.index;
            async move {
                let place = ctx.plan.admission.lane();
                let established = handshake::connect(address, config, limit).await;
                let result = established.as_ref().err().map_or(Reason::Ok, HandshakeError::reason);
                // Without a connection there was no handshake.
                if result != Reason::ConnectRefused {
                    ctx.metrics.tls_handshake(OUTBOUND, result);
                }
                // One dial counts once, however many streams wait for it.
                match &established {
                    Ok(_) => choice.stats.heard(now()),
                    Err(_) => passive::failed(&ctx, index, &choice.endpoint.id, &choice.stats),
                }
                let established = established?;
                let expires = not_after.min(established.peer.not_after);
                let (lane, driver) = Driver::new(established, expires, None);
                let held = (ctx.metrics.lane(OUTBOUND), place, ctx.guarded(&lane));
                Ok::<_, HandshakeError>((lane, driver.holding(held)))
            }
        };
        self.ctx.pool.lane(&key, dial).await.map_err(|error| {
            let end = End::new(error.reason(), error.to_string());
            Failure::TryAgain { end, at: Next::ElsewhereOnBudget }
        })
    }

    /// Waits for the verdict and passes the application's first bytes on meanwhile, if the endpoint is
    /// trusted. Says how many of them have gone.
    async fn verdict(&mut self, stream: &Stream, choice: &Choice) -> (Result<Verdict, Silence>, usize) {
        let asked = Instant::now();
        let (mut sent, mut limit) = (0, self.patience());
        loop {
            if self.early.len() > sent && (sent > 0 || choice.stats.is_trusted(now())) {
                stream.send_early(&self.early[sent..]);
                sent = self.early.len();
                limit = self.upstream.connect_timeout;
            }
            let room = limits::EARLY_BYTES - self.early.len();
            tokio::select! {
                biased;
                verdict = stream.verdict() => return (Ok(verdict), sent),
                ready = self.app.readable(), if room > 0 && !self.early_ended => {
                    if let Err(error) = ready.and_then(|()| self.read_early(room)) {
                        return (Err(Silence::AppGone(app_gone(&error))), sent);
                    }
                }
                () = sleep_until(asked + limit) => {
                    if limit >= self.upstream.connect_timeout || self.has_alternative(choice) {
                        return (Err(Silence::Peer), sent);
                    }
                    limit = self.upstream.connect_timeout;
                }
            }
        }
    }

    fn read_early(&mut self, room: usize) -> io::Result<()> {
        let held = self.early.len();
        self.early.resize(held + room, 0);
        let read = self.app.try_read(&mut self.early[held..]);
        self.early.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.early_ended = true, // the pump sees it again and passes it on
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    /// How long a stream that could go elsewhere waits.
    fn patience(&self) -> std::time::Duration {
        limits::PATIENCE.min(self.upstream.connect_timeout)
    }

    /// The endpoint failed.
    fn blame(&self, choice: &Choice) {
        passive::failed(self.ctx, self.upstream.index, &choice.endpoint.id, &choice.stats);
    }

    /// The endpoint is silent, which counts once, however many streams notice.
    fn strike(&self, choice: &Choice) {
        if choice.stats.strike(now(), limits::PATIENCE) {
            self.blame(choice);
        }
    }
}

/// Why there is no verdict.
enum Silence {
    AppGone(End),
    Peer,
}

const fn again<T>(end: End, at: Next) -> Result<T, Failure> {
    Err(Failure::TryAgain { end, at })
}

/// Without a byte sent, no application can have seen one.
const fn given_up(end: End, sent: usize) -> Failure {
    if sent == 0 { Failure::TryAgain { end, at: Next::ElsewhereOnBudget } } else { Failure::Final(end) }
}

fn app_gone(error: &io::Error) -> End {
    End::new(Reason::AppReset, format!("the application went away before it was connected: {error}"))
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
