//! One Sync stream, from the first message to its end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::connect::MAX_MESSAGE_BYTES;
use super::convert;
use super::fault::Fault;
use super::link::Link;
use super::receiver::{Applied, Offence};
use super::shared::{Life, Results, Role};
use crate::model::Bundle;
use crate::pb;
use crate::pb::mesh_client::MeshClient;
use crate::pb::sync_request::Message as Request;
use crate::pb::sync_response::Message as Response;
use crate::tls::Identity;

/// Time for the server to take the stream, and for a request to find room on it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Three heartbeats of the server.
const SILENCE: Duration = Duration::from_secs(15);
/// Requests that wait for HTTP/2.
const REQUEST_QUEUE: usize = 16;
/// Heartbeats in the time after which the server gives us up.
const BEATS_PER_LEASE: u32 = 3;
/// Results of checks in one message; the server takes 256.
const MAX_RESULTS: usize = 128;

/// How a stream ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is a new certificate to connect with.
    NewLeaf,
    /// The instance is this process's to hold now.
    NewRole,
    /// The instances were removed.
    Left,
}

/// What happened next.
enum Event {
    Answer(Result<Option<pb::SyncResponse>, Status>),
    Results,
    Identity,
    Role(Role),
    Life(Life),
    Beat,
    Silence,
}

struct Stream<'a> {
    link: &'a mut Link,
    server: &'a str,
    requests: mpsc::Sender<pb::SyncRequest>,
    /// Results as last sent.
    sent: Results,
    heard: Instant,
    /// When to give the next sign of life, and how often.
    beat: Option<(Instant, Duration)>,
    /// The first message said that we are draining.
    draining: bool,
    /// As the first message said.
    role: Role,
}

/// Opens a stream on `channel` and follows it. `serial` names the certificate of the connection.
pub(super) async fn run(
    link: &mut Link,
    server: &str,
    channel: Channel,
    serial: &str,
) -> Result<Ended, Fault> {
    let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE);
    let life = *link.life.borrow_and_update();
    let role = *link.role.borrow_and_update();
    let sent = link.results.borrow_and_update().clone();
    let mut stream = Stream {
        link,
        server,
        requests,
        sent: Results::new(),
        heard: Instant::now(),
        beat: None,
        draining: life >= Life::Draining,
        role,
    };
    // Both leave with the call itself: no round trip is waited for.
    stream.send(stream.hello(&sent)).await?;
    stream.send_results(sent).await?;
    let mut client = MeshClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let answer = timeout(CALL_TIMEOUT, client.sync(ReceiverStream::new(outgoing))).await;
    let answer = answer
        .map_err(|_| Fault::Timeout { server: server.to_owned(), limit: CALL_TIMEOUT })?
        .map_err(|status| Fault::of_call(server, status))?;
    stream.link.shared.status.send_modify(|status| status.connected = true);
    if life == Life::Leaving {
        stream.send(Request::Leave(pb::Leave {})).await?;
    }
    stream.drive(answer.into_inner(), serial).await
}

