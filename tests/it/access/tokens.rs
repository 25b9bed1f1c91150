//! The life of an API token: made, used, listed without its secret, over, revoked; and the program.

use serde_json::json;

use super::routes::{OPERATOR, closed, token};
use crate::cli::weft;

#[tokio::test]
async fn a_token_is_shown_once_and_revoked_at_once() {
    let api = closed().await;
    let operator = [("X-Consul-Token", OPERATOR)];
    let made = token(&api, &["service:read", "operator:read"]).await;
    let own = [("X-Consul-Token", made.as_str())];
    assert_eq!(api.send("GET", "/v1/agent/services", &own, "").await.status, 200);
    let listed = api.send("GET", "/v1/weft/api-tokens", &own, "").await;
    let secret = made.rsplit('.').next().unwrap();
    assert!(!listed.body.contains(secret), "{}", listed.body);
    let accessor = listed.json()[0]["accessor"].as_str().unwrap().to_owned();
    assert!(made.contains(&accessor) && listed.json()[0]["author"] == "operator");
    let path = format!("/v1/weft/api-tokens/{accessor}");
    assert_eq!(api.send("DELETE", &path, &own, "").await.status, 403);
    assert_eq!(api.send("DELETE", &path, &operator, "").await.status, 200);
    assert_eq!(api.send("DELETE", &path, &operator, "").await.status, 404);
    let answer = api.send("GET", "/v1/agent/services", &own, "").await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "ACL not found"));
    api.stop().await;
}

#[tokio::test]
async fn bad_wishes_by_table() {
    let api = closed().await;
    let clerk = token(&api, &["operator:write", "kv:read"]).await;
    for (who, body, status, said) in [
        (OPERATOR, json!({}), 400, "at least one scope"),
        (OPERATOR, json!({ "scopes": [] }), 400, "at least one scope"),
        (OPERATOR, json!({ "scopes": ["root"] }), 400, "`root` is not a scope"),
        (OPERATOR, json!({ "scopes": "kv:read" }), 400, "scopes"),
        (OPERATOR, json!({ "scopes": ["kv:read"], "ttl": "1s" }), 400, "lives at least 60 s"),
        (OPERATOR, json!({ "scopes": ["kv:read"], "ttl": "soon" }), 400, "ttl"),
        (OPERATOR, json!({ "scopes": ["kv:read"], "policies": [] }), 400, "policies"),
        (OPERATOR, json!({ "scopes": ["kv:read"], "description": "a\u{1b}[2J" }), 400, "control"),
        (clerk.as_str(), json!({ "scopes": ["*"] }), 403, "Permission denied"),
        (clerk.as_str(), json!({ "scopes": ["kv:write"] }), 403, "kv:write"),
        (clerk.as_str(), json!({ "scopes": ["kv:read"] }), 200, "wa1."),
    ] {
        let headers = [("X-Consul-Token", who)];
        let answer = api.send("POST", "/v1/weft/api-tokens", &headers, &body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body.contains(said), "{body}: {answer:?}");
    }
    api.stop().await;
}

#[tokio::test]
async fn the_command_line_makes_lists_and_revokes() {
    let api = closed().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("operator");
    std::fs::write(&file, format!("{OPERATOR}\n")).unwrap();
    let (address, file) = (api.address.to_string(), file.to_str().unwrap());
    let operator = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN_FILE", file)];
    let create = [
        "api-token",
        "create",
        "--scope",
        "service:*",
        "kv:read",
        "--description",
        "ci",
        "--ttl",
        "24h",
    ];
    let made = weft(&operator, &create).await;
    assert_eq!(made.code, 0, "{}", made.err);
    let token = made.out.trim();
    assert!(token.starts_with("wa1.") && !made.err.contains(token), "{}", made.err);
    let own = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN", token)];
    for (args, code, said) in [
        (vec!["services"], 0, ""),
        (vec!["kv", "put", "a", "b"], 4, "lacks permission 'kv:write'"),
        (vec!["api-token", "list"], 4, "lacks permission 'operator:read'"),
        (vec!["api-token", "create", "--scope", "kv:read"], 4, "lacks permission 'operator:write'"),
        (vec!["api-token", "create", "--scope", "kv:all"], 2, "`kv:all` is not a scope"),
    ] {
        let ran = weft(&own, &args).await;
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
    }
    let listed = weft(&operator, &["api-token", "list"]).await;
    assert!(listed.out.contains("service:read,service:write,kv:read"), "{}", listed.out);
    assert!(listed.out.contains("operator") && listed.out.contains("ci"), "{}", listed.out);
    let accessor = token.split('.').nth(1).unwrap();
    assert_eq!(weft(&operator, &["api-token", "revoke", accessor]).await.code, 0);
    assert_eq!(weft(&operator, &["api-token", "revoke", accessor]).await.code, 5);
    assert_eq!(weft(&own, &["services"]).await.code, 4);
    // The winner: WEFT_ before CONSUL_.
    let both = [own[0], own[1], ("WEFT_HTTP_TOKEN", OPERATOR)];
    assert_eq!(weft(&both, &["services"]).await.code, 0);
    api.stop().await;
}
