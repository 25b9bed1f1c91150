//! Intentions through the legacy API and by name: one table, two views.

use serde_json::json;

use crate::http::{Answer, Api};

async fn create(api: &Api, body: &str) -> Answer {
    api.send("POST", "/v1/connect/intentions", &[], body).await
}

#[tokio::test]
async fn the_legacy_api_goes_as_in_consul() {
    let api = Api::start().await;
    let first = r#"{"SourceName":"web","DestinationName":"database","SourceType":"consul","Action":"deny","Description":"no","Meta":{"a":"b"}}"#;
    let id = create(&api, first).await.json()["ID"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 36);
    let again = create(&api, first).await;
    let text = format!(
        "duplicate intention found: DENY default/web => default/database (ID: {id}, Precedence: 9)"
    );
    assert_eq!((again.status, again.body), (500, text));
    let wild = create(&api, r#"{"SourceName":"web*","DestinationName":"*","Action":"deny"}"#).await;
    let text = "1 error occurred:\n\t* SourceName: wildcard character '*' cannot be used with partial values\n\n";
    assert_eq!((wild.status, wild.body.as_str()), (500, text));
    for body in [
        r#"{"SourceName":"*","DestinationName":"database","Action":"allow"}"#,
        r#"{"SourceName":"*","DestinationName":"*","Action":"deny"}"#,
    ] {
        assert_eq!(create(&api, body).await.status, 200);
    }

    let one = api.get(&format!("/v1/connect/intentions/{id}")).await.json();
    let keys: Vec<_> = one.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        keys,
        [
            "ID",
            "Description",
            "SourceNS",
            "SourceName",
            "DestinationNS",
            "DestinationName",
            "SourceType",
            "Action",
            "DefaultAddr",
            "DefaultPort",
            "Meta",
            "Precedence",
            "CreatedAt",
            "UpdatedAt",
            "Hash",
            "CreateIndex",
            "ModifyIndex"
        ]
    );
    assert_eq!(
        (&one["Action"], &one["Precedence"], &one["Meta"]),
        (&json!("deny"), &json!(9), &json!({"a": "b"}))
    );
    assert_eq!(
        (one["Hash"].as_str().map(str::len), one["SourceNS"].as_str()),
        (Some(44), Some("default"))
    );

    let precedences = |list: &serde_json::Value| -> Vec<u64> {
        list.as_array().unwrap().iter().map(|rule| rule["Precedence"].as_u64().unwrap()).collect()
    };
    assert_eq!(precedences(&api.get("/v1/connect/intentions").await.json()), [9, 8, 5]);
    let matches = api.get("/v1/connect/intentions/match?by=source&name=web&name=api").await.json();
    assert_eq!(matches.as_object().unwrap().keys().collect::<Vec<_>>(), ["api", "web"]);
    assert_eq!(
        (precedences(&matches["web"]), precedences(&matches["api"])),
        (vec![9, 8, 5], vec![8, 5])
    );

    for (source, allowed) in [("web", false), ("api", true)] {
        let target = format!("/v1/connect/intentions/check?source={source}&destination=database");
        assert_eq!(api.get(&target).await.body, format!(r#"{{"Allowed":{allowed}}}"#));
    }
    api.stop().await;
}

#[tokio::test]
async fn rules_are_changed_and_deleted_by_id() {
    let api = Api::start().await;
    let deny = r#"{"SourceName":"web","DestinationName":"database","Action":"deny"}"#;
    let id = create(&api, deny).await.json()["ID"].as_str().unwrap().to_owned();
    let target = format!("/v1/connect/intentions/{id}");
    let allow = r#"{"SourceName":"web","DestinationName":"database","Action":"allow"}"#;
    assert_eq!(api.put(&target, allow).await.json(), json!({ "ID": id }));
    assert_eq!(api.get(&target).await.json()["Action"], "allow");
    let audit = r#"{"SourceName":"web","DestinationName":"database","Action":"audit"}"#;
    assert_eq!(api.put(&target, audit).await.json(), json!({ "ID": id }));
    let entry = api.get("/v1/config/service-intentions/database").await.json();
    assert_eq!(entry["Sources"][0]["Action"], "audit", "one table, three views: {entry}");
    let other = r#"{"SourceName":"web","DestinationName":"other","Action":"allow"}"#;
    assert_eq!(api.put(&target, other).await.status, 400);
    assert_eq!(api.send("DELETE", &target, &[], "").await.body, "true");
    let gone = api.send("DELETE", &target, &[], "").await;
    assert_eq!((gone.status, gone.body), (500, format!("Cannot delete non-existent intention: '{id}'")));
    let gone = api.get(&target).await;
    assert_eq!((gone.status, gone.body.as_str()), (404, "Intention not found"));
    api.stop().await;
}

#[tokio::test]
async fn the_api_by_name_replaces() {
    let api = Api::start().await;
    let target = "/v1/connect/intentions/exact?source=default/web&destination=db";
    assert_eq!(api.get(target).await.status, 404);
    for action in ["deny", "audit", "allow"] {
        let body = format!(r#"{{"Action":"{action}","Description":"d","SourceType":"consul"}}"#);
        assert_eq!(api.put(target, &body).await.body, "true");
        let rule = api.get(target).await.json();
        assert_eq!((&rule["Action"], &rule["SourceName"]), (&json!(action), &json!("web")));
        assert_eq!((rule.get("ID"), rule.get("CreatedAt")), (None, None));
    }
    assert_eq!(api.get("/v1/connect/intentions").await.json().as_array().map(Vec::len), Some(1));
    let bad = api.put(target, r#"{"Action":"maybe"}"#).await;
    assert_eq!(bad.status, 500);
    assert_eq!(bad.body, "1 error occurred:\n\t* Action must be set to 'allow' or 'deny'\n\n");
    let l7 = api.put(target, r#"{"Permissions":[{"Action":"allow"}]}"#).await;
    assert_eq!((l7.status, l7.body.as_str()), (400, "Permissions is not supported by this server"));
    for _ in 0..2 {
        assert_eq!(api.send("DELETE", target, &[], "").await.body, "true");
    }
    let missing = api.get("/v1/connect/intentions/exact?source=web").await;
    assert_eq!(missing.body, "required query parameter 'destination' not set");
    api.stop().await;
}

#[tokio::test]
async fn creating_the_same_rule_at_once_succeeds_once() {
    let api = Api::start().await;
    let body = r#"{"SourceName":"web","DestinationName":"db","Action":"deny"}"#;
    let all = futures_util::future::join_all((0..8).map(|_| create(&api, body))).await;
    let created = all.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(created, 1, "{all:?}");
    api.stop().await;
}