impl Stream<'_> {
    fn hello(&self, known: &Results) -> Request {
        let profile = &self.link.profile;
        let (instances, checks) = convert::registrations(&profile.registrations, known);
        Request::Hello(pb::Hello {
            instances,
            checks,
            upstreams: profile.upstreams.iter().map(ToString::to_string).collect(),
            resume: self.link.receiver.resume().map(Into::into),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: profile.process.clone(),
            draining: self.draining,
            bundle_version: self.link.keeper.bundle_version(),
            observe: self.role == Role::Observer,
        })
    }

    async fn drive(
        mut self,
        mut answers: Streaming<pb::SyncResponse>,
        serial: &str,
    ) -> Result<Ended, Fault> {
        let mut identities = self.link.keeper.watch();
        let mut leaving = false;
        loop {
            if *self.link.life.borrow() == Life::Running && is_other(&identities, serial) {
                return Ok(Ended::NewLeaf);
            }
            match self.next(&mut answers, &mut identities).await {
                Event::Answer(Ok(Some(answer))) => {
                    self.heard = Instant::now();
                    self.take(answer).await?;
                }
                Event::Answer(Ok(None)) if leaving => return Ok(Ended::Left),
                // The successor has taken over, or the server has seen our new role already.
                Event::Answer(Ok(None) | Err(_)) if self.role != *self.link.role.borrow() => {
                    return Ok(Ended::NewRole);
                }
                Event::Answer(Ok(None)) => return Err(self.broken("the server ended the stream")),
                Event::Answer(Err(status)) => return Err(Fault::of_call(self.server, status)),
                Event::Results => {
                    let latest = self.link.results.borrow_and_update().clone();
                    self.send_results(latest).await?;
                }
                Event::Life(Life::Draining) => self.send(Request::Drain(pb::Drain {})).await?,
                Event::Role(Role::Holder) if self.role == Role::Observer => return Ok(Ended::NewRole),
                // Its successor's stream is not there yet, and shall find the instance in its place.
                Event::Life(Life::Leaving) if self.role != *self.link.role.borrow() => {
                    return Ok(Ended::Left);
                }
                Event::Life(Life::Leaving) => {
                    leaving = true;
                    self.send(Request::Leave(pb::Leave {})).await?;
                }
                Event::Beat => self.send_heartbeat().await?,
                // A stream that holds the instance keeps it until the successor takes it.
                Event::Identity | Event::Life(Life::Running) | Event::Role(_) => {}
                Event::Silence => {
                    return Err(Fault::Timeout { server: self.server.to_owned(), limit: SILENCE });
                }
            }
        }
    }

    async fn next(
        &mut self,
        answers: &mut Streaming<pb::SyncResponse>,
        identities: &mut watch::Receiver<Option<Arc<Identity>>>,
    ) -> Event {
        let silence = self.heard + SILENCE;
        let beat = self.beat.map_or(silence, |(at, _)| at);
        let Link { results, life, role, .. } = &mut *self.link;
        tokio::select! {
            answer = answers.message() => Event::Answer(answer),
            Ok(()) = results.changed() => Event::Results,
            Ok(()) = identities.changed() => Event::Identity,
            Ok(()) = role.changed() => Event::Role(*role.borrow_and_update()),
            Ok(()) = life.changed() => Event::Life(*life.borrow_and_update()),
            () = sleep_until(silence) => Event::Silence,
            () = sleep_until(beat), if beat < silence => Event::Beat,
        }
    }

    async fn take(&mut self, answer: pb::SyncResponse) -> Result<(), Fault> {
        match answer.message {
            Some(Response::Registered(registered)) => {
                let ttl = Duration::from_millis(registered.lease_ttl_ms.into());
                let every = (ttl / BEATS_PER_LEASE).max(Duration::from_millis(10));
                self.beat = Some((Instant::now() + every, every));
                self.link.on_registered(self.draining);
            }
            Some(Response::SnapshotBegin(_)) => self.link.receiver.begin_snapshot(),
            Some(Response::Batch(batch)) => {
                let keeper = Arc::clone(&self.link.keeper);
                let accept = |bundle: &Bundle| accept(keeper.accept_bundle(bundle, SystemTime::now()));
                if let Some(applied) = self.sound(|link| link.receiver.batch(batch, accept))? {
                    self.applied(applied).await?;
                }
            }
            Some(Response::SnapshotEnd(end)) => {
                let keeper = Arc::clone(&self.link.keeper);
                let accept = |bundle: &Bundle| accept(keeper.accept_bundle(bundle, SystemTime::now()));
                let applied = self.sound(|link| link.receiver.end_snapshot(end.position, accept))?;
                self.applied(applied).await?;
            }
            Some(Response::Heartbeat(heartbeat)) => {
                self.link.receiver.heartbeat(heartbeat.position);
                self.link.shared.status.send_modify(|status| status.heartbeats += 1);
            }
            Some(Response::Drained(_)) => self.link.on_drained(),
            // A kind of message from a later version: nothing that this one could do.
            None => {}
        }
        Ok(())
    }

    /// Publishes a new state and acknowledges it.
    async fn applied(&mut self, applied: Applied) -> Result<(), Fault> {
        self.link.publish(&applied);
        for refused in &applied.refused {
            let (resource, reason) = (&refused.resource, &refused.reason);
            tracing::warn!(resource, reason, "refused a resource; the older one stays in force");
        }
        let position = Some(applied.snapshot.position.into());
        let refused = applied.refused.iter().map(Into::into).collect();
        self.send(Request::Ack(pb::Ack { position, refused })).await
    }

    /// A server that breaks the rules is left, and what it sent is not applied.
    fn sound<T>(&mut self, step: impl FnOnce(&mut Link) -> Result<T, Offence>) -> Result<T, Fault> {
        let server = || self.server.to_owned();
        step(self.link).map_err(|offence| match offence {
            Offence::Protocol(what) => Fault::Protocol { server: server(), what: what.to_owned() },
            Offence::Behind { offered, held } => {
                self.link.shared.status.send_modify(|status| status.stale_refused += 1);
                Fault::Behind { server: server(), offered, held }
            }
        })
    }

    async fn send_heartbeat(&mut self) -> Result<(), Fault> {
        if let Some((at, every)) = &mut self.beat {
            *at = Instant::now() + *every;
        }
        self.send(Request::Heartbeat(pb::Heartbeat {})).await
    }

    /// Sends the results that differ from what was sent last. Those of an observer wait for the stream on
    /// which it holds the instance.
    async fn send_results(&mut self, latest: Results) -> Result<(), Fault> {
        if self.role == Role::Observer {
            return Ok(());
        }
        let news = latest.values().filter(|report| self.sent.get(&report.id) != Some(*report));
        let news: Vec<pb::CheckReport> = news.map(Into::into).collect();
        for part in news.chunks(MAX_RESULTS) {
            self.send(Request::Checks(pb::CheckReports { reports: part.to_vec() })).await?;
        }
        self.sent = latest;
        Ok(())
    }

    async fn send(&self, message: Request) -> Result<(), Fault> {
        let request = pb::SyncRequest { message: Some(message) };
        match timeout(CALL_TIMEOUT, self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.broken("the stream is gone")),
            Err(_) => Err(Fault::Timeout { server: self.server.to_owned(), limit: CALL_TIMEOUT }),
        }
    }

    fn broken(&self, cause: &str) -> Fault {
        Fault::Broken { server: self.server.to_owned(), cause: cause.to_owned() }
    }
}

fn accept(taken: Result<(), crate::tls::TlsError>) -> Result<(), String> {
    taken.map_err(|error| error.to_string())
}

/// Whether the certificate in use is another one than that of the connection.
fn is_other(identities: &watch::Receiver<Option<Arc<Identity>>>, serial: &str) -> bool {
    identities.borrow().as_ref().is_some_and(|identity| identity.serial() != serial)
}
