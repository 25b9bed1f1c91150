//! Keeps the keys in step with the store and with the time, on every server alike: one wins each change,
//! and the others follow it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{KEY, Keys, damaged};
use crate::ca::CaError;
use crate::ca::seal::Keyring;
use crate::model::{JwtBundle, TrustDomain};
use crate::store::{Op, Outcome, Revision, Store, StoreError, Txn};

/// How often the time is looked at: keys live for weeks.
const TICK: Duration = Duration::from_secs(60);
/// How often a lost race may be repeated before it is an error; each loss means that another server did it.
const ATTEMPTS: usize = 4;

/// The keys in use.
pub(in crate::ca) struct Keeper {
    keys: Arc<ArcSwap<Keys>>,
    bundle: watch::Receiver<Arc<JwtBundle>>,
    follower: AbortHandle,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Keeper {
    /// Loads the keys, makes the first one when there is none, and follows the store from then on. Must be
    /// called on a tokio runtime.
    pub(in crate::ca) async fn open(
        store: Arc<dyn Store>,
        ring: Keyring,
        trust_domain: TrustDomain,
    ) -> Result<Self, CaError> {
        let (keys, revision) = maintain(&*store, &ring, SystemTime::now()).await?;
        let (sink, bundle) = watch::channel(Arc::new(keys.bundle(&trust_domain)));
        let keys = Arc::new(ArcSwap::from_pointee(keys));
        let follower = Follower { store, ring, trust_domain, keys: Arc::clone(&keys), sink };
        let follower = tokio::spawn(follower.run(revision)).abort_handle();
        Ok(Self { keys, bundle, follower })
    }

    pub(super) fn bundle(&self) -> watch::Receiver<Arc<JwtBundle>> {
        self.bundle.clone()
    }

    pub(super) fn sign(&self, claims: &serde_json::Value, now: SystemTime) -> Result<String, CaError> {
        let keys = self.keys.load();
        keys.active(now).ok_or_else(|| damaged("it has no key"))?.sign(claims)
    }
}

/// The keys in `store`, after whatever the time asks for, and the revision at which they were read. Keys
/// that are not sealed as `ring` would are written anew.
pub(super) async fn maintain(
    store: &dyn Store,
    ring: &Keyring,
    now: SystemTime,
) -> Result<(Keys, Revision), CaError> {
    for _ in 0..ATTEMPTS {
        let image = store.load(KEY).await?;
        let entry = image.entries.iter().find(|entry| entry.key == KEY);
        let wanted = match entry {
            Some(entry) => {
                let (known, is_current) = Keys::decode(&entry.value, ring)?;
                match known.step(now)? {
                    Some(next) => next,
                    None if is_current => return Ok((known, image.revision)),
                    None => known,
                }
            }
            None => Keys::create(now)?,
        };
        let modified = entry.map_or(0, |entry| entry.modified);
        let txn = Txn {
            conditions: vec![(KEY.to_owned(), modified)],
            ops: vec![Op::Put { key: KEY.to_owned(), value: wanted.encode(ring)? }],
        };
        if let Outcome::Committed(_) = store.commit(txn).await? {
            tracing::info!(
                version = wanted.version,
                keys = wanted.keys.len(),
                "keys for tokens changed"
            );
        }
        // Whether this server or another did it: what counts is what the store has now.
    }
    Err(StoreError::Contended.into())
}

struct Follower {
    store: Arc<dyn Store>,
    ring: Keyring,
    trust_domain: TrustDomain,
    keys: Arc<ArcSwap<Keys>>,
    sink: watch::Sender<Arc<JwtBundle>>,
}

impl Follower {
    /// Runs for as long as the keeper lives.
    async fn run(self, mut revision: Revision) {
        loop {
            self.wait(revision).await;
            match maintain(&*self.store, &self.ring, SystemTime::now()).await {
                Ok((keys, at)) => {
                    revision = at;
                    self.adopt(keys);
                }
                Err(error) => {
                    tracing::error!(%error, "the keys for tokens cannot be renewed; the last known ones stay");
                    sleep(TICK).await;
                }
            }
        }
    }

    /// Until the keys change after `revision`, or it is time to look at the clock.
    async fn wait(&self, revision: Revision) {
        let changed = async {
            let Ok(mut commits) = self.store.watch(KEY, revision).await else { return };
            while let Ok(commit) = commits.recv().await {
                if commit.changes.iter().any(|(key, _)| key == KEY) {
                    return;
                }
            }
            // The store has stopped.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = changed => {}
            () = sleep(TICK) => {}
        }
    }

    fn adopt(&self, keys: Keys) {
        if keys.version <= self.keys.load().version {
            return;
        }
        let news = Arc::new(keys.bundle(&self.trust_domain));
        self.keys.store(Arc::new(keys));
        self.sink.send_replace(news);
    }
}
