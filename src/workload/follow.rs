//! Streams of states: the present one at once, and each that differs from the one told last. A slow reader
//! misses states, never the last one.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use super::{limits, stopping};

pub(super) type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

type Source<S> = watch::Receiver<Option<Arc<S>>>;

/// What makes messages of states.
pub(super) struct Rules<S, T> {
    /// Whether the second is news to who knows the first.
    pub is_news: fn(&S, &S) -> bool,
    /// Whether it may be told.
    pub check: fn(&S) -> Result<(), Status>,
    pub message: fn(&S) -> T,
}

/// What is there now; a sidecar that has just started gets a moment.
///
/// # Errors
/// `UNAVAILABLE` when that was not long enough.
pub(super) async fn current<S>(source: &Source<S>) -> Result<Arc<S>, Status> {
    let mut source = source.clone();
    let found = timeout(limits::FIRST_WAIT, source.wait_for(Option::is_some)).await;
    found.ok().and_then(|found| found.ok()?.clone()).ok_or_else(|| {
        Status::unavailable(
            "the sidecar has nothing for its application yet; its log says why, come again",
        )
    })
}

/// Follows a source until `stop`.
///
/// # Errors
/// As [`current`], and when the present state may not be told.
pub(super) async fn follow<S: Send + Sync + 'static, T: 'static>(
    source: &Source<S>,
    stop: &watch::Receiver<bool>,
    rules: Rules<S, T>,
) -> Result<Responses<T>, Status> {
    let first = current(source).await?;
    (rules.check)(&first)?;
    let follower =
        Follower { first: Some(first), told: None, source: source.clone(), stop: stop.clone(), rules };
    let states = stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(message) => Some((Ok(message), Some(follower))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Box::pin(states))
}

/// One open stream.
struct Follower<S, T> {
    first: Option<Arc<S>>,
    told: Option<Arc<S>>,
    source: Source<S>,
    stop: watch::Receiver<bool>,
    rules: Rules<S, T>,
}

impl<S, T> Follower<S, T> {
    async fn next(&mut self) -> Result<T, Status> {
        let next = match self.first.take() {
            Some(first) => first,
            None => self.changed().await?,
        };
        (self.rules.check)(&next)?;
        let message = (self.rules.message)(&next);
        self.told = Some(next);
        Ok(message)
    }

    async fn changed(&mut self) -> Result<Arc<S>, Status> {
        let Self { told, source, stop, rules, .. } = self;
        let is_next = |now: &Option<Arc<S>>| match (&told, now) {
            (Some(told), Some(now)) => (rules.is_news)(told, now),
            (_, now) => now.is_some(),
        };
        let next = tokio::select! {
            next = source.wait_for(is_next) => next.ok().and_then(|next| next.clone()),
            () = stopping(stop) => None,
        };
        next.ok_or_else(|| Status::unavailable("the sidecar is leaving; come again"))
    }
}
