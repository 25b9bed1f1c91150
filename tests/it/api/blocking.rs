//! Blocking queries: what they wait for, and for how long.

use std::time::{Duration, Instant};

use crate::http::{Api, PATIENCE};

async fn register(api: &Api, name: &str) {
    let body = format!(r#"{{"Name":"{name}","Port":80}}"#);
    assert_eq!(api.put("/v1/agent/service/register", &body).await.status, 200);
}

#[tokio::test]
async fn a_change_wakes_who_waits_for_it() {
    let api = Api::start().await;
    register(&api, "web").await;
    let index = api.get("/v1/health/service/api").await.index();
    let target = format!("/v1/health/service/api?index={index}&wait=10m");
    let (woken, ()) = tokio::join!(tokio::time::timeout(PATIENCE, api.get(&target)), async {
        register(&api, "web2").await; // not what is waited for
        register(&api, "api").await;
    });
    let woken = woken.expect("the change did not wake the query");
    assert!(woken.index() > index);
    assert_eq!(woken.json()[0]["Service"]["Service"], "api");
    api.stop().await;
}

#[tokio::test]
async fn the_index_is_about_the_result() {
    let api = Api::start().await;
    register(&api, "web").await;
    let index = |target: &'static str| async { api.get(target).await.index() };
    let (service, services) =
        (index("/v1/health/service/web").await, index("/v1/catalog/services").await);
    register(&api, "api").await;
    assert_eq!(index("/v1/health/service/web").await, service);
    assert!(index("/v1/catalog/services").await > services);
    register(&api, "web").await; // identical
    assert_eq!(index("/v1/health/service/web").await, service);
    api.stop().await;
}

#[tokio::test]
async fn waits_end_when_asked_with_some_jitter() {
    let api = Api::start().await;
    register(&api, "web").await;
    let index = api.get("/v1/health/service/web").await.index();
    for ahead in [0, 1000] {
        let begun = Instant::now();
        let target = format!("/v1/health/service/web?index={}&wait=320ms", index + ahead);
        let answer = api.get(&target).await;
        assert!(begun.elapsed() >= Duration::from_millis(320), "{:?}", begun.elapsed());
        assert_eq!(answer.index(), index);
        assert_eq!(answer.json().as_array().map(Vec::len), Some(1));
    }
    for past in ["", "?index=0&wait=10m", "?index=1&wait=10m"] {
        let target = format!("/v1/health/service/web{past}");
        let answer =
            tokio::time::timeout(PATIENCE, api.get(&target)).await.expect("did not answer at once");
        assert_eq!(answer.index(), index);
    }
    api.stop().await;
}

#[tokio::test]
async fn a_shutdown_answers_waiting_queries() {
    let api = Api::start().await;
    register(&api, "web").await;
    let index = api.get("/v1/catalog/services").await.index();
    let address = api.address;
    let waiting = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET /v1/catalog/services?index={index} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    // The runtime has one thread and takes connections in order: when this one is answered, the
    // earlier one waits.
    while api.get("/v1/agent/services").await.status != 200 || waiting.is_finished() {}
    api.stop().await;
    let text = waiting.await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(text.contains(r#"{"web":[]}"#), "{text}");
}

#[tokio::test]
async fn one_write_wakes_all_who_wait() {
    let api = Api::start().await;
    register(&api, "web").await;
    let index = api.get("/v1/catalog/services").await.index();
    let target = format!("/v1/catalog/services?index={index}&wait=10m");
    let waiting = futures_util::future::join_all((0..200).map(|_| api.get(&target)));
    let write = async {
        // Connections are taken in order: when this one is answered, the others wait.
        api.get("/v1/agent/services").await;
        register(&api, "api").await;
    };
    let all = async { tokio::join!(waiting, write).0 };
    let woken = tokio::time::timeout(PATIENCE, all).await.expect("not all were woken");
    assert!(woken.iter().all(|answer| answer.index() > index && answer.body.contains("api")));
    api.stop().await;
}
