//! Every route of the API asks for the scope that the table says, and for no other.

use std::sync::Arc;

use serde_json::json;
use weft::access::routes::{Need, TABLE};
use weft::access::{Access, Scope, Scopes};
use weft::store::MemoryStore;

use crate::http::Api;

pub(crate) const OPERATOR: &str = "an-operator-token-of-32-characters";

/// An API that wants tokens, with the operator's known.
pub(crate) async fn closed() -> Api {
    Api::start_with(|state| {
        state.access = Access::new(Arc::new(MemoryStore::new()), true);
        state.access.set_operator(OPERATOR).unwrap();
    })
    .await
}

/// A token with these scopes.
pub(crate) async fn token(api: &Api, scopes: &[&str]) -> String {
    let body = json!({ "scopes": scopes, "description": "test" }).to_string();
    let headers = [("X-Consul-Token", OPERATOR)];
    let answer = api.send("POST", "/v1/weft/api-tokens", &headers, &body).await;
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// A target of a route; what stands in for its parameters names nothing that is there.
pub(super) fn target(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "nothing" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Only routes whose answer ends by itself, and none that ends the server.
pub(super) fn answers(path: &str) -> bool {
    !["/v1/agent/monitor", "/v1/agent/leave"].contains(&path)
}

#[tokio::test]
async fn every_route_asks_for_its_scope() {
    let api = closed().await;
    let all = Scopes::all().names();
    let weak = token(&api, &["enrol:write"]).await;
    let lent = |path: &str| !path.starts_with("/v1/") && path != "/metrics";
    for rule in TABLE.iter().filter(|rule| !lent(rule.path)) {
        let (method, target) = (rule.method, target(rule.path));
        let ask = async |token: &str| api.send(method, &target, &[("X-Consul-Token", token)], "").await;
        let who = format!("{method} {target}");
        // Nobody, and somebody unknown.
        let answer = api.send(method, &target, &[], "").await;
        assert_eq!(answer.status, 403, "{who}: {answer:?}");
        assert!(answer.body.starts_with("Permission denied: anonymous token lacks"), "{answer:?}");
        let answer = ask("b1gs33cr3t").await;
        assert_eq!((answer.status, answer.body.as_str()), (403, "ACL not found"), "{who}");
        match rule.need {
            Need::Nothing => panic!("{who} needs nothing"),
            Need::Token => assert_ne!(ask(&weak).await.status, 403, "{who}"),
            Need::Scope(scope) => {
                let others: Vec<&str> = all
                    .iter()
                    .copied()
                    .filter(|name| {
                        let one = Scopes::parse([*name]).unwrap();
                        !one.contains(scope)
                    })
                    .collect();
                let answer = ask(&token(&api, &others).await).await;
                assert_eq!(answer.status, 403, "{who} with {others:?}: {answer:?}");
                assert!(answer.body.contains(&format!("lacks permission '{scope}'")), "{answer:?}");
                if answers(rule.path) && scope != Scope::OperatorWrite {
                    let right = token(&api, &[scope.as_str()]).await;
                    let answer = ask(&right).await;
                    let denied = answer.body.contains("Permission denied");
                    assert!(!denied, "{who} with {scope}: {answer:?}");
                }
            }
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn what_needs_no_token_and_what_is_no_route() {
    let api = closed().await;
    assert_eq!(api.get("/v1/no/such").await.status, 404);
    // Only what one could do is told, and nothing is done.
    assert_eq!(api.send("OPTIONS", "/v1/kv/a", &[], "").await.status, 200);
    // A method that the route does not have is none of anybody's business but the operator's.
    assert_eq!(api.send("POST", "/v1/kv/a", &[], "").await.status, 403);
    let operator = [("X-Consul-Token", OPERATOR)];
    assert_eq!(api.send("POST", "/v1/kv/a", &operator, "").await.status, 405);
    assert_eq!(api.send("HEAD", "/v1/kv/a", &operator, "").await.status, 404);
    assert_eq!(api.send("HEAD", "/v1/kv/a", &[], "").await.status, 403);
    // A path that decodes to another one is still the route it matches.
    assert_eq!(api.send("GET", "/v1/%6bv/a", &[], "").await.status, 404);
    api.stop().await;
}

#[tokio::test]
async fn a_token_comes_in_three_ways() {
    let api = closed().await;
    let token = token(&api, &["kv:*"]).await;
    for (target, headers) in [
        ("/v1/kv/a", vec![("X-Consul-Token", token.clone())]),
        ("/v1/kv/a", vec![("Authorization", format!("Bearer {token}"))]),
        (format!("/v1/kv/a?token={token}").as_str(), vec![]),
        (
            "/v1/kv/a",
            vec![("X-Consul-Token", String::new()), ("Authorization", format!("bearer {token}"))],
        ),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = api.send("PUT", target, &headers, "v").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "true"), "{target} {headers:?}");
    }
    api.stop().await;
}

#[tokio::test]
async fn where_no_token_is_required_any_is_accepted() {
    let api = Api::start().await;
    for token in ["", "anonymous", "b1gs33cr3t-0000-1111-2222-333333333333"] {
        let answer = api.send("PUT", "/v1/kv/a", &[("X-Consul-Token", token)], "v").await;
        assert_eq!(answer.status, 200, "{token}");
    }
    api.stop().await;
}
