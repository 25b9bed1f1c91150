//! What is registered on the server's own node, and catalog entries of nodes without an agent.

use std::time::{Duration, Instant};

use crate::http::{Answer, Api};

/// Long enough that a wait which is not ended by a change fails the test.
const LONG: &str = "wait=10m";

async fn register(api: &Api, body: &str) {
    let answer = api.put("/v1/agent/service/register", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn words(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.header("x-consul-reason"), answer.body.as_str())
}

#[tokio::test]
async fn one_verdict_for_load_balancers() {
    let api = Api::start().await;
    register(&api, r#"{"Name":"web","ID":"web-1","Check":{"TTL":"10m"}}"#).await;
    register(&api, r#"{"Name":"web","ID":"web-2","Check":{"TTL":"10m"}}"#).await;
    let text = "/v1/agent/health/service/id/web-1?format=text";
    assert_eq!(words(&api.get(text).await), (503, "critical", "critical"));
    api.put("/v1/agent/check/warn/service:web-1", "").await;
    assert_eq!(words(&api.get(text).await), (429, "warning", "warning"));
    api.put("/v1/agent/check/pass/service:web-1", "").await;
    assert_eq!(words(&api.get(text).await), (200, "passing", "passing"));
    let by_name = api.get("/v1/agent/health/service/name/web?format=text").await;
    assert_eq!(words(&by_name), (503, "critical", "critical"), "the worst of both");
    let accept = [("Accept", "text/plain")];
    let by_header = api.send("GET", "/v1/agent/health/service/id/web-1", &accept, "").await;
    assert_eq!(words(&by_header), (200, "passing", "passing"));

    let enable = "/v1/agent/service/maintenance/web-1?enable=true&reason=broken";
    assert_eq!(api.put(enable, "").await.status, 200);
    assert_eq!(words(&api.get(text).await), (503, "maintenance", "maintenance"));
    let checks = api.get("/v1/agent/checks").await.json();
    let check = &checks["_service_maintenance:web-1"];
    assert_eq!((&check["Notes"], &check["Type"]), (&"broken".into(), &"maintenance".into()));
    assert_eq!(api.get("/v1/health/service/web?passing").await.shape(), "[]");
    // A registration does not end it.
    register(&api, r#"{"Name":"web","ID":"web-1","Check":{"TTL":"10m"}}"#).await;
    assert_eq!(words(&api.get(text).await), (503, "maintenance", "maintenance"));
    api.put("/v1/agent/service/maintenance/web-1?enable=false", "").await;
    assert_eq!(words(&api.get(text).await), (200, "passing", "passing"));
    api.put("/v1/agent/maintenance?enable=1", "").await;
    assert_eq!(words(&api.get(text).await), (503, "maintenance", "maintenance"));
    api.put("/v1/agent/maintenance?enable=0", "").await;
    assert_eq!(words(&api.get(text).await), (200, "passing", "passing"));
    api.stop().await;
}

#[tokio::test]
async fn a_registration_keeps_checks_it_does_not_list_unless_told_otherwise() {
    let api = Api::start().await;
    let both = r#"{"Name":"web","Checks":[{"TTL":"10m","CheckID":"a"},{"TTL":"10m","CheckID":"b"}]}"#;
    register(&api, both).await;
    api.put("/v1/agent/check/pass/a", "").await;
    register(&api, r#"{"Name":"web","Checks":[{"TTL":"10m","CheckID":"a"}]}"#).await;
    let checks = api.get("/v1/agent/checks").await.json();
    assert_eq!(checks["a"]["Status"], "passing", "what is known stays");
    assert_eq!(checks["b"]["Status"], "critical");
    let replace = "/v1/agent/service/register?replace-existing-checks=true";
    let answer = api.put(replace, r#"{"Name":"web","Checks":[{"TTL":"10m","CheckID":"a"}]}"#).await;
    assert_eq!(answer.status, 200);
    let checks = api.get("/v1/agent/checks").await.json();
    assert_eq!((checks["a"]["Status"].as_str(), checks.get("b")), (Some("passing"), None));
    // Under a new name the checks belong to that.
    register(&api, r#"{"Name":"shop","ID":"web"}"#).await;
    assert_eq!(api.get("/v1/agent/checks").await.json()["a"]["ServiceName"], "shop");
    api.stop().await;
}

#[tokio::test]
async fn a_hash_is_waited_on_until_it_changes_or_its_service_goes() {
    let api = Api::start().await;
    register(&api, r#"{"Name":"web","Port":80}"#).await;
    let first = api.get("/v1/agent/service/web").await;
    let hash = first.header("x-consul-contenthash").to_owned();
    assert_eq!(first.json()["ContentHash"], hash.as_str());
    assert!(hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    register(&api, r#"{"Name":"web","Port":80}"#).await;
    let again = api.get("/v1/agent/service/web").await;
    assert_eq!(again.header("x-consul-contenthash"), hash, "the same registration has the same hash");
    let other = api.get(&format!("/v1/agent/service/web?hash=0123&{LONG}")).await;
    assert_eq!(other.header("x-consul-contenthash"), hash, "another hash is answered at once");
    let short = Instant::now();
    let unchanged = api.get(&format!("/v1/agent/service/web?hash={hash}&wait=100ms")).await;
    assert_eq!((unchanged.status, short.elapsed() >= Duration::from_millis(100)), (200, true));

    let target = format!("/v1/agent/service/web?hash={hash}&{LONG}");
    let (changed, ()) = tokio::join!(api.get(&target), async {
        register(&api, r#"{"Name":"other"}"#).await;
        register(&api, r#"{"Name":"web","Port":81}"#).await;
    });
    assert_eq!(changed.json()["Port"], 81);
    let hash = changed.header("x-consul-contenthash").to_owned();
    let target = format!("/v1/agent/service/web?hash={hash}&{LONG}");
    let gone = async {
        api.put("/v1/agent/service/deregister/web", "").await;
    };
    let (answer, ()) = tokio::join!(api.get(&target), gone);
    assert_eq!((answer.status, answer.body.as_str()), (404, "unknown service ID: web"));
    api.stop().await;
}

#[tokio::test]
async fn a_node_without_an_agent_is_what_its_entry_says() {
    let api = Api::start().await;
    let entry = r#"{"Node":"ext1","Address":"10.1.10.123","NodeMeta":{"external-node":"true"},
        "Service":{"ID":"redis1","Service":"redis","Port":6379,"Tags":["primary"],"Meta":{"v":"4.0"},"New":1},
        "Check":{"Node":"ext1","CheckID":"c","Name":"Redis","Notes":"x","Status":"passing","ServiceID":"redis1",
        "Definition":{"TCP":"localhost:6379","Interval":"5s"}}}"#;
    let put = api.put("/v1/catalog/register", entry).await;
    assert_eq!((put.status, put.body.as_str()), (200, "true"));
    let found = api.get("/v1/health/service/redis").await.json();
    let node = &found[0]["Node"];
    assert_eq!((&node["ID"], &node["TaggedAddresses"]), (&"".into(), &serde_json::Value::Null));
    assert_eq!(node["Meta"], serde_json::json!({ "external-node": "true" }));
    assert_eq!(found[0]["Checks"].as_array().unwrap().len(), 1, "nobody vouches for the node");
    let check = &found[0]["Checks"][0];
    assert_eq!((&check["Type"], &check["Definition"]["Interval"]), (&"tcp".into(), &"5s".into()));
    let index = api.get("/v1/health/service/redis").await.index();
    assert_eq!(api.put("/v1/catalog/register", entry).await.body, "true");
    assert_eq!(api.get("/v1/health/service/redis").await.index(), index, "the same again is no change");

    // A check of its own, a check of the service, a new state.
    let down = r#"{"Node":"ext1","SkipNodeUpdate":true,"Checks":[{"CheckID":"c","Name":"Redis","Status":"critical",
        "ServiceID":"redis1"},{"Name":"disk","Status":"passing"}]}"#;
    assert_eq!(api.put("/v1/catalog/register", down).await.body, "true");
    assert_eq!(api.get("/v1/health/service/redis?passing").await.shape(), "[]");
    assert_eq!(api.get("/v1/health/node/ext1").await.json().as_array().unwrap().len(), 2);
    assert_eq!(api.get("/v1/agent/services").await.body, "{}");

    for (body, status, text) in [
        (r#"{"Node":"ext1"}"#, 500, "Must provide address if SkipNodeUpdate is not set"),
        (r#"{"Address":"1.1.1.1"}"#, 500, "Must provide node"),
        (r#"{"Node":"../x","Address":"1.1.1.1"}"#, 400, "Invalid node name: "),
        (
            r#"{"Node":"ext2","Address":"1.1.1.1","Service":{"Service":""}}"#,
            500,
            "failed inserting service: failed inserting service: object missing primary index",
        ),
        (
            r#"{"Node":"ext2","Address":"1.1.1.1","Check":{"Name":"x","ServiceID":"none"}}"#,
            500,
            "failed inserting check: failed inserting check: Missing service registration",
        ),
    ] {
        let answer = api.put("/v1/catalog/register", body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body.starts_with(text), "{body}: {}", answer.body);
    }
    assert!(!api.get("/v1/catalog/nodes").await.body.contains("ext2"), "a fault writes nothing");

    let own = api.put("/v1/catalog/deregister", r#"{"Node":"n1"}"#).await;
    assert_eq!(own.body, "true");
    assert!(api.get("/v1/catalog/nodes").await.body.contains(r#""n1""#), "an agent's node stays");
    assert_eq!(api.put("/v1/catalog/deregister", r#"{"Node":"ext1"}"#).await.body, "true");
    assert_eq!(api.get("/v1/health/node/ext1").await.shape(), "[]");
    assert_eq!(api.get("/v1/catalog/service/redis").await.shape(), "[]");
    assert_eq!(api.get("/v1/catalog/node/ext1").await.body, "null");
    api.stop().await;
}

#[tokio::test]
async fn checks_of_the_node_and_of_services_are_registered_and_fed() {
    let api = Api::start().await;
    register(&api, r#"{"Name":"web"}"#).await;
    for (body, status, text) in [
        (r#"{"Name":"memory"}"#, 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (r#"{"TTL":"30s"}"#, 400, "Missing check name"),
        (r#"{"Name":"m","TTL":"30s","Status":"foo"}"#, 400, "Bad check status"),
        (r#"{"Name":"m","TTL":"30s","ServiceID":"nope"}"#, 500, r#"ServiceID "nope" does not exist"#),
        (
            r#"{"Name":"m","Args":["/bin/true"],"Interval":"1s"}"#,
            500,
            "Scripts are disabled on this agent",
        ),
        (r#"{"Name":"memory","TTL":"10m","Notes":"nn"}"#, 200, ""),
        (r#"{"ID":"svc","Name":"svc ttl","TTL":"10m","ServiceID":"web","Status":"passing"}"#, 200, ""),
    ] {
        let answer = api.put("/v1/agent/check/register", body).await;
        assert_eq!((answer.status, answer.body.starts_with(text)), (status, true), "{body}: {answer:?}");
    }
    assert_eq!(
        api.put("/v1/agent/check/update/memory", r#"{"Status":"passing","Output":"fine"}"#).await.status,
        200
    );
    // The same again keeps what was seen.
    api.put("/v1/agent/check/register", r#"{"Name":"memory","TTL":"10m","Notes":"nn"}"#).await;
    let checks = api.get("/v1/agent/checks").await.json();
    assert_eq!(
        (&checks["memory"]["Status"], &checks["memory"]["Output"]),
        (&"passing".into(), &"fine".into())
    );
    assert_eq!(checks["svc"]["ServiceName"], "web");
    for (body, text) in
        [(r#"{"Status":"bogus"}"#, "Invalid check status: 'bogus'"), ("{}", "Invalid check status: ''")]
    {
        let answer = api.put("/v1/agent/check/update/memory", body).await;
        assert_eq!((answer.status, answer.body.as_str()), (400, text));
    }
    let untimed = api.put("/v1/agent/check/pass/nope", "").await;
    assert_eq!(untimed.body, r#"CheckID "nope" does not have associated TTL"#);
    for id in ["memory", "nope"] {
        assert_eq!(api.put(&format!("/v1/agent/check/deregister/{id}"), "").await.status, 200);
    }
    assert!(api.get("/v1/agent/checks").await.json().get("memory").is_none());
    api.stop().await;
}

#[tokio::test]
async fn the_process_tells_of_itself() {
    let api = Api::start().await;
    let members = api.get("/v1/agent/members").await.json();
    assert_eq!(
        (&members[0]["Name"], &members[0]["Status"], &members[0]["Tags"]["role"]),
        (&"n1".into(), &1.into(), &"consul".into())
    );
    let host = api.get("/v1/agent/host").await.json();
    assert!(host["Memory"]["total"].as_u64().unwrap() > 1 << 20);
    let metrics = api.get("/v1/agent/metrics").await.json();
    let names: Vec<_> =
        metrics["Counters"].as_array().unwrap().iter().map(|c| c["Name"].as_str().unwrap()).collect();
    assert!(names.contains(&"weft_http_requests"), "{names:?}");
    let text = api.get("/v1/agent/metrics?format=prometheus").await;
    assert!(text.body.contains("weft_http_requests_total{") && !text.body.contains("# EOF"));
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(api.get("/v1/agent/version").await.json()["HumanVersion"], env!("CARGO_PKG_VERSION"));
    for (target, status) in [
        ("/v1/agent/reload", 500),
        ("/v1/agent/join/10.9.9.9", 500),
        ("/v1/agent/join/127.0.0.1", 200),
        ("/v1/agent/force-leave/nope", 200),
        ("/v1/agent/token/default", 401),
        ("/v1/agent/token/nope", 404),
    ] {
        assert_eq!(api.put(target, "").await.status, status, "{target}");
    }
    api.stop().await;
}
