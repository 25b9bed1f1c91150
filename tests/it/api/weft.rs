//! Weft's own endpoints.

use std::time::{Duration, SystemTime};

use serde_json::json;
use weft::catalog::proxies::ProxyStatus;
use weft::model::{InstanceId, NodeName, Position, ServiceName};

use crate::http::Api;

#[tokio::test]
async fn verdicts_name_their_rule() {
    let api = Api::start().await;
    let target = "/v1/weft/intention/check?source=web&destination=db";
    assert_eq!(
        api.get(target).await.json(),
        json!({"source": "web", "destination": "db", "allowed": true, "audited": false, "rule": null,
               "reason": "default policy allow"})
    );
    api.put("/v1/connect/intentions/exact?source=*&destination=db", r#"{"Action":"deny"}"#).await;
    assert_eq!(
        api.get(target).await.json(),
        json!({"source": "web", "destination": "db", "allowed": false, "audited": false,
               "rule": {"source": "*", "destination": "db", "precedence": 8},
               "reason": "intention * -> db deny (precedence 8)"})
    );
    let missing = api.get("/v1/weft/intention/check?source=web").await;
    assert_eq!(
        (missing.status, missing.body.as_str()),
        (400, "required query parameter 'destination' not set")
    );
    api.stop().await;
}

#[tokio::test]
async fn the_status_counts_applications_checks_and_sidecars() {
    let api = Api::start().await;
    api.put(
        "/v1/agent/service/register",
        r#"{"Name":"web","Port":1,"Tags":["b","a"],"Connect":{"SidecarService":{}}}"#,
    )
    .await;
    let left = Duration::from_secs(3600);
    api.catalog.update_proxy(ProxyStatus {
        node: NodeName::new("n1").unwrap(),
        instance: InstanceId::new("web").unwrap(),
        service: ServiceName::new("web").unwrap(),
        version: "0.1.0".to_owned(),
        connected: true,
        since: SystemTime::UNIX_EPOCH,
        acknowledged: Position { epoch: 255, revision: 3 },
        refused: Vec::new(),
        leaf_not_after: Some(SystemTime::now() + left),
        draining: false,
    });
    let services = api.get("/v1/weft/services").await.json();
    assert_eq!(
        services,
        json!([{"name": "web", "instances": 1, "passing": 1, "warning": 0, "critical": 0, "meshed": 1,
                "tags": ["a", "b"]}])
    );
    let status = api.get("/v1/weft/status").await.json();
    assert_eq!((&status["services"], &status["instances"]), (&json!(1), &json!(1)));
    assert_eq!(status["checks"], json!({"passing": 1, "warning": 0, "critical": 2}));
    assert_eq!(status["proxies"], json!({"connected": 1, "disconnected": 0, "refusing": 0}));
    assert_eq!((&status["node"], &status["default_policy"]), (&json!("n1"), &json!("allow")));

    let proxy = api.get("/v1/weft/proxies").await.json()[0].clone();
    assert_eq!(proxy["since"], "1970-01-01T00:00:00Z");
    assert_eq!(proxy["acknowledged"], json!({"epoch": "00000000000000ff", "revision": 3}));
    let seconds = proxy["leaf_seconds_left"].as_i64().unwrap();
    assert!((3590..=3600).contains(&seconds), "{seconds}");
    api.stop().await;
}

#[tokio::test]
async fn tokens_are_made_within_limits() {
    let api = Api::start().await;
    let post = |body: &'static str| api.send("POST", "/v1/weft/tokens", &[], body);
    let made = post(r#"{"services":["web"],"ttl":"10m","uses":1}"#).await;
    assert!(made.json()["token"].as_str().unwrap().starts_with("wt1."));
    assert_eq!(made.header("cache-control"), "no-store");
    assert_eq!(post(r#"{"services":["web"]}"#).await.status, 200);
    for body in [
        "{}",
        r#"{"services":[]}"#,
        r#"{"services":["a b"]}"#,
        r#"{"services":["web"],"ttl":"25h"}"#,
        r#"{"services":["web"],"ttl":"0s"}"#,
        r#"{"services":["web"],"ttl":"10"}"#,
        r#"{"services":["web"],"uses":0}"#,
        r#"{"services":["web"],"uses":-1}"#,
        r#"{"services":["web"],"use":1}"#,
        r#"{"services":"web"}"#,
        "[]",
    ] {
        let refused = post(body).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.body);
        assert!(!refused.body.is_empty());
    }
    assert_eq!(api.get("/v1/weft/tokens").await.status, 405);
    api.stop().await;
}
