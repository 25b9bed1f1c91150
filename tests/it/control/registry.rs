//! The `Registry` service, health and reflection, by plain clients.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use weft::access::{Access, Actor, Scopes, Wish};
use weft::pb;
use weft::pb::registry_client::RegistryClient;
use weft::store::{MemoryStore, Store};

use super::enrol::{anonymous, as_agent};
use super::{Options, Plane, eventually, name, within};

fn cache(lease: u64) -> pb::RegisterRequest {
    let instance = pb::Instance { name: "cache".to_owned(), port: 6379, ..Default::default() };
    let status = pb::CheckStatus::Passing.into();
    let check = pb::Check { ttl_ms: 60_000, status, ..Default::default() };
    pb::RegisterRequest { instance: Some(instance), checks: vec![check], lease }
}

#[tokio::test]
async fn a_tool_registers_watches_and_reports() {
    let plane = Plane::start().await;
    let mut client = RegistryClient::new(anonymous(&plane).await);
    let request = pb::WatchRequest { service: "cache".to_owned(), passing_only: true };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let first = within("the first state", watch.message()).await.unwrap().unwrap();
    assert!(first.instances.is_empty());
    assert!(client.register(cache(0)).await.unwrap().into_inner().revision > first.revision);
    let seen = within("the instance", watch.message()).await.unwrap().unwrap();
    let instance = seen.instances[0].instance.as_ref().unwrap();
    assert_eq!((instance.id.as_str(), instance.node.as_str(), instance.port), ("cache", "server", 6379));

    let report = |status: pb::CheckStatus| pb::ReportChecksRequest {
        node: String::new(),
        reports: vec![pb::CheckReport {
            id: "service:cache".to_owned(),
            status: status.into(),
            output: "down".to_owned(),
        }],
    };
    client.report_checks(report(pb::CheckStatus::Critical)).await.unwrap();
    let seen = within("the flip", watch.message()).await.unwrap().unwrap();
    assert!(seen.instances.is_empty(), "only passing instances were asked for");
    let status = client.report_checks(report(pb::CheckStatus::Unspecified)).await.unwrap_err();
    assert!(status.message().starts_with("reports[0].status"), "{status}");

    let gone = pb::DeregisterRequest { node: String::new(), id: "cache".to_owned() };
    assert!(client.deregister(gone.clone()).await.unwrap().into_inner().removed);
    assert!(!client.deregister(gone).await.unwrap().into_inner().removed);
}

