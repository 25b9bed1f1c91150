//! Reads, writes and leases: the handle that others hold, and the one task that writes.
//!
//! Everything that writes goes through a queue. The task takes what waits, lets each request take its
//! revision, and commits them together, so that a slow disk costs a group once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::draft::{Draft, header};
use super::fault::Fault;
use super::keyspace::{Effects, Keyspace};
use super::limits::{MAX_GROUP, MAX_GROUP_BYTES, QUEUE};
use super::{check, record};
use crate::net::deadlines::Clock;
use crate::pb::etcd::etcdserverpb::request_op::Request;
use crate::pb::etcd::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use crate::store::replica::{Plan, Replica};
use crate::store::{Store, StoreError};

/// Leases that are ended at the same time.
const AT_ONCE: usize = 64;
/// Pause before an end that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The keys, with their leases. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Keys {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

struct Shared {
    replica: Replica<Keyspace>,
    queue: mpsc::Sender<Job>,
    clock: Clock<i64>,
    /// The revision that reads show, for those who wait for the next.
    revision: watch::Sender<i64>,
}

/// What is left of a lease.
pub(super) struct Remaining {
    pub(super) left: Duration,
    pub(super) granted_s: i64,
    pub(super) keys: Vec<bytes::Bytes>,
}

impl Keys {
    /// Loads the keys and gives every lease a full period.
    ///
    /// # Errors
    /// When the store cannot be read or holds a damaged record.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let (replica, feed) = Replica::open(store, record::PREFIX, Keyspace::load).await?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let revision = watch::Sender::new(replica.read(|space| space.revision));
        let shared = Arc::new(Shared { replica, queue, clock: Clock::new("etcd leases"), revision });
        shared.replica.read(|space| {
            for (lease, ttl_s) in &space.leases {
                shared.clock.grant(*lease, period(*ttl_s));
            }
        });
        let mut running = JoinSet::new();
        let following = Arc::clone(&shared);
        running.spawn(async move {
            following.replica.follow(feed, |effects| following.tell(&effects)).await;
        });
        running.spawn(write(Arc::clone(&shared), jobs));
        running.spawn(expire(Arc::clone(&shared)));
        Ok(Self { shared, _tasks: Arc::new(running) })
    }

    /// How many keys and leases there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.read(|space| (space.keys.len(), space.leases.len()))
    }

    /// # Errors
    /// A request that is not well formed, or about a revision that is not known.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Fault> {
        check::range(request)?;
        self.read(|space| Draft::new(space).range(request))
    }

    /// # Errors
    /// A request that is not well formed, or about a lease or a key that is not there.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Fault> {
        check::size(&request)?;
        check::put(&request)?;
        let bytes = request.encoded_len();
        self.shared.change(bytes, move |draft| draft.put(&request)).await
    }

    /// # Errors
    /// A request that is not well formed, or about too many keys at once.
    pub async fn delete(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Fault> {
        check::size(&request)?;
        check::delete(&request)?;
        self.shared.change(request.encoded_len(), move |draft| draft.delete(&request)).await
    }

    /// # Errors
    /// A request that is not well formed, or an operation that would be refused alone; then nothing
    /// of it is done.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Fault> {
        check::size(&request)?;
        check::txn(&request)?;
        if !writes(&request) {
            return self.read(|space| Draft::new(space).txn(&request));
        }
        self.shared.change(request.encoded_len(), move |draft| draft.txn(&request)).await
    }

    /// Forgets the past before a revision.
    ///
    /// # Errors
    /// When it is forgotten already or has not come.
    pub fn compact(&self, revision: i64) -> Result<ResponseHeader, Fault> {
        self.shared.replica.adjust(|space| {
            space.compact(revision)?;
            Ok(header(space.revision))
        })
    }

    /// # Errors
    /// When the period is too long, the id is taken or there are too many.
    pub async fn grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Fault> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Fault::Unavailable("the system gives no random bytes".to_owned()))?;
        // etcd's ids are positive.
        let fresh = (i64::from_le_bytes(random) & i64::MAX).max(1);
        self.shared.change(request.encoded_len(), move |draft| draft.grant(&request, fresh)).await
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// When there is no such lease.
    pub async fn revoke(&self, lease: i64) -> Result<ResponseHeader, Fault> {
        self.shared.revoke(lease).await
    }

    /// Starts the period of a lease anew and returns it in seconds; `None` when there is no such lease.
    #[must_use]
    pub fn keep_alive(&self, lease: i64) -> Option<i64> {
        // Not on the clock any more: it is being ended.
        let period = self.shared.clock.renew(&lease)?;
        i64::try_from(period.as_secs()).ok()
    }

    pub(super) fn remaining(&self, lease: i64) -> Option<Remaining> {
        let left = self.shared.clock.left(&lease)?;
        self.read(|space| {
            let granted_s = *space.leases.get(&lease)?;
            Some(Remaining { left, granted_s, keys: space.attached(lease).cloned().collect() })
        })
    }

    pub(super) fn leases(&self) -> Vec<i64> {
        self.read(|space| space.leases.keys().copied().collect())
    }

    /// Looks at the keys. Be brief: nothing is applied meanwhile.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Keyspace) -> T) -> T {
        self.shared.replica.read(look)
    }

    /// The revision that reads show, and its changes.
    pub(super) fn revision(&self) -> watch::Receiver<i64> {
        self.shared.revision.subscribe()
    }
}

