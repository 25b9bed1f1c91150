//! Bans over HTTP: every way to name one, what is refused, and who asks them.

use serde_json::json;

use crate::http::Api;

const PATH: &str = "/v1/weft/bans";

#[tokio::test]
async fn bans_are_added_shown_and_lifted() {
    let api = Api::dev().await;
    let post = async |body: serde_json::Value| api.send("POST", PATH, &[], &body.to_string()).await;
    assert_eq!(api.get(PATH).await.json(), json!([]));
    let made = post(json!({ "service": "Web", "reason": "its key was on a laptop" })).await.json();
    let id = made["value"].as_str().unwrap().to_owned();
    assert!(id.starts_with("spiffe://") && id.ends_with("/svc/web"), "{made}");
    post(json!({ "enrolment": "4102030405060708" })).await.json();
    post(json!({ "serial": "41:0A" })).await.json();
    // Again, by its other name: the first reason stays.
    assert_eq!(post(json!({ "identity": id, "reason": "x" })).await.json(), made);
    let list = api.get(PATH).await.json();
    let kinds: Vec<_> = list.as_array().unwrap().iter().map(|ban| &ban["kind"]).collect();
    assert_eq!(kinds, ["identity", "enrolment", "serial"]);
    assert_eq!(list[0], made);

    assert_eq!(api.get("/v1/agent/connect/ca/leaf/web").await.status, 403);
    api.get("/v1/agent/connect/ca/leaf/db").await.json();
    let ask = async |serial: &str, service: &str| {
        let uri = id.replace("/web", &format!("/{service}"));
        let body = json!({ "Target": "x", "ClientCertURI": uri, "ClientCertSerial": serial });
        api.send("POST", "/v1/agent/connect/authorize", &[], &body.to_string()).await.json()
    };
    assert_eq!(ask("01", "web").await["Authorized"], false);
    assert_eq!(ask("41:0a", "db").await["Authorized"], false);
    assert_eq!(ask("01", "db").await["Authorized"], true);

    for query in ["service=web", "enrolment=4102030405060708", "serial=410a"] {
        let target = format!("{PATH}?{query}");
        assert_eq!(api.send("DELETE", &target, &[], "").await.json(), true, "{query}");
        assert_eq!(api.send("DELETE", &target, &[], "").await.status, 404, "{query}");
    }
    assert_eq!(api.get(PATH).await.json(), json!([]));
    assert_eq!(ask("41:0a", "web").await["Authorized"], true);
    api.stop().await;
}

#[tokio::test]
async fn what_cannot_be_banned_is_refused_in_words() {
    let api = Api::start().await;
    let domain = api.get("/v1/weft/status").await.json()["trust_domain"].as_str().unwrap().to_owned();
    for body in [
        json!({}),
        json!({ "service": "web", "serial": "41" }),
        json!({ "service": "a b" }),
        json!({ "serial": "4" }),
        json!({ "enrolment": "0102030405060708" }),
        json!({ "identity": "web" }),
        json!({ "identity": format!("spiffe://{domain}") }),
        // Without its servers nobody could lift it again.
        json!({ "identity": format!("spiffe://{domain}/agent/server/dc/dc1/id/n1") }),
        json!({ "identity": "spiffe://other/ns/default/dc/dc1/svc/web" }),
        json!({ "serial": "41", "reason": "x".repeat(257) }),
        json!({ "serial": "41", "colour": "red" }),
    ] {
        let refused = api.send("POST", PATH, &[], &body.to_string()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.body);
        assert!(!refused.body.is_empty());
    }
    assert_eq!(api.send("DELETE", PATH, &[], "").await.status, 400);
    assert_eq!(api.send("PUT", PATH, &[], "{}").await.status, 405);
    api.stop().await;
}
