//! Blocking queries: wait until the subject has changed, then read it.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;

use super::answers::{Given, Question};
use super::error::ApiError;
use super::filter::{Filter, Schema};
use super::query::{Consistency, Params, ReadOptions};
use super::reply::{self, Layout};
use super::{Index, Shared};
use crate::catalog::Topic;
use crate::kv::Subject;

/// A read of the catalog or of keys that has waited as long as it was asked to. The index was taken before the
/// data is read: whoever waits on it next can only see too much, never miss a change.
pub(super) struct Read {
    index: Index,
    consistency: Consistency,
    layout: Layout,
    cached: bool,
    /// The caller takes it compressed.
    zipped: bool,
}

impl Read {
    /// Checks the parameters and waits until one of the topics passes the caller's index.
    pub(super) async fn begin(
        app: &Shared,
        params: &Params,
        topics: &[Topic],
    ) -> Result<Self, ApiError> {
        Self::of(
            app,
            params,
            || current(app, topics),
            async |index| any_change(app, topics, index).await,
        )
        .await
    }

    /// As [`Self::begin`], for keys and sessions.
    pub(super) async fn begin_kv(
        app: &Shared,
        params: &Params,
        subject: &Subject,
    ) -> Result<Self, ApiError> {
        let kv = &app.state.kv;
        Self::of(app, params, || kv.index(subject), async |index| kv.changed(subject, index).await).await
    }

    /// Waits until `current` is past the caller's index; `changed` ends when it may be.
    async fn of(
        app: &Shared,
        params: &Params,
        current: impl Fn() -> Index,
        changed: impl AsyncFnOnce(Index),
    ) -> Result<Self, ApiError> {
        let options = params.read_options(&app.state.catalog.settings().datacenter)?;
        let mut index = current();
        if options.must_wait(index) {
            hold(app, &options, pin!(changed(options.index))).await;
            index = current();
        }
        let cached = params.first("cached").is_some();
        let (layout, zipped) = (params.layout, params.zipped);
        Ok(Self { index, consistency: options.consistency, layout, cached, zipped })
    }

    /// As [`Self::begin`] for an answer whose items can be filtered. A bad filter is told before the
    /// wait, and after the faults of other parameters.
    pub(super) async fn begin_filtered(
        app: &Shared,
        params: &Params,
        topics: &[Topic],
        schema: Schema,
    ) -> Result<(Self, Filter), ApiError> {
        params.read_options(&app.state.catalog.settings().datacenter)?;
        let filter = params.filter(schema).map_err(ApiError::with_index)?;
        Ok((Self::begin(app, params, topics).await?, filter))
    }

    pub(super) const fn index(&self) -> Index {
        self.index
    }

    /// The answer, with Consul's four headers.
    pub(super) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Response {
        self.complete(self.json_without_consistency(value))
    }

    /// Adds what only some endpoints tell.
    fn complete(&self, mut response: Response) -> Response {
        reply::add_consistency(response.headers_mut(), self.consistency);
        if self.cached {
            reply::add_cache_hit(response.headers_mut());
        }
        response
    }

    /// The answer of an endpoint that does not tell its consistency.
    pub(super) fn json_without_consistency<T: Serialize + ?Sized>(&self, value: &T) -> Response {
        self.with_index(reply::json(self.layout, value))
    }

    /// The body that [`Self::kept`] answers with.
    pub(super) fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes, ApiError> {
        reply::encoded(self.layout, value)
    }

    /// As [`Self::json`], with a body that was made for the same question before if nothing has changed
    /// since, and else with the one that `make` makes.
    pub(super) fn kept(
        &self,
        app: &Shared,
        question: Question,
        make: impl FnOnce() -> Result<Bytes, ApiError>,
    ) -> Result<Response, ApiError> {
        // Before the data is read: an answer that is newer than its edition is kept for nobody.
        let edition = app.state.catalog.edition(question.topic());
        let response = match app.answers.give(question, edition, self.zipped, make)? {
            Given::Plain(body) => reply::of_json(body),
            Given::Zipped(body) => reply::of_zipped_json(body),
        };
        Ok(self.complete(self.with_index(response)))
    }

    /// 404 with the headers and nothing else, so that the caller can wait for what is not there.
    pub(super) fn nothing(&self) -> Response {
        let mut response = reply::empty();
        *response.status_mut() = StatusCode::NOT_FOUND;
        self.with_index(response)
    }

    /// Any other answer with Consul's headers but for the consistency.
    pub(super) fn with_index(&self, mut response: Response) -> Response {
        reply::add_index(&mut response, self.index, true);
        response
    }
}

/// Waits until one of the topics passes `index`. Nearly all queries wait for one topic, and thousands may
/// wait: that case gathers nothing.
async fn any_change(app: &Shared, topics: &[Topic], index: Index) {
    let wait = |topic| app.state.catalog.changed(topic, index);
    if let [only] = topics {
        wait(only).await;
        return;
    }
    let mut waits: FuturesUnordered<_> = topics.iter().map(wait).collect();
    waits.next().await;
}

/// Waits for a change, at most as long as asked for and not beyond the server's own end. The change is
/// borrowed: by value it would take its room twice in what thousands of queries keep.
pub(super) async fn hold(
    app: &Shared,
    options: &ReadOptions,
    change: Pin<&mut impl Future<Output = ()>>,
) {
    let mut draining = app.draining.clone();
    tokio::select! {
        () = change => {}
        () = tokio::time::sleep(options.wait + jitter(options.wait, random())) => {}
        // An error means that the server is gone, which ends the wait as well.
        _ = draining.wait_for(|draining| *draining) => {}
    }
}

fn current(app: &Shared, topics: &[Topic]) -> Index {
    topics.iter().map(|topic| app.state.catalog.index(topic)).max().unwrap_or(1)
}

/// Up to a sixteenth of the wait, so that many watchers of one thing do not come back together.
fn jitter(wait: Duration, random: u64) -> Duration {
    let most = u64::try_from((wait / 16).as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % most.saturating_add(1))
}

/// A number nobody relies on: the keys of a new hasher are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn jitter_is_at_most_a_sixteenth(wait_ms in 0u64..600_000, random: u64) {
            let wait = Duration::from_millis(wait_ms);
            prop_assert!(jitter(wait, random) <= wait / 16);
        }
    }

    #[test]
    fn jitter_varies() {
        let wait = Duration::from_secs(16);
        assert_eq!(jitter(wait, 0), Duration::ZERO);
        assert_eq!(jitter(wait, 1_000_000_000), Duration::from_secs(1));
    }
}
