//! Sessions and locks.

use super::{TEXT, assert_put};
use crate::http::{Answer, Api, PATIENCE};

async fn create(api: &Api, body: &str) -> String {
    let created = api.put("/v1/session/create", body).await.json();
    let id = created["ID"].as_str().unwrap().to_owned();
    assert_eq!((created.as_object().unwrap().len(), id.len()), (1, 36));
    id
}

fn assert_session(answer: &Answer, expected: &str) {
    assert_eq!(answer.shape(), expected);
}

#[tokio::test]
async fn sessions_and_locks_look_as_in_consul() {
    let api = Api::start().await;
    let id = create(&api, r#"{"Name":"s","TTL":"15s"}"#).await;
    let session = r#"[{"ID":"uuid","Name":"s","Node":"n1","LockDelay":15000000000,"Behavior":"release","TTL":"15s","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":0,"ModifyIndex":0}]"#;
    for target in ["/v1/session/list", "/v1/session/node/n1", &format!("/v1/session/info/{id}")] {
        let answer = api.get(target).await;
        assert_session(&answer, session);
        assert_eq!(answer.json()[0]["CreateIndex"].as_u64(), Some(answer.index()));
        assert_eq!(answer.header("x-consul-effective-consistency"), "");
    }
    assert_eq!(api.get("/v1/session/node/n2").await.body, "[]");

    assert_put(&api, &format!("/v1/kv/lock?acquire={id}"), "x", "true").await;
    let lock = api.get("/v1/kv/lock").await.json();
    assert_eq!((lock[0]["LockIndex"].as_u64(), lock[0]["Session"].as_str()), (Some(1), Some(&*id)));
    let fields: Vec<_> = lock[0].as_object().unwrap().keys().cloned().collect();
    let expected = ["LockIndex", "Key", "Flags", "Value", "Session", "CreateIndex", "ModifyIndex"];
    assert_eq!(fields, expected);
    let other = create(&api, "").await;
    assert_put(&api, &format!("/v1/kv/lock?acquire={other}"), "y", "false").await;
    assert_put(&api, &format!("/v1/kv/lock?release={other}"), "y", "false").await;
    assert_put(&api, &format!("/v1/kv/lock?release={id}"), "x", "true").await;
    assert_put(&api, &format!("/v1/kv/lock?acquire={other}"), "y", "true").await;

    assert_session(&api.put(&format!("/v1/session/renew/{id}"), "").await, session);
    assert_put(&api, &format!("/v1/session/destroy/{id}"), "", "true").await;
    assert_put(&api, &format!("/v1/session/destroy/{id}"), "", "true").await;
    let unknown = api.put(&format!("/v1/session/renew/{id}"), "").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (404, TEXT));
    assert_eq!(unknown.body, format!("Session id '{id}' not found"));
    assert_eq!(api.get(&format!("/v1/session/info/{id}")).await.body, "[]");
    api.stop().await;
}

#[tokio::test]
async fn what_stock_clients_send_is_taken() {
    let api = Api::start().await;
    for body in [
        "",
        "{}",
        r#"{"name": "x", "ttl": "15s"}"#,
        r#"{"Name":"x","Node":"","LockDelay":"15s","Behavior":"delete","TTL":"","Checks":["serfHealth"]}"#,
        r#"{"LockDelay":15000000000,"NodeChecks":[],"ServiceChecks":null,"CreateIndex":0}"#,
    ] {
        create(&api, body).await;
    }
    for (body, status, text) in [
        (r#"{"Node":"nope"}"#, 500, "Missing node registration"),
        (r#"{"Checks":["nope"]}"#, 500, "Missing check 'nope' registration"),
        (r#"{"Behavior":"keep"}"#, 500, "Invalid Behavior setting 'keep'"),
        (r#"{"TTL":"1s"}"#, 500, "Invalid Session TTL '1000000000', must be between [10s=24h0m0s]"),
        (r#"{"Foo":1}"#, 400, "Request decode failed: json: unknown field \"Foo\""),
    ] {
        let refused = api.put("/v1/session/create", body).await;
        assert_eq!((refused.status, refused.body.as_str()), (status, text), "{body}");
    }
    for (target, text) in
        [("/v1/session/destroy/", "Missing session"), ("/v1/session/renew/", "Missing session")]
    {
        assert_eq!(api.put(target, "").await.body, text);
    }
    assert_eq!(api.get("/v1/session/info/").await.body, "Missing session");
    assert_eq!(api.get("/v1/session/node/").await.body, "Missing node name");
    api.stop().await;
}

#[tokio::test]
async fn a_lock_is_lost_with_its_check_and_delayed() {
    let api = Api::start().await;
    let web = r#"{"Name":"web","Port":80,"Check":{"TTL":"30s"}}"#;
    assert_eq!(api.put("/v1/agent/service/register", web).await.status, 200);
    assert_eq!(api.put("/v1/agent/check/pass/service:web", "").await.status, 200);
    let holder = create(&api, r#"{"ServiceChecks":[{"ID":"service:web"}],"Behavior":"release"}"#).await;
    let shown = api.get(&format!("/v1/session/info/{holder}")).await.json();
    assert_eq!(shown[0]["ServiceChecks"][0]["ID"], "service:web");
    assert_put(&api, &format!("/v1/kv/leader?acquire={holder}"), "a", "true").await;
    let index = api.get("/v1/kv/leader").await.index();
    let target = format!("/v1/kv/leader?index={index}&wait=10m");
    let (lost, failed) = tokio::join!(
        tokio::time::timeout(PATIENCE, api.get(&target)),
        api.put("/v1/agent/check/fail/service:web", "")
    );
    assert_eq!(failed.status, 200);
    let lost = lost.expect("the loss did not wake the query").json();
    assert_eq!((lost[0]["Session"].as_str(), lost[0]["LockIndex"].as_u64()), (None, Some(1)));
    // The default delay protects the old holder's work.
    let next = create(&api, "").await;
    assert_put(&api, &format!("/v1/kv/leader?acquire={next}"), "b", "false").await;
    let txn = format!(r#"[{{"KV":{{"Verb":"lock","Key":"leader","Session":"{next}"}}}}]"#);
    let refused = api.put("/v1/txn", &txn).await;
    assert_eq!(refused.status, 409);
    assert!(refused.body.contains("due to lock delay"), "{}", refused.body);
    api.stop().await;
}
