//! `?filter` on every endpoint that has it; the language itself is tested beside its code.

use serde_json::Value;

use crate::http::Api;

async fn start() -> Api {
    let api = Api::start().await;
    for body in [
        r#"{"Name":"web","Port":80,"Tags":["v1"],"Meta":{"zone":"a"},"Check":{"TTL":"30s"},"Connect":{"SidecarService":{"Proxy":{"Upstreams":[{"DestinationName":"db","LocalBindPort":1}]}}}}"#,
        r#"{"Name":"web","ID":"web-2","Port":81,"Tags":["v2"],"Meta":{"zone":"b"}}"#,
        r#"{"Name":"db","Port":5432,"Tags":["primary"]}"#,
    ] {
        assert_eq!(api.put("/v1/agent/service/register", body).await.status, 200);
    }
    for (source, action) in [("web", "allow"), ("job", "deny")] {
        let body = format!(r#"{{"SourceName":"{source}","DestinationName":"db","Action":"{action}"}}"#);
        assert_eq!(api.send("POST", "/v1/connect/intentions", &[], &body).await.status, 200);
    }
    api
}

/// Texts at `path` in each item of a list or in each value of a map.
fn texts(answer: &Value, path: &str) -> Vec<String> {
    let items: Vec<&Value> = match answer {
        Value::Array(items) => items.iter().collect(),
        Value::Object(entries) => entries.values().collect(),
        other => panic!("neither list nor map: {other}"),
    };
    items.iter().map(|item| item.pointer(path).unwrap().as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_listing_is_filtered() {
    let api = start().await;
    let sidecar = "web-sidecar-proxy";
    for (target, path, expected) in [
        ("/v1/agent/services?filter=v2+in+Tags", "/ID", vec!["web-2"]),
        ("/v1/agent/services?filter=Kind==%22connect-proxy%22", "/ID", vec![sidecar]),
        ("/v1/agent/services?filter=Meta.zone!=a", "/ID", vec!["db", "web-2"]),
        ("/v1/agent/services?filter=", "/ID", vec!["db", "web", "web-2", sidecar]),
        ("/v1/agent/checks?filter=ServiceID==web", "/CheckID", vec!["service:web"]),
        ("/v1/catalog/nodes?filter=Node==n1", "/Node", vec!["n1"]),
        ("/v1/catalog/nodes?filter=Node!=n1", "/Node", vec![]),
        ("/v1/catalog/service/web?filter=ServicePort==81", "/ServiceID", vec!["web-2"]),
        ("/v1/catalog/service/web?tag=v1&filter=ServicePort==81", "/ServiceID", vec![]),
        (
            "/v1/catalog/connect/web?filter=ServiceProxy.Upstreams.DestinationName==db",
            "/ServiceID",
            vec![sidecar],
        ),
        ("/v1/catalog/connect/web?filter=ServiceProxy.Upstreams+is+empty", "/ServiceID", vec![]),
        ("/v1/health/service/web?filter=Service.Meta.zone==b", "/Service/ID", vec!["web-2"]),
        ("/v1/health/service/web?filter=Checks.Status==critical", "/Service/ID", vec!["web"]),
        ("/v1/health/service/web?passing&filter=Checks.Status==critical", "/Service/ID", vec![]),
        ("/v1/health/connect/web?filter=Node.Node==n1", "/Service/ID", vec![sidecar]),
        ("/v1/health/connect/web?filter=Node.Node==n2", "/Service/ID", vec![]),
        ("/v1/health/node/n1?filter=CheckID==serfHealth", "/CheckID", vec!["serfHealth"]),
        ("/v1/health/checks/web?filter=v1+in+ServiceTags", "/CheckID", vec!["service:web"]),
        ("/v1/health/checks/web?filter=v2+in+ServiceTags", "/CheckID", vec![]),
        (
            "/v1/health/state/any?filter=Status==passing+and+ServiceID==%22%22",
            "/CheckID",
            vec!["serfHealth"],
        ),
        ("/v1/connect/intentions?filter=Action==deny", "/SourceName", vec!["job"]),
        ("/v1/connect/intentions?filter=Precedence!=9", "/SourceName", vec![]),
    ] {
        assert_eq!(texts(&api.get(target).await.json(), path), expected, "{target}");
    }
    let services = api.get("/v1/catalog/services?filter=ServiceMeta.zone==b").await.json();
    assert_eq!(services.to_string(), r#"{"web":["v2"]}"#);
    let node = api.get("/v1/catalog/node/n1?filter=Port==5432").await.json();
    assert_eq!(texts(&node["Services"], "/ID"), ["db"]);
    assert_eq!(node["Node"]["Node"], "n1");
    api.stop().await;
}

#[tokio::test]
async fn a_bad_filter_is_told_before_the_wait() {
    let api = Api::start().await;
    let began = std::time::Instant::now();
    for target in [
        "/v1/agent/services",
        "/v1/agent/checks",
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/service/x",
        "/v1/catalog/connect/x",
        "/v1/catalog/node/n1",
        "/v1/health/service/x",
        "/v1/health/connect/x",
        "/v1/health/node/n1",
        "/v1/health/checks/x",
        "/v1/health/state/any",
        "/v1/connect/intentions",
    ] {
        let answer = api.get(&format!("{target}?index=9999&wait=60s&filter=Nope==1")).await;
        assert_eq!(answer.status, 500, "{target}");
        assert_eq!(
            answer.body,
            r#"Failed to create boolean expression evaluator: Selector "Nope" is not valid"#
        );
        let index = if target.contains("/agent/") { "" } else { "1" };
        assert_eq!(answer.header("x-consul-index"), index, "{target}");
    }
    assert!(began.elapsed().as_secs() < 60, "it waited first");
    let long = format!("/v1/agent/services?filter={}", "x".repeat(9000));
    assert_eq!(api.get(&long).await.status, 400);
    api.stop().await;
}

#[tokio::test]
async fn where_nothing_is_filtered_a_filter_is_refused() {
    let api = Api::start().await;
    for target in ["/v1/agent/self", "/v1/catalog/datacenters", "/v1/connect/ca/roots"] {
        let answer = api.get(&format!("{target}?filter=ID==zz")).await;
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.body.starts_with("?filter is not supported"), "{}", answer.body);
        assert_eq!(api.get(&format!("{target}?filter=")).await.status, 200, "{target}");
    }
    api.stop().await;
}
