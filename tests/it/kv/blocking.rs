//! Blocking queries on a key and on a prefix.

use std::time::{Duration, Instant};

use super::{assert_nothing, assert_put};
use crate::http::{Api, PATIENCE};

#[tokio::test]
async fn a_query_waits_for_its_own_keys() {
    let api = Api::start().await;
    assert_put(&api, "/v1/kv/a/1", "x", "true").await;
    for target in ["/v1/kv/a/2?", "/v1/kv/a/?recurse&", "/v1/kv/a/?keys&"] {
        let index = api.get(target).await.index();
        let waiting = format!("{target}index={index}&wait=10m");
        let (woken, ()) = tokio::join!(tokio::time::timeout(PATIENCE, api.get(&waiting)), async {
            assert_put(&api, "/v1/kv/b", target, "true").await; // not what is waited for
            assert_put(&api, "/v1/kv/a/2", target, "true").await;
        });
        let woken = woken.expect("the change did not wake the query");
        assert!(woken.index() > index && woken.body.contains("a/2"), "{target} {woken:?}");
        // Its end wakes as well, and is not forgotten.
        let index = woken.index();
        let waiting = format!("{target}index={index}&wait=10m");
        let (woken, ()) = tokio::join!(tokio::time::timeout(PATIENCE, api.get(&waiting)), async {
            let gone = api.send("DELETE", "/v1/kv/a/2", &[], "").await;
            assert_eq!(gone.body, "true");
        });
        let woken = woken.expect("the end did not wake the query");
        assert!(woken.index() > index && !woken.body.contains("a/2"), "{target} {woken:?}");
        assert_eq!(api.get(target).await.index(), woken.index());
    }
    let index = api.get("/v1/kv/a/2").await.index();
    let began = Instant::now();
    assert_nothing(&api.get(&format!("/v1/kv/a/2?index={index}&wait=200ms")).await);
    assert!(began.elapsed() >= Duration::from_millis(200));
    api.stop().await;
}

#[tokio::test]
async fn a_shutdown_answers_who_waits_for_a_key() {
    let api = Api::start().await;
    let (index, address) = (api.get("/v1/kv/a").await.index(), api.address);
    let target = format!("/v1/kv/a?index={index}&wait=10m");
    let waiting = tokio::spawn(async move { crate::http::send(address, "GET", &target, "").await });
    // The runtime has one thread and takes connections in order: when this one is answered, the earlier
    // one waits.
    while api.get("/v1/agent/services").await.status != 200 || waiting.is_finished() {}
    api.stop().await;
    assert_nothing(&waiting.await.unwrap());
}
