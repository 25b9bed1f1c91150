//! Answers that are kept: never older than the catalog, and told apart by all they depend on.

use std::io::Read;

use crate::access::routes::{OPERATOR, closed, token};
use crate::http::Api;

/// Asks for everything that is kept, twice: as ever, and with a parameter nobody sent before, whose answer
/// has to be made. Both must be the same.
async fn agree(api: &Api, step: usize, after: &str) {
    for target in [
        "/v1/health/service/web?",
        "/v1/health/service/web?passing",
        "/v1/health/service/web?pretty",
        "/v1/health/service/web?tag=v1",
        "/v1/health/service/web?filter=Service.Port==81",
        "/v1/health/connect/web?",
        "/v1/catalog/service/web?",
        "/v1/catalog/connect/web?",
    ] {
        let (kept, made) = (api.get(target).await, api.get(&format!("{target}&made={step}")).await);
        assert_eq!(kept.status, 200, "{target}: {kept:?}");
        assert_eq!((kept.index(), kept.body), (made.index(), made.body), "{target} after {after}");
    }
}

#[tokio::test]
async fn every_write_is_seen_at_once() {
    let api = Api::start().await;
    let register = "/v1/agent/service/register";
    let web = r#"{"Name":"web","ID":"w1","Port":80,"Check":{"TTL":"1h"}}"#;
    let tagged = r#"{"Name":"web","ID":"w1","Port":81,"Tags":["v1"],"Check":{"TTL":"1h"}}"#;
    let sidecar = r#"{"Name":"web-proxy","Kind":"connect-proxy","Port":82,
        "Proxy":{"DestinationServiceName":"web","DestinationServiceID":"w1"}}"#;
    let node = r#"{"Node":"n2","Address":"10.0.0.1","Service":{"Service":"web","Port":83}}"#;
    let moved = r#"{"Node":"n2","Address":"10.0.0.2"}"#;
    let critical = r#"{"Node":"n2","SkipNodeUpdate":true,"Check":{"Name":"up","Status":"critical"}}"#;
    agree(&api, 0, "nothing").await;
    let writes = [
        (register, web),
        ("/v1/agent/check/pass/service:w1?note=one", ""),
        ("/v1/agent/check/pass/service:w1?note=two", ""),
        ("/v1/agent/check/warn/service:w1", ""),
        (register, tagged),
        (register, sidecar),
        ("/v1/catalog/register", node),
        ("/v1/catalog/register", moved),
        ("/v1/catalog/register", critical),
        ("/v1/agent/maintenance?enable=true", ""),
        ("/v1/agent/maintenance?enable=false", ""),
        ("/v1/agent/service/deregister/w1", ""),
        ("/v1/catalog/deregister", r#"{"Node":"n2"}"#),
        (register, web),
    ];
    for (step, (target, body)) in writes.into_iter().enumerate() {
        let written = api.put(target, body).await;
        assert_eq!(written.status, 200, "{target} {body}: {}", written.body);
        agree(&api, step + 1, &format!("{target} {body}")).await;
    }
    api.stop().await;
}