#[tokio::test]
async fn a_lease_holds_an_instance() {
    let plane = Plane::start().await;
    let mut client = RegistryClient::new(anonymous(&plane).await);
    let status = client.grant_lease(pb::GrantLeaseRequest { ttl_s: 1 }).await.unwrap_err();
    assert!(status.message().starts_with("ttl_s"), "{status}");
    let lease = client.grant_lease(pb::GrantLeaseRequest { ttl_s: 60 }).await.unwrap().into_inner().id;
    client.register(cache(lease)).await.unwrap();

    let (requests, outgoing) = tokio::sync::mpsc::channel(4);
    let mut answers = client.keep_alive(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    requests.send(pb::KeepAliveRequest { lease }).await.unwrap();
    assert_eq!(within("the answer", answers.message()).await.unwrap().unwrap().ttl_s, 60);
    client.revoke_lease(pb::RevokeLeaseRequest { lease }).await.unwrap();
    assert!(plane.catalog.health(&name("cache")).is_empty());
    requests.send(pb::KeepAliveRequest { lease }).await.unwrap();
    assert_eq!(within("the answer", answers.message()).await.unwrap().unwrap().ttl_s, 0);
    assert_eq!(client.register(cache(lease)).await.unwrap_err().code(), Code::NotFound);
}

/// A request with this in its metadata.
fn with(header: &'static str, value: &str) -> Request<pb::RegisterRequest> {
    let mut request = Request::new(cache(0));
    request.metadata_mut().insert(header, value.parse().unwrap());
    request
}

#[tokio::test]
async fn where_tokens_are_required_the_registry_asks_for_one_too() {
    const OPERATOR: &str = "the operator's token, long enough for anybody";
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let access = Access::new(Arc::clone(&store), true);
    access.set_operator(OPERATOR).unwrap();
    let mut options = Options::default();
    options.control.access = Some(access.clone());
    let plane = Plane::over(store, "127.0.0.1:0".parse().unwrap(), options).await;
    let mut client = RegistryClient::new(anonymous(&plane).await);
    let made = async |scope| {
        let scopes = Scopes::parse([scope]).unwrap();
        let wish = Wish { description: String::new(), scopes, ttl: None };
        access.create(wish, &Actor::Operator, SystemTime::now()).await.unwrap().text
    };
    let (reader, writer) = (made("service:read").await, made("service:write").await);

    for (request, code) in [
        (Request::new(cache(0)), Some(Code::Unauthenticated)),
        (with("x-consul-token", ""), Some(Code::Unauthenticated)),
        (with("x-consul-token", "a guess"), Some(Code::PermissionDenied)),
        (with("x-consul-token", &reader), Some(Code::PermissionDenied)),
        (with("authorization", &format!("Basic {}", *writer)), Some(Code::Unauthenticated)),
        (with("authorization", &format!("Bearer {}", *writer)), None),
        (with("x-consul-token", &writer), None),
        (with("x-consul-token", OPERATOR), None),
    ] {
        let shown = format!("{:?}", request.metadata());
        let answer = client.register(request).await;
        assert_eq!(answer.as_ref().err().map(tonic::Status::code), code, "{shown}: {answer:?}");
        assert_eq!(plane.catalog.health(&name("cache")).is_empty(), code.is_some(), "{shown}");
    }
    let watched = || pb::WatchRequest { service: "cache".to_owned(), passing_only: false };
    assert_eq!(client.watch(watched()).await.unwrap_err().code(), Code::Unauthenticated);
    let mut request = Request::new(watched());
    request.metadata_mut().insert("x-consul-token", reader.parse().unwrap());
    client.watch(request).await.unwrap();
    let web = plane.agent("web", &[]).await;
    RegistryClient::new(as_agent(&plane, &web).await).watch(watched()).await.unwrap();
}

#[tokio::test]
async fn a_service_writes_its_own_only() {
    let plane = Plane::start().await;
    let (web, _db) = (plane.agent("web", &[]).await, plane.agent("db", &[]).await);
    let mut client = RegistryClient::new(as_agent(&plane, &web).await);
    assert_eq!(client.register(cache(0)).await.unwrap_err().code(), Code::InvalidArgument, "no node");
    let mut request = cache(0);
    request.instance.as_mut().unwrap().node = "n1".to_owned();
    assert_eq!(client.register(request.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let own = request.instance.as_mut().unwrap();
    (own.name, own.id) = ("web".to_owned(), "web-9".to_owned());
    client.register(request).await.unwrap();
    assert_eq!(plane.catalog.health(&name("web")).len(), 2);

    let foreign = pb::DeregisterRequest { node: "n1".to_owned(), id: "db-1".to_owned() };
    assert_eq!(client.deregister(foreign).await.unwrap_err().code(), Code::PermissionDenied);
    let foreign = pb::ReportChecksRequest {
        node: "n1".to_owned(),
        reports: vec![pb::CheckReport {
            id: "service:db-1".to_owned(),
            status: pb::CheckStatus::Critical.into(),
            output: String::new(),
        }],
    };
    assert_eq!(client.report_checks(foreign).await.unwrap_err().code(), Code::PermissionDenied);

    // A lease that somebody else was granted is somebody else's.
    let mut local = RegistryClient::new(anonymous(&plane).await);
    let lease = local.grant_lease(pb::GrantLeaseRequest { ttl_s: 60 }).await.unwrap().into_inner().id;
    let status = client.revoke_lease(pb::RevokeLeaseRequest { lease }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn health_is_served_and_ends_with_the_server() {
    let plane = Plane::start().await;
    let mut client = HealthClient::new(anonymous(&plane).await);
    for service in ["", "weft.v1.Mesh"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        eventually_serving(&mut client, request).await;
    }
    // The connection is idle: it must not hold up the shutdown.
    let started = tokio::time::Instant::now();
    plane.stop().await;
    assert!(started.elapsed() < weft::control::limits::SHUTDOWN_GRACE, "{:?}", started.elapsed());
}

async fn eventually_serving(
    client: &mut HealthClient<tonic::transport::Channel>,
    request: HealthCheckRequest,
) {
    let serving = tonic_health::pb::health_check_response::ServingStatus::Serving;
    let started = tokio::time::Instant::now();
    loop {
        let answer = client.check(request.clone()).await;
        if answer.is_ok_and(|answer| answer.into_inner().status() == serving) {
            return;
        }
        assert!(started.elapsed() < super::DEADLINE, "{request:?} is not served");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let mut options = Options::default();
    options.control.max_connections = 1;
    let plane = Plane::with(options).await;
    let first = anonymous(&plane).await;
    let second = anonymous(&plane);
    let mut second = std::pin::pin!(second);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), second.as_mut()).await;
    assert!(early.is_err(), "the limit was not kept");
    drop(first);
    let second = within("the turn", second).await;
    RegistryClient::new(second).grant_lease(pb::GrantLeaseRequest { ttl_s: 60 }).await.unwrap();
}

#[tokio::test]
async fn a_silent_client_is_cut_off() {
    use tokio::io::AsyncReadExt as _;
    let plane = Plane::start().await;
    let mut silent = tokio::net::TcpStream::connect(plane.address).await.unwrap();
    let mut byte = [0];
    let read = within("the end", silent.read(&mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)));
    eventually("other clients", || plane.sessions.connected() == 0).await;
}
