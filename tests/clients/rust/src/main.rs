//! What rs-consul offers, used as its documentation shows, against the server named by CONSUL_HTTP_ADDR.
//! Ends with a panic that says what was wrong, or with `rs-consul: ok`.

use std::collections::HashMap;
use std::time::Duration;

use rs_consul::types::{
    CreateOrUpdateKeyRequest, DeleteKeyRequest, DeregisterEntityPayload, GetServiceNodesRequest,
    LockRequest, ReadKeyRequest, RegisterEntityCheck, RegisterEntityPayload, RegisterEntityService,
};
use rs_consul::{Config, Consul};

#[tokio::main]
async fn main() {
    let address = std::env::var("CONSUL_HTTP_ADDR").expect("CONSUL_HTTP_ADDR, such as http://127.0.0.1:8500");
    let consul = Consul::new(Config { address, ..Config::from_env() });
    catalog(&consul).await;
    keys(&consul).await;
    lock(&consul).await;
    println!("rs-consul: ok");
}

async fn catalog(consul: &Consul) {
    let payload = RegisterEntityPayload {
        ID: None,
        Node: "rs-node".to_owned(),
        Address: "10.0.0.7".to_owned(),
        Datacenter: None,
        TaggedAddresses: HashMap::new(),
        NodeMeta: HashMap::new(),
        Service: Some(RegisterEntityService {
            ID: Some("rs-1".to_owned()),
            Service: "rs".to_owned(),
            Tags: vec!["v1".to_owned()],
            TaggedAddresses: HashMap::new(),
            Meta: HashMap::from([("version".to_owned(), "1".to_owned())]),
            Port: Some(8080),
            Namespace: None,
        }),
        Checks: vec![RegisterEntityCheck {
            Node: Some("rs-node".to_owned()),
            CheckID: Some("rs-check".to_owned()),
            Name: "rs".to_owned(),
            Notes: None,
            Status: Some("passing".to_owned()),
            ServiceID: Some("rs-1".to_owned()),
            Definition: HashMap::new(),
        }],
        SkipNodeUpdate: None,
    };
    consul.register_entity(&payload).await.expect("a registration");
    let names = consul.get_all_registered_service_names(None).await.expect("names").response;
    assert!(names.contains(&"rs".to_owned()), "{names:?}");
    let request =
        GetServiceNodesRequest { service: "rs", passing: true, ..GetServiceNodesRequest::default() };
    let nodes = consul.get_service_nodes(request, None).await.expect("nodes");
    assert_eq!(nodes.response.len(), 1, "{nodes:?}");
    assert!(nodes.index > 0);
    let found = consul.get_service_addresses_and_ports("rs", None).await.expect("addresses");
    assert_eq!(found, [("10.0.0.7".to_owned(), 8080)]);
    let gone = DeregisterEntityPayload {
        Node: Some("rs-node".to_owned()),
        Datacenter: None,
        CheckID: None,
        ServiceID: None,
        Namespace: None,
    };
    consul.deregister_entity(&gone).await.expect("a deregistration");
    let found = consul.get_service_addresses_and_ports("rs", None).await.expect("addresses");
    assert!(found.is_empty(), "{found:?}");
}

async fn keys(consul: &Consul) {
    let key = "rs/key";
    let put = CreateOrUpdateKeyRequest { key, check_and_set: Some(0), ..CreateOrUpdateKeyRequest::default() };
    let (created, _) = consul.create_or_update_key(put.clone(), b"value".to_vec()).await.expect("a key");
    assert!(created);
    let (again, _) = consul.create_or_update_key(put, b"other".to_vec()).await.expect("an answer");
    assert!(!again, "check-and-set with 0 creates only");
    let read = ReadKeyRequest { key, ..ReadKeyRequest::default() };
    let found = consul.read_key(read).await.expect("the key").response;
    assert_eq!(found[0].value.as_deref(), Some("value"));
    let delete = DeleteKeyRequest { key, ..DeleteKeyRequest::default() };
    assert!(consul.delete_key(delete).await.expect("a deletion"));
}

async fn lock(consul: &Consul) {
    let request = LockRequest {
        key: "rs/lock",
        timeout: Duration::from_secs(10),
        lock_delay: Duration::from_secs(1),
        ..LockRequest::default()
    };
    let held = consul.get_lock(request.clone(), b"mine").await.expect("the lock");
    assert!(consul.get_lock(request, b"theirs").await.is_err(), "a lock has one holder");
    drop(held);
}
