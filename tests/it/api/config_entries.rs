//! Configuration entries: one view of the intentions, and a refusal of what would do nothing.

use serde_json::json;

use crate::http::Api;

const ENTRY: &str = "/v1/config/service-intentions/api";

#[tokio::test]
async fn an_entry_is_a_view_of_the_intentions() {
    let api = Api::start().await;
    let rule = r#"{"SourceName":"job","DestinationName":"api","Action":"deny"}"#;
    let id = api.send("POST", "/v1/connect/intentions", &[], rule).await.json()["ID"].clone();
    let body = r#"{"kind":"service-intentions","name":"api","sources":[
        {"name":"*","action":"deny"},{"name":"job","action":"allow","description":"d"}]}"#;
    assert_eq!(api.put("/v1/config", body).await.body, "true");
    let entry = api.get(ENTRY).await;
    let sources = json!([
        { "Name": "job", "Action": "allow", "Precedence": 9, "Type": "consul", "Description": "d" },
        { "Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul" },
    ]);
    assert_eq!(entry.json()["Sources"], sources);
    let rules = api.get("/v1/connect/intentions").await.json();
    assert_eq!((&rules[0]["ID"], &rules[0]["Action"]), (&id, &"allow".into()), "the rule keeps its id");
    assert_eq!(api.get("/v1/config/service-intentions").await.json().as_array().unwrap().len(), 1);

    let modified = entry.json()["ModifyIndex"].as_u64().unwrap();
    let cas = |index: u64| format!("/v1/config?cas={index}");
    assert_eq!(api.put(&cas(modified - 1), body).await.body, "false");
    assert_eq!(api.put(&cas(0), body).await.body, "false");
    assert_eq!(api.put(&cas(modified), body).await.body, "true");
    assert_eq!(api.get(ENTRY).await.json()["ModifyIndex"], modified, "the same again is no change");

    let one =
        r#"{"Kind":"service-intentions","Name":"api","Sources":[{"Name":"job","Action":"allow"}]}"#;
    assert_eq!(api.put("/v1/config", one).await.body, "true");
    assert_eq!(api.get("/v1/connect/intentions").await.json().as_array().unwrap().len(), 1);
    assert_eq!(api.send("DELETE", ENTRY, &[], "").await.body, "{}");
    assert_eq!(api.send("DELETE", ENTRY, &[], "").await.body, "{}", "also when there is none");
    assert_eq!(api.get("/v1/connect/intentions").await.body, "[]");
    let gone = api.get(ENTRY).await;
    let text = r#"Config entry not found for "service-intentions" / "api""#;
    assert_eq!((gone.status, gone.body.as_str()), (404, text));
    api.stop().await;
}

#[tokio::test]
async fn what_would_do_nothing_is_not_kept() {
    let api = Api::start().await;
    for (body, status, text) in [
        (
            r#"{"Kind":"bogus","Name":"web"}"#,
            400,
            "Bad request: Request decoding failed: invalid config entry kind: bogus",
        ),
        (
            r#"{"Name":"web"}"#,
            400,
            "Bad request: Request decoding failed: Payload does not contain a kind/Kind key at the top level",
        ),
        (r#"{"Kind":"service-router","Name":"web"}"#, 400, "service-router has no effect in this mesh"),
        (
            r#"{"Kind":"service-intentions","Name":"web","Sources":[{"Name":"a","Permissions":[{}]}]}"#,
            400,
            "Permissions is not supported by this server",
        ),
        (
            r#"{"Kind":"service-intentions","Name":"web","Sources":[{"Name":"a*","Action":"x"}]}"#,
            500,
            "2 errors occurred:\n\t* Sources.Name: wildcard character '*' cannot be used with partial values\n",
        ),
    ] {
        let answer = api.put("/v1/config", body).await;
        assert_eq!((answer.status, answer.body.starts_with(text)), (status, true), "{answer:?}");
    }
    assert_eq!(api.get("/v1/config/service-defaults").await.body, "[]");
    let unknown = api.get("/v1/config/bogus").await;
    assert_eq!((unknown.status, unknown.body.as_str()), (500, "invalid config entry kind: bogus"));
    assert_eq!(api.get("/v1/config").await.header("allow"), "OPTIONS,PUT");
    api.stop().await;
}
