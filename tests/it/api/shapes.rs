//! Bodies, field by field and in order, as Consul 1.8.7 gives them.

use serde_json::Value;

use crate::http::Api;

const NODE: &str = r#"{"ID":"uuid","Node":"n1","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"Meta":{"consul-network-segment":""},"CreateIndex":0,"ModifyIndex":0}"#;
const SERF: &str = r#"{"Node":"n1","CheckID":"serfHealth","Name":"Serf Health Status","Status":"passing","Notes":"","Output":"Agent alive and reachable","ServiceID":"","ServiceName":"","ServiceTags":[],"Type":"","Definition":{},"CreateIndex":0,"ModifyIndex":0}"#;
const CHECK: &str = r#"{"Node":"n1","CheckID":"service:user-service-1","Name":"Service 'user-service' check","Status":"passing","Notes":"","Output":"fine","ServiceID":"user-service-1","ServiceName":"user-service","ServiceTags":["v1","production"],"Type":"ttl","Definition":{},"CreateIndex":0,"ModifyIndex":0}"#;
const IN_NODE: &str = r#"{"ID":"user-service-1","Service":"user-service","Tags":["v1","production"],"Address":"","Meta":{"protocol":"http","version":"1.2.3"},"Port":18080,"Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"MeshGateway":{},"Expose":{}},"Connect":{},"CreateIndex":0,"ModifyIndex":0}"#;
const FLAT: &str = r#"{"ID":"uuid","Node":"n1","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"NodeMeta":{"consul-network-segment":""},"ServiceKind":"","ServiceID":"user-service-1","ServiceName":"user-service","ServiceTags":["v1","production"],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{"protocol":"http","version":"1.2.3"},"ServicePort":18080,"ServiceEnableTagOverride":false,"ServiceProxy":{"MeshGateway":{},"Expose":{}},"ServiceConnect":{},"CreateIndex":0,"ModifyIndex":0}"#;
const FLAT_SIDECAR: &str = r#"{"ID":"uuid","Node":"n1","Address":"127.0.0.1","Datacenter":"dc1","TaggedAddresses":{"lan":"127.0.0.1","lan_ipv4":"127.0.0.1","wan":"127.0.0.1","wan_ipv4":"127.0.0.1"},"NodeMeta":{"consul-network-segment":""},"ServiceKind":"connect-proxy","ServiceID":"web-sidecar-proxy","ServiceName":"web-sidecar-proxy","ServiceTags":[],"ServiceAddress":"","ServiceWeights":{"Passing":1,"Warning":1},"ServiceMeta":{},"ServicePort":21000,"ServiceEnableTagOverride":false,"ServiceProxy":{"DestinationServiceName":"web","DestinationServiceID":"web","LocalServiceAddress":"127.0.0.1","LocalServicePort":18080,"Upstreams":[{"DestinationType":"service","DestinationName":"database","Datacenter":"","LocalBindPort":15432,"Config":null,"MeshGateway":{}}],"MeshGateway":{},"Expose":{}},"ServiceConnect":{},"CreateIndex":0,"ModifyIndex":0}"#;

const USER_SERVICE: &str = r#"{"ID":"user-service-1","Name":"user-service","Tags":["v1","production"],"Port":18080,
    "Meta":{"protocol":"http","version":"1.2.3"},"Check":{"TTL":"30s"}}"#;

