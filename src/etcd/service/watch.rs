//! `Watch`: many watches on one stream, fed from the history of the keys.

use std::collections::BTreeMap;
use std::pin::pin;

use tokio::sync::{mpsc, watch as channel};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Service};
use crate::etcd::limits::{MAX_WATCHES, OUTBOUND, PROGRESS};
use crate::etcd::watcher::{Found, Watcher};
use crate::pb::etcd::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcd::etcdserverpb::watch_server::Watch;
use crate::pb::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};

/// The id of answers that are about no watch.
const NO_WATCH: i64 = -1;

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, outbound) = mpsc::channel(OUTBOUND);
        let stream = Stream {
            service: self.clone(),
            revision: self.keys.revision(),
            watchers: BTreeMap::new(),
            next_id: 0,
            answers,
        };
        // Ends when the client's side ends, or when nobody takes its answers any more.
        tokio::spawn(stream.run(request.into_inner()));
        Ok(self.until_stop(ReceiverStream::new(outbound)))
    }
}

/// One stream with its watches.
struct Stream {
    service: Service,
    revision: channel::Receiver<i64>,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// Nobody takes the answers of a stream any more.
struct Gone;

impl Stream {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let answers = self.answers.clone();
        let mut closed = pin!(answers.closed());
        let mut progress = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                () = &mut closed => return,
                request = requests.message() => match request {
                    Ok(Some(WatchRequest { request_union: Some(request) })) => self.take(request).await,
                    Ok(Some(WatchRequest { request_union: None })) => Ok(()),
                    Ok(None) | Err(_) => return,
                },
                changed = self.revision.changed() => match changed {
                    Ok(()) => self.deliver().await,
                    Err(_) => return,
                },
                _ = progress.tick() => self.tell_progress().await,
            };
            if step.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, request: RequestUnion) -> Result<(), Gone> {
        match request {
            RequestUnion::CreateRequest(request) => self.create(&request).await,
            RequestUnion::CancelRequest(request) => match self.watchers.remove(&request.watch_id) {
                Some(_) => {
                    let canceled = WatchResponse { canceled: true, ..self.answer(request.watch_id) };
                    self.send(canceled).await
                }
                None => Ok(()),
            },
            RequestUnion::ProgressRequest(_) => {
                self.deliver().await?;
                self.send(self.answer(NO_WATCH)).await
            }
        }
    }

    async fn create(&mut self, request: &WatchCreateRequest) -> Result<(), Gone> {
        let revision = *self.revision.borrow();
        let made = self.place(request.watch_id).and_then(|id| {
            Watcher::new(request, revision).map(|watcher| (id, watcher)).map_err(str::to_owned)
        });
        match made {
            Ok((id, watcher)) => {
                let created = WatchResponse { created: true, ..self.answer_at(id, revision) };
                self.watchers.insert(id, watcher);
                self.send(created).await?;
                self.deliver().await
            }
            Err(cancel_reason) => {
                let answer = self.answer_at(NO_WATCH, revision);
                self.send(WatchResponse { created: true, canceled: true, cancel_reason, ..answer }).await
            }
        }
    }

    /// The id of a new watch: the client's, or the next one that is free.
    fn place(&mut self, wanted: i64) -> Result<i64, String> {
        if self.watchers.len() >= MAX_WATCHES {
            return Err(format!("there are {MAX_WATCHES} watches on this stream; open another one"));
        }
        if wanted != 0 {
            let taken = self.watchers.contains_key(&wanted);
            let reason = "mvcc: duplicate watch ID provided on the WatchStream";
            return if taken { Err(reason.to_owned()) } else { Ok(wanted) };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    /// Sends every watch what it has not seen, in turns, so that one far behind stops no other.
    async fn deliver(&mut self) -> Result<(), Gone> {
        self.revision.mark_unchanged();
        let mut behind: Vec<i64> = self.watchers.keys().copied().collect();
        while !behind.is_empty() {
            let mut still = Vec::new();
            for id in behind {
                let Some(watcher) = self.watchers.get_mut(&id) else { continue };
                let (found, now) = self.service.keys.read(|space| (watcher.look(space), space.revision));
                if !watcher.has_seen(now) {
                    still.push(id);
                }
                self.tell(id, found).await?;
            }
            still.retain(|id| self.watchers.contains_key(id));
            behind = still;
        }
        Ok(())
    }

    async fn tell(&mut self, id: i64, found: Found) -> Result<(), Gone> {
        match found {
            Found::Nothing => Ok(()),
            Found::Events(events, _) if events.is_empty() => Ok(()),
            Found::Events(events, revision) => {
                let answer = WatchResponse { events, ..self.answer_at(id, revision) };
                self.send(answer).await
            }
            Found::Compacted(first) => {
                self.watchers.remove(&id);
                let answer = WatchResponse { canceled: true, ..self.answer(id) };
                self.send(WatchResponse { compact_revision: first, ..answer }).await
            }
        }
    }

    async fn tell_progress(&mut self) -> Result<(), Gone> {
        self.deliver().await?;
        let wanting = self.watchers.iter().filter(|(_, watcher)| watcher.wants_progress);
        let ids: Vec<i64> = wanting.map(|(id, _)| *id).collect();
        for id in ids {
            self.send(self.answer(id)).await?;
        }
        Ok(())
    }

    fn answer(&self, id: i64) -> WatchResponse {
        self.answer_at(id, *self.revision.borrow())
    }

    fn answer_at(&self, id: i64, revision: i64) -> WatchResponse {
        let header = Some(self.service.header(revision));
        WatchResponse { header, watch_id: id, ..WatchResponse::default() }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }
}