#[tokio::test]
async fn an_output_that_moves_no_index_is_shown() {
    let api = Api::start().await;
    api.put("/v1/agent/service/register", r#"{"Name":"web","Check":{"TTL":"1h"}}"#).await;
    for note in ["one", "two", "three"] {
        api.put(&format!("/v1/agent/check/pass/service:web?note={note}"), "").await;
        let shown = api.get("/v1/health/service/web").await.json();
        let checks = shown[0]["Checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["CheckID"] == "service:web").unwrap();
        assert_eq!(check["Output"], note);
    }
    api.stop().await;
}

#[tokio::test]
async fn a_compressed_answer_says_the_same_as_a_plain_one() {
    let api = Api::start().await;
    for number in 0..20 {
        let body = format!(r#"{{"Name":"web","ID":"w{number}","Check":{{"TTL":"1h"}}}}"#);
        assert_eq!(api.put("/v1/agent/service/register", &body).await.status, 200);
    }
    for note in ["one", "two"] {
        api.put(&format!("/v1/agent/check/pass/service:w7?note={note}"), "").await;
        let plain = api.get("/v1/health/service/web").await;
        assert!(plain.body.contains(note) && plain.body.len() > 10_000, "{}", plain.body);
        for made in ["", "?made=1"] {
            let zipped = zipped(&api, &format!("/v1/health/service/web{made}")).await;
            assert_eq!(zipped, plain.body, "{note}{made}");
        }
        assert_eq!(api.get("/v1/health/service/web").await, plain);
    }
    api.stop().await;
}

/// The body of an answer that came compressed.
async fn zipped(api: &Api, target: &str) -> String {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n",
        api.address
    );
    let answer = api.bytes(request.as_bytes()).await;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    assert!(
        head.contains("\r\ncontent-encoding: gzip") && head.contains("\r\nvary: accept-encoding"),
        "{head}"
    );
    assert!(head.contains("\r\nx-consul-index: "), "{head}");
    let mut body = String::new();
    flate2::read::GzDecoder::new(&answer[end + 4..]).read_to_string(&mut body).unwrap();
    body
}

#[tokio::test]
async fn headers_are_each_requests_own() {
    let api = Api::start().await;
    api.put("/v1/agent/service/register", r#"{"Name":"web"}"#).await;
    let target = "/v1/health/service/web";
    let first = api.get(target).await;
    for (parameter, consistency, cache) in [
        ("", "leader", ""),
        ("?stale", "stale", ""),
        ("?cached", "leader", "HIT"),
        ("?consistent", "consistent", ""),
    ] {
        let answer = api.get(&format!("{target}{parameter}")).await;
        assert_eq!(answer.body, first.body, "{parameter}");
        let found = (answer.header("x-consul-effective-consistency"), answer.header("x-cache"));
        assert_eq!(found, (consistency, cache), "{parameter}");
    }
    // The index moves for everybody when the last instance of any service goes; the empty list stays.
    let nobody = api.get("/v1/health/service/nobody").await;
    api.put("/v1/agent/service/deregister/web", "").await;
    let still = api.get("/v1/health/service/nobody").await;
    assert_eq!((still.body.as_str(), nobody.body.as_str()), ("[]", "[]"));
    assert!(still.index() > nobody.index());
    for fault in ["?filter=Nothing==1", "?dc=other", "?passing=maybe", "?index=x"] {
        let answer = api.get(&format!("{target}{fault}")).await;
        assert!(answer.status >= 400, "{fault}: {answer:?}");
    }
    api.stop().await;
}

#[tokio::test]
async fn one_who_waits_is_told_what_came_and_not_what_was_kept() {
    let api = Api::start().await;
    let target = "/v1/health/service/web";
    for step in 0..5_u16 {
        let kept = api.get(target).await;
        let waiting = format!("{target}?wait=20s&index={}", kept.index());
        let body = format!(r#"{{"Name":"web","Port":{}}}"#, 1000 + step);
        let (woken, written) =
            tokio::join!(api.get(&waiting), api.put("/v1/agent/service/register", &body));
        assert_eq!(written.status, 200);
        assert_eq!(woken.json()[0]["Service"]["Port"], 1000 + step);
        assert!(woken.index() > kept.index());
    }
    api.stop().await;
}

#[tokio::test]
async fn nothing_is_given_from_memory_to_one_who_may_not_ask() {
    let api = closed().await;
    let operator = [("X-Consul-Token", OPERATOR)];
    let body = r#"{"Name":"secret"}"#;
    assert_eq!(api.send("PUT", "/v1/agent/service/register", &operator, body).await.status, 200);
    let stranger = token(&api, &["kv:read"]).await;
    for _ in 0..2 {
        let target = "/v1/health/service/secret";
        let allowed = api.send("GET", target, &operator, "").await;
        assert!(allowed.status == 200 && allowed.body.contains("secret"), "{allowed:?}");
        for refused in
            [vec![], vec![("X-Consul-Token", stranger.as_str())], vec![("X-Consul-Token", "wrong")]]
        {
            let answer = api.send("GET", target, &refused, "").await;
            assert!(answer.status == 403 && !answer.body.contains("\"Service\""), "{answer:?}");
        }
        let in_query = format!("{target}?token={stranger}");
        assert_eq!(api.get(&in_query).await.status, 403);
        assert_eq!(api.get(&format!("{target}?token={OPERATOR}")).await.body, allowed.body);
    }
    api.stop().await;
}