#[tokio::test]
async fn a_service_with_a_check_looks_as_in_consul() {
    let api = Api::start().await;
    let registered = api.put("/v1/agent/service/register", USER_SERVICE).await;
    assert_eq!((registered.status, registered.body.as_str()), (200, ""));
    assert_eq!((registered.header("content-length"), registered.header("content-type")), ("0", ""));
    api.put("/v1/agent/check/pass/service%3Auser-service-1?note=fine", "").await;

    let entry = format!(r#"{{"Node":{NODE},"Service":{IN_NODE},"Checks":[{SERF},{CHECK}]}}"#);
    for (target, expected) in [
        ("/v1/health/service/user-service", format!("[{entry}]")),
        ("/v1/health/service/USER-SERVICE?passing", format!("[{entry}]")),
        ("/v1/health/service/user-service?tag=v1&tag=production", format!("[{entry}]")),
        ("/v1/health/service/user-service?tag=v1&tag=nope", "[]".to_owned()),
        ("/v1/health/service/none", "[]".to_owned()),
        ("/v1/catalog/service/user-service", format!("[{FLAT}]")),
        ("/v1/catalog/service/user-service?tag=v2", "[]".to_owned()),
        ("/v1/catalog/service/user-service?node-meta=zone:a", "[]".to_owned()),
        ("/v1/catalog/connect/user-service", "[]".to_owned()),
        ("/v1/catalog/services", r#"{"user-service":["production","v1"]}"#.to_owned()),
        ("/v1/catalog/services?node-meta=zone:a", "{}".to_owned()),
        ("/v1/catalog/nodes", format!("[{NODE}]")),
        (
            "/v1/catalog/node/n1",
            format!(r#"{{"Node":{NODE},"Services":{{"user-service-1":{IN_NODE}}}}}"#),
        ),
        ("/v1/catalog/node/nope", "null".to_owned()),
        ("/v1/catalog/datacenters", r#"["dc1"]"#.to_owned()),
        ("/v1/health/checks/user-service", format!("[{CHECK}]")),
        ("/v1/health/state/passing", format!("[{SERF},{CHECK}]")),
        ("/v1/health/state/any", format!("[{SERF},{CHECK}]")),
        ("/v1/health/state/critical", "[]".to_owned()),
        ("/v1/health/state/bogus", "[]".to_owned()),
        ("/v1/health/node/n1", format!("[{SERF},{CHECK}]")),
        ("/v1/health/node/nope", "[]".to_owned()),
        ("/v1/agent/checks", format!(r#"{{"service:user-service-1":{CHECK}}}"#)),
    ] {
        assert_eq!(api.get(target).await.shape(), expected, "{target}");
    }
    let agent = api.get("/v1/agent/checks").await.json();
    assert_eq!(agent["service:user-service-1"]["ModifyIndex"], 0);
    api.stop().await;
}

#[tokio::test]
async fn a_sidecar_looks_as_in_consul() {
    let api = Api::start().await;
    api.put(
        "/v1/agent/service/register",
        r#"{"Name":"web","Port":18080,"Connect":{"SidecarService":{"Proxy":{"Upstreams":[{"DestinationName":"database","LocalBindPort":15432}]}}}}"#,
    )
    .await;
    let parent = r#""web":{"ID":"web","Service":"web","Tags":[],"Meta":{},"Port":18080,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false}"#;
    let sidecar = r#""web-sidecar-proxy":{"Kind":"connect-proxy","ID":"web-sidecar-proxy","Service":"web-sidecar-proxy","Tags":[],"Meta":{},"Port":21000,"Address":"","Weights":{"Passing":1,"Warning":1},"EnableTagOverride":false,"Proxy":{"DestinationServiceName":"web","DestinationServiceID":"web","LocalServiceAddress":"127.0.0.1","LocalServicePort":18080,"Upstreams":[{"DestinationType":"service","DestinationName":"database","LocalBindPort":15432,"MeshGateway":{}}],"MeshGateway":{},"Expose":{}}}"#;
    assert_eq!(api.get("/v1/agent/services").await.shape(), format!("{{{parent},{sidecar}}}"));
    for target in ["/v1/catalog/service/web-sidecar-proxy", "/v1/catalog/connect/web"] {
        assert_eq!(api.get(target).await.shape(), format!("[{FLAT_SIDECAR}]"), "{target}");
    }
    let checks = api.get("/v1/agent/checks").await.json();
    let of = |id: &str| (checks[id]["Name"].clone(), checks[id]["Type"].clone());
    assert_eq!(of("service:web-sidecar-proxy:1"), ("Connect Sidecar Listening".into(), "tcp".into()));
    assert_eq!(
        of("service:web-sidecar-proxy:2"),
        ("Connect Sidecar Aliasing web".into(), "alias".into())
    );
    // Its listener was never seen: not passing.
    assert_eq!(api.get("/v1/health/connect/web?passing=1").await.shape(), "[]");
    assert_eq!(api.get("/v1/health/connect/web").await.json().as_array().map(Vec::len), Some(1));

    // A second sidecar gets the next port; the first keeps its own when registered again.
    for name in ["api", "web"] {
        let body = format!(r#"{{"Name":"{name}","Port":1,"Connect":{{"SidecarService":{{}}}}}}"#);
        assert_eq!(api.put("/v1/agent/service/register", &body).await.status, 200);
    }
    let services = api.get("/v1/agent/services").await.json();
    assert_eq!(services["web-sidecar-proxy"]["Port"], 21000);
    assert_eq!(services["api-sidecar-proxy"]["Port"], 21001);

    // The sidecar goes with its parent, and going twice is no fault.
    for _ in 0..2 {
        let gone = api.put("/v1/agent/service/deregister/web", "").await;
        assert_eq!((gone.status, gone.body.as_str()), (200, ""));
    }
    let left = api.get("/v1/agent/services").await.json();
    assert_eq!(left.as_object().unwrap().keys().collect::<Vec<_>>(), ["api", "api-sidecar-proxy"]);
    api.stop().await;
}

#[tokio::test]
async fn ttl_checks_are_fed_and_others_are_not() {
    let api = Api::start().await;
    api.put("/v1/agent/service/register", USER_SERVICE).await;
    for (verb, status) in [("pass", "passing"), ("warn", "warning"), ("fail", "critical")] {
        let fed =
            api.put(&format!("/v1/agent/check/{verb}/service:user-service-1?note=n-{verb}"), "").await;
        assert_eq!((fed.status, fed.body.as_str()), (200, ""));
        let check = api.get("/v1/agent/checks").await.json()["service:user-service-1"].clone();
        assert_eq!(
            (&check["Status"], &check["Output"]),
            (&Value::from(status), &Value::from(format!("n-{verb}")))
        );
    }
    let told: Vec<_> = api.clock.0.lock().unwrap().iter().map(|(_, _, note)| note.clone()).collect();
    assert_eq!(told, ["n-pass", "n-warn", "n-fail"]);
    for id in ["nope", "serfHealth"] {
        let refused = api.put(&format!("/v1/agent/check/pass/{id}"), "").await;
        assert_eq!(refused.status, 500);
        assert_eq!(refused.body, format!("CheckID {id:?} does not have associated TTL"));
    }
    api.stop().await;
}

#[tokio::test]
async fn the_agent_tells_who_it_is() {
    let api = Api::start().await;
    let own = api.get("/v1/agent/self").await.json();
    let keys: Vec<_> = own.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["Config", "DebugConfig", "Member", "Stats", "Meta", "xDS"]);
    let config: Vec<_> = own["Config"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(config, ["Datacenter", "NodeName", "NodeID", "Revision", "Server", "Version"]);
    assert_eq!(own["Config"]["NodeName"], "n1");
    assert_eq!(own["Config"]["NodeID"].as_str().map(str::len), Some(36));
    assert_eq!(own["Member"]["Status"], 1);
    assert_eq!(own["Stats"]["consul"]["server"], "true");
    let leader = api.get("/v1/status/leader").await.json();
    assert_eq!(leader, Value::from(api.address.to_string()));
    assert_eq!(api.get("/v1/status/peers").await.json(), Value::from(vec![leader]));
    api.stop().await;
}

#[tokio::test]
async fn roots_look_as_in_consul() {
    let api = Api::start().await;
    for target in ["/v1/connect/ca/roots", "/v1/agent/connect/ca/roots"] {
        let answer = api.get(target).await;
        let roots = answer.json();
        assert_eq!(
            (answer.header("x-consul-knownleader"), answer.header("x-consul-lastcontact")),
            ("false", "0")
        );
        assert!(answer.index() >= 1);
        let keys: Vec<_> = roots["Roots"][0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "ID",
                "Name",
                "SerialNumber",
                "SigningKeyID",
                "ExternalTrustDomain",
                "NotBefore",
                "NotAfter",
                "RootCert",
                "IntermediateCerts",
                "Active",
                "PrivateKeyType",
                "PrivateKeyBits",
                "CreateIndex",
                "ModifyIndex"
            ]
        );
        assert_eq!(roots["ActiveRootID"], roots["Roots"][0]["ID"]);
        assert_eq!(roots["ActiveRootID"].as_str().map(str::len), Some(59));
        let domain = roots["TrustDomain"].as_str().unwrap();
        assert_eq!(Some(domain.len()), Some(36 + ".consul".len()));
        assert!(
            roots["Roots"][0]["RootCert"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----\n")
        );
        assert!(!answer.body.contains("PRIVATE"));
    }
    let pem = api.get("/v1/connect/ca/roots?pem=true").await;
    assert_eq!(pem.header("content-type"), "application/pem-certificate-chain");
    assert!(pem.body.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(api.get("/v1/connect/ca/roots?pem=0").await.json()["Roots"][0]["Active"], true);
    assert_eq!(api.get("/v1/connect/ca/roots?pem=maybe").await.status, 400);
    let waited = api.get("/v1/connect/ca/roots?index=99&wait=50ms").await;
    assert_eq!(waited.status, 200);
    api.stop().await;
}