impl Shared {
    /// Lets the writer do something; answers when it is durable and visible.
    async fn change<R: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Draft<'_>) -> Result<R, Fault> + Send + 'static,
    ) -> Result<R, Fault> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { work, outcome: None, answer };
        let stopped = || Fault::Unavailable("it has stopped".to_owned());
        self.queue.send(Job { bytes, work: Box::new(waiting) }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    async fn revoke(&self, lease: i64) -> Result<ResponseHeader, Fault> {
        loop {
            let (header, more) = self.change(0, move |draft| draft.revoke(lease)).await?;
            if !more {
                return Ok(header);
            }
        }
    }

    fn tell(&self, effects: &Effects) {
        for (lease, came) in &effects.leases {
            match came {
                Some(ttl_s) => self.clock.grant(*lease, period(*ttl_s)),
                None => self.clock.remove(lease),
            }
        }
        self.revision.send_replace(effects.revision);
    }
}

/// One request in the queue.
struct Job {
    bytes: usize,
    work: Box<dyn Work>,
}

/// A request that somebody waits for.
trait Work: Send {
    /// Puts it on top of a draft; again, on another one, when the first could not be committed.
    fn plan(&mut self, draft: &mut Draft<'_>);
    /// Tells the caller, after the commit or the fault that prevented it.
    fn answer(self: Box<Self>, fault: Option<&Fault>);
}

struct Waiting<R, F> {
    work: F,
    outcome: Option<Result<R, Fault>>,
    answer: oneshot::Sender<Result<R, Fault>>,
}

impl<R: Send, F: Fn(&mut Draft<'_>) -> Result<R, Fault> + Send> Work for Waiting<R, F> {
    fn plan(&mut self, draft: &mut Draft<'_>) {
        self.outcome = Some((self.work)(draft));
    }

    fn answer(self: Box<Self>, fault: Option<&Fault>) {
        let outcome = match fault {
            Some(fault) => Some(Err(fault.clone())),
            None => self.outcome,
        };
        if let Some(outcome) = outcome {
            // A caller that went away does not need its answer.
            let _unheard = self.answer.send(outcome);
        }
    }
}

/// Commits what waits, group by group.
async fn write(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(Job { mut bytes, work }) = jobs.recv().await {
        let mut group = vec![work];
        while group.len() < MAX_GROUP
            && bytes < MAX_GROUP_BYTES
            && let Ok(job) = jobs.try_recv()
        {
            bytes += job.bytes;
            group.push(job.work);
        }
        let written = shared.replica.write(|space| {
            let mut draft = Draft::new(space);
            group.iter_mut().for_each(|work| work.plan(&mut draft));
            Ok::<_, StoreError>(Plan { txn: draft.finish(), value: () })
        });
        let fault = written.await.err().map(|error| Fault::Unavailable(error.to_string()));
        group.into_iter().for_each(|work| work.answer(fault.as_ref()));
    }
}

/// Ends leases whose time is over.
async fn expire(shared: Arc<Shared>) {
    loop {
        let over = shared.clock.over().await;
        let shared = &shared;
        let ends = over.into_iter().map(|lease| async move { (lease, shared.revoke(lease).await) });
        let mut ends = futures_util::stream::iter(ends).buffer_unordered(AT_ONCE);
        while let Some((lease, ended)) = ends.next().await {
            match ended {
                Ok(_) => tracing::info!(lease, "an etcd lease has ended"),
                Err(Fault::LeaseNotFound) => {} // revoked meanwhile
                Err(fault) => {
                    tracing::warn!(lease, %fault, "an etcd lease could not be ended and is tried again");
                    shared.clock.grant(lease, RETRY);
                }
            }
        }
    }
}

fn period(ttl_s: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl_s).unwrap_or(0))
}

/// Whether a transaction may change something.
fn writes(request: &TxnRequest) -> bool {
    let does = |operation: &RequestOp| match &operation.request {
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestTxn(nested)) => writes(nested),
        Some(Request::RequestRange(_)) | None => false,
    };
    request.success.iter().chain(&request.failure).any(does)
}
