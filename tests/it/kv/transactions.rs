//! Transactions.

use serde_json::{Value, json};

use super::{TEXT, assert_nothing, assert_put};
use crate::http::Api;

#[tokio::test]
async fn a_transaction_looks_as_in_consul() {
    let api = Api::start().await;
    let body = r#"[{"KV":{"Verb":"set","Key":"k","Value":"aGk="}},{"KV":{"Verb":"get","Key":"k"}}]"#;
    let done = api.put("/v1/txn", body).await;
    let entry = |value: &str| {
        format!(
            r#"{{"KV":{{"LockIndex":0,"Key":"k","Flags":0,"Value":{value},"CreateIndex":0,"ModifyIndex":0}}}}"#
        )
    };
    let expected = format!(r#"{{"Results":[{},{}],"Errors":null}}"#, entry("null"), entry("\"aGk=\""));
    assert_eq!(done.shape(), expected);
    let index = api.get("/v1/kv/k").await.index();
    assert_eq!(done.json()["Results"][1]["KV"]["ModifyIndex"].as_u64(), Some(index));
    assert_eq!(done.header("x-consul-knownleader"), "");

    let read = api.put("/v1/txn", r#"[{"KV":{"Verb":"get","Key":"k"}}]"#).await;
    assert_eq!(read.header("x-consul-knownleader"), "true");
    assert_eq!(read.header("x-consul-index"), "");
    let gone = api.put("/v1/txn", r#"[{"KV":{"Verb":"delete","Key":"k"}}]"#).await;
    assert_eq!(gone.body, r#"{"Results":[],"Errors":null}"#);
    api.stop().await;
}

#[tokio::test]
async fn a_conflict_writes_nothing_and_says_why() {
    let api = Api::start().await;
    assert_put(&api, "/v1/kv/a", "1", "true").await;
    let index = api.get("/v1/kv/a").await.index();
    let operations = json!([
        {"KV": {"Verb": "set", "Key": "new", "Value": "aGk="}},
        {"KV": {"Verb": "cas", "Key": "a", "Value": "aGk=", "Index": index + 7}},
        {"KV": {"Verb": "get", "Key": "none"}},
        {"KV": {"Verb": "check-index", "Key": "a", "Index": 1}},
        {"KV": {"Verb": "check-session", "Key": "a", "Session": "s"}},
        {"KV": {"Verb": "check-not-exists", "Key": "a"}},
        {"KV": {"Verb": "delete-cas", "Key": "a", "Index": 1}},
        {"KV": {"Verb": "unlock", "Key": "a", "Session": "s"}},
        {"KV": {"Verb": "lock", "Key": "a", "Session": "s"}},
    ]);
    let refused = api.put("/v1/txn", &operations.to_string()).await;
    assert_eq!((refused.status, refused.header("content-type")), (409, "application/json"));
    let answer: Value = serde_json::from_str(&refused.body).unwrap();
    assert!(answer["Results"].is_null());
    let errors: Vec<_> = answer["Errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["OpIndex"].as_u64().unwrap(), error["What"].as_str().unwrap()))
        .collect();
    let index = format!("failed index check for key \"a\", current modify index {index} != 1");
    assert_eq!(
        errors,
        [
            (1, "failed to set key \"a\", index is stale"),
            (2, "key \"none\" doesn't exist"),
            (3, &*index),
            (4, "failed session check for key \"a\", current session \"\" != \"s\""),
            (5, "key \"a\" exists"),
            (6, "failed to delete key \"a\", index is stale"),
            (7, "failed to unlock key \"a\", lock isn't held, or is held by another session"),
            (8, "invalid session \"s\""),
        ]
    );
    assert_nothing(&api.get("/v1/kv/new").await);
    api.stop().await;
}

#[tokio::test]
async fn trees_sessions_and_checks_in_one() {
    let api = Api::start().await;
    let session = api.put("/v1/session/create", "").await.json()["ID"].as_str().unwrap().to_owned();
    let operations = json!([
        {"kv": {"verb": "check-not-exists", "key": "t/1"}},
        {"KV": {"Verb": "set", "Key": "t/1", "Value": "MQ==", "Flags": u64::MAX}},
        {"KV": {"Verb": "lock", "Key": "t/2", "Value": "Mg==", "Session": session}},
        {"KV": {"Verb": "check-session", "Key": "t/2", "Session": session}},
        {"KV": {"Verb": "get-tree", "Key": "t/"}},
        {"KV": {"Verb": "get-or-empty", "Key": "none"}},
    ]);
    let done = api.put("/v1/txn", &operations.to_string()).await.json();
    let shown: Vec<_> = done["Results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["KV"]["Key"].as_str().unwrap(), result["KV"]["Value"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("t/1", None),
            ("t/2", None),
            ("t/2", None),
            ("t/1", Some("MQ==")),
            ("t/2", Some("Mg==")),
            ("none", None)
        ]
    );
    assert_eq!(done["Results"][0]["KV"]["Flags"].as_u64(), Some(u64::MAX));
    let all = api.put("/v1/txn", r#"[{"KV":{"Verb":"delete-tree","Key":"t/"}}]"#).await;
    assert_eq!(all.status, 200);
    assert_nothing(&api.get("/v1/kv/t/?recurse").await);
    api.stop().await;
}

#[tokio::test]
async fn faults_by_table() {
    let api = Api::start().await;
    let many = format!("[{}]", [r#"{"KV":{"Verb":"get","Key":"k"}}"#; 65].join(","));
    let half = "QUFB".repeat(100_000);
    let large = format!(
        r#"[{{"KV":{{"Verb":"set","Key":"a","Value":"{half}"}}}},{{"KV":{{"Verb":"set","Key":"b","Value":"{half}"}}}}]"#
    );
    for (body, status, text) in [
        ("{}", 400, "Failed to parse body: json: the body must be a list of operations"),
        ("[", 400, "Failed to parse body: "),
        (r#"[{"Node":{"Verb":"set"}}]"#, 400, "operation 0 is not about a key"),
        (r#"[{"KV":{"Verb":"frob","Key":"k"}}]"#, 400, "unknown KV verb \"frob\""),
        (
            r#"[{"KV":{"Verb":"set","Key":"k","Value":"%"}}]"#,
            400,
            "Failed to parse body: the value of key",
        ),
        (r#"[{"KV":{"Verb":"set","Key":""}}]"#, 400, "operation 0: Must provide key"),
        (
            r#"[{"KV":{"Verb":"set","Key":"k","Nope":1}}]"#,
            400,
            "Request decode failed: json: unknown field",
        ),
        (&many, 413, "Transaction contains too many operations (65 > 64)"),
        (&large, 413, "Cumulative size of key data is too large (600000 > 524288 bytes)"),
    ] {
        let refused = api.put("/v1/txn", body).await;
        assert_eq!((refused.status, refused.header("content-type")), (status, TEXT), "{:.60}", body);
        assert!(refused.body.starts_with(text), "{:.60}: {}", body, refused.body);
    }
    assert_eq!(api.get("/v1/kv/?keys").await.body, "[]");
    // Events are not served; clients that probe for them get a plain no.
    assert_eq!(api.get("/v1/event/list").await.status, 404);
    api.stop().await;
}
