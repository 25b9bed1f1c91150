//! The gRPC services by a client that knows nothing but the root from the HTTP API: ordinary TLS with
//! the server's address as its name, generated code, no certificate of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use weft::pb;
use weft::pb::registry_client::RegistryClient;

use super::mesh::Mesh;
use super::support::within;
use crate::pace::pause;

/// The shortest lease there is.
const TTL_S: u32 = 5;

pub(super) async fn channel(mesh: &Mesh) -> Channel {
    let pem = mesh.get("/v1/connect/ca/roots?pem=1").await.body;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    dial(mesh.grpc, Arc::new(config)).await
}

async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> Channel {
    let connector = tower::service_fn(move |_| {
        let connector = TlsConnector::from(Arc::clone(&config));
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector.connect(ServerName::from(address.ip()), tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://server").connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn a_lease_is_kept_and_runs_out() {
    let mesh = Mesh::start().await;
    let mut client = RegistryClient::new(channel(&mesh).await);
    let request = pb::WatchRequest { service: "cache".to_owned(), passing_only: true };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert!(within("the first state", watch.message()).await.unwrap().unwrap().instances.is_empty());

    let lease =
        client.grant_lease(pb::GrantLeaseRequest { ttl_s: TTL_S }).await.unwrap().into_inner().id;
    let instance = pb::Instance { name: "cache".to_owned(), port: 6379, ..Default::default() };
    let request = pb::RegisterRequest { instance: Some(instance), checks: Vec::new(), lease };
    client.register(request).await.unwrap();
    let seen = within("the instance", watch.message()).await.unwrap().unwrap();
    assert_eq!(seen.instances.len(), 1);

    let (requests, outgoing) = mpsc::channel(1);
    let mut answers = client.keep_alive(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let registered = Instant::now();
    while registered.elapsed() < Duration::from_secs(u64::from(TTL_S) + 1) {
        requests.send(pb::KeepAliveRequest { lease }).await.unwrap();
        assert_eq!(within("the answer", answers.message()).await.unwrap().unwrap().ttl_s, TTL_S);
        pause(Duration::from_millis(500)).await;
    }
    assert_eq!(mesh.passing("cache").await, ["cache"], "a lease that is kept has run out");
    let last = Instant::now();
    let seen = within("the end", watch.message()).await.unwrap().unwrap();
    assert!(seen.instances.is_empty());
    println!("kept for {TTL_S} s and more; gone {:?} after the last sign of life", last.elapsed());
    assert!(last.elapsed() > Duration::from_secs(u64::from(TTL_S) - 1));
}

#[tokio::test]
async fn reflection_and_health_answer() {
    let mesh = Mesh::start().await;
    let channel = channel(&mesh).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "weft.v1.Registry"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let mut reflection = ServerReflectionClient::new(channel);
    let question = |request| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        tokio_stream::iter([request])
    };
    let list = question(MessageRequest::ListServices(String::new()));
    let mut answers = reflection.server_reflection_info(list).await.unwrap().into_inner();
    let answer = within("the list", answers.message()).await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["weft.v1.Identity", "weft.v1.Mesh", "weft.v1.Registry", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let symbol = question(MessageRequest::FileContainingSymbol("weft.v1.Registry".to_owned()));
    let mut answers = reflection.server_reflection_info(symbol).await.unwrap().into_inner();
    let answer = within("the file", answers.message()).await.unwrap().unwrap().message_response;
    let Some(MessageResponse::FileDescriptorResponse(file)) = answer else { panic!("{answer:?}") };
    assert!(!file.file_descriptor_proto.is_empty());
}
