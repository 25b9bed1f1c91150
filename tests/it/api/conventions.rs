//! Methods, headers, layouts and error texts.

use crate::http::Api;

const TEXT: &str = "text/plain; charset=utf-8";

#[tokio::test]
async fn errors_have_consuls_words() {
    let api = Api::start().await;
    for (method, target, status, body) in [
        ("GET", "/v1/health/service/x?passing=yes", 400, "Invalid value for ?passing"),
        ("GET", "/v1/health/service/x?index=abc", 400, "Invalid index"),
        ("GET", "/v1/health/service/x?index=-1", 400, "Invalid index"),
        ("GET", "/v1/health/service/x?index=1&wait=abc", 400, "Invalid wait time"),
        ("GET", "/v1/health/service/x?index=1&wait=2", 400, "Invalid wait time"),
        ("GET", "/v1/health/service/", 400, "Missing service name"),
        ("GET", "/v1/catalog/service/", 400, "Missing service name"),
        ("GET", "/v1/health/state/", 400, "Missing check state"),
        ("GET", "/v1/health/service/x?dc=dc9", 500, "No path to datacenter"),
        (
            "GET",
            "/v1/health/service/x?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("POST", "/v1/health/service/x", 405, "method POST not allowed"),
        ("GET", "/v1/agent/service/register", 405, "method GET not allowed"),
        ("PUT", "/v1/agent/service/deregister/", 500, "ServiceID missing"),
        ("GET", "/v1/connect/intentions/match?name=web", 500, "required query parameter 'by' not set"),
        (
            "GET",
            "/v1/connect/intentions/match?by=source",
            500,
            "required query parameter 'name' not set",
        ),
        (
            "GET",
            "/v1/connect/intentions/match?by=zzz&name=web",
            500,
            "'by' parameter must be one of 'source' or 'destination'",
        ),
        (
            "GET",
            "/v1/connect/intentions/check?source=a",
            500,
            "required query parameter 'destination' not set",
        ),
        (
            "GET",
            "/v1/connect/intentions/check?destination=a",
            500,
            "required query parameter 'source' not set",
        ),
        (
            "GET",
            "/v1/connect/intentions/nope",
            400,
            "Bad request: failed intention lookup: index error: UUID must be 36 characters",
        ),
    ] {
        let answer = api.send(method, target, &[], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {target}");
        assert_eq!(answer.header("content-type"), TEXT, "{target}");
    }
    api.stop().await;
}

#[tokio::test]
async fn reads_of_the_catalog_have_consuls_headers() {
    let api = Api::start().await;
    for (target, consistency) in [
        ("/v1/catalog/nodes", "leader"),
        ("/v1/catalog/services?stale", "stale"),
        ("/v1/health/state/any?consistent=", "consistent"),
        ("/v1/health/service/x?cached&near=_agent&ns=default&token=t", "leader"),
        ("/v1/connect/intentions", ""),
    ] {
        let answer = api.get(target).await;
        assert!(answer.index() > 0, "{target}");
        assert_eq!(answer.header("x-consul-knownleader"), "true", "{target}");
        assert_eq!(answer.header("x-consul-lastcontact"), "0", "{target}");
        assert_eq!(answer.header("x-consul-effective-consistency"), consistency, "{target}");
        assert_eq!(answer.header("vary"), "Accept-Encoding", "{target}");
    }
    let lost = api.get("/v1/health/service/x?dc=dc9").await;
    assert_eq!((lost.header("x-consul-index"), lost.header("x-consul-knownleader")), ("1", "false"));
    let agent = api.get("/v1/agent/services").await;
    assert_eq!(agent.header("x-consul-index"), "");
    api.stop().await;
}

#[tokio::test]
async fn layouts_and_methods() {
    let api = Api::start().await;
    assert_eq!(api.get("/v1/catalog/datacenters").await.body, r#"["dc1"]"#);
    assert_eq!(api.get("/v1/catalog/datacenters?pretty").await.body, "[\n    \"dc1\"\n]\n");
    assert_eq!(api.get("/v1/agent/services?pretty").await.body, "{}\n");

    let head = api.send("HEAD", "/v1/catalog/datacenters", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), "7");

    let options = api.send("OPTIONS", "/v1/connect/intentions", &[], "").await;
    assert_eq!((options.status, options.header("allow")), (200, "OPTIONS,GET,POST"));
    let refused = api.send("POST", "/v1/catalog/nodes", &[], "").await;
    assert_eq!((refused.status, refused.header("allow")), (405, "OPTIONS,GET"));
    let refused = api.get("/v1/agent/service/register").await;
    assert_eq!(refused.header("allow"), "OPTIONS,PUT");

    let unknown = api.get("/v1/nonexistent").await;
    assert_eq!(
        (unknown.status, unknown.body.as_str(), unknown.header("content-length")),
        (404, "", "0")
    );
    let token = api.send("GET", "/v1/agent/services", &[("X-Consul-Token", "")], "").await;
    assert_eq!(token.status, 200);
    assert_eq!(api.get("/metrics").await.body, "up 1\n");
    api.stop().await;
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_ask() {
    let api = Api::start().await;
    for number in 0..40 {
        let body = format!(r#"{{"Name":"service-with-a-long-name","ID":"s{number}"}}"#);
        assert_eq!(api.put("/v1/agent/service/register", &body).await.status, 200);
    }
    let plain = api.get("/v1/agent/services").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
    let head =
        format!("GET /v1/agent/services HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", api.address);
    let zipped = api.bytes(format!("{head}Accept-Encoding: gzip\r\n\r\n").as_bytes()).await;
    let text = String::from_utf8_lossy(&zipped).to_lowercase();
    assert!(text.contains("content-encoding: gzip"), "{text}");
    assert!(zipped.len() * 4 < plain.body.len(), "{} of {} bytes", zipped.len(), plain.body.len());
    let short = api.send("GET", "/v1/catalog/datacenters", &[("Accept-Encoding", "gzip")], "").await;
    assert_eq!((short.header("content-encoding"), short.body.as_str()), ("", r#"["dc1"]"#));
    let cached = api.get("/v1/health/service/x?cached").await;
    assert_eq!((cached.header("x-cache"), cached.header("age")), ("HIT", "0"));
    api.stop().await;
}
