//! Certificates: first ones, refused ones, renewed ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use weft::agent::{Agent, AgentError};
use weft::control::Settings;
use weft::model::Token;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::pb::mesh_client::MeshClient;
use weft::tls::{self, Identity, KeyRequest};

use super::{Options, Plane, eventually, name, synced, within};

/// A gRPC channel with settings of the test's choice.
pub(super) async fn channel(plane: &Plane, config: Arc<ClientConfig>) -> Channel {
    dial(plane.address, config).await
}

pub(crate) async fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> Channel {
    let connector = tower::service_fn(move |_| {
        let connector = TlsConnector::from(Arc::clone(&config));
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector.connect(tls::no_server_name(), tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://control").connect_with_connector(connector).await.unwrap()
}

/// Whether the server lets a client with these settings in. With TLS 1.3 a client hears of a refusal only
/// after its own handshake has ended.
pub(super) async fn dials(plane: &Plane, config: Arc<ClientConfig>) -> bool {
    let tcp = TcpStream::connect(plane.address).await.unwrap();
    let connected = TlsConnector::from(config).connect(tls::no_server_name(), tcp).await;
    let Ok(mut stream) = connected else { return false };
    // An HTTP/2 server speaks first.
    within("a word of the server", stream.read_u8()).await.is_ok()
}

/// Without a certificate.
pub(super) async fn anonymous(plane: &Plane) -> Channel {
    channel(plane, tls::bootstrap_config(None)).await
}

/// With the certificate of a running agent.
pub(super) async fn as_agent(plane: &Plane, agent: &Agent) -> Channel {
    let identity = agent.handle.identity.borrow().clone().unwrap();
    channel(plane, identity.control_config()).await
}

fn request(token: &str, service: &str, key: &KeyRequest) -> pb::EnrolRequest {
    pb::EnrolRequest { token: token.to_owned(), service: service.to_owned(), csr: key.csr.clone() }
}

fn strict() -> Options {
    Options { control: Settings::default(), ..Options::default() }
}

async fn token(plane: &Plane, service: &str) -> String {
    plane.ca.create_token(vec![name(service)], Duration::from_secs(600), 1).await.unwrap()
}

#[tokio::test]
async fn a_token_makes_a_member() {
    let plane = Plane::with(strict()).await;
    let mut settings = plane.settings("web", &[]);
    settings.token = Some(token(&plane, "web").await);
    assert!(!format!("{settings:?}").contains("wt1."), "the token is a secret");
    let agent = synced(settings).await;
    let identity = agent.handle.identity.borrow().clone().unwrap();
    assert_eq!(*identity.id(), plane.ca.service_id(&name("web")).unwrap());
}

#[tokio::test]
async fn a_bad_token_ends_the_agent() {
    let plane = Plane::with(strict()).await;
    let (good, other) = (token(&plane, "web").await, token(&plane, "db").await);
    let pin = Token::parse(&good).unwrap().pin().to_owned();
    let unknown = format!("wt1.{}.{}.{pin}", "0".repeat(16), "0".repeat(64));
    for bad in ["no token at all".to_owned(), unknown, other] {
        let mut settings = plane.settings("web", &[]);
        settings.token = Some(bad.clone());
        let mut agent = Agent::start(settings);
        let error = within("the failure", agent.failed()).await;
        assert!(matches!(error, AgentError::Enrolment(_)), "{error}");
        let secret = bad.split('.').nth(2).unwrap_or("no token");
        assert!(!error.to_string().contains(secret), "{error}");
    }
}

#[tokio::test]
async fn a_server_with_another_root_gets_no_token() {
    let (plane, imposter) = (Plane::with(strict()).await, Plane::start().await);
    let mut settings = imposter.settings("web", &[]);
    settings.token = Some(token(&plane, "web").await);
    let mut agent = Agent::start(settings);
    let error = within("the refusal", agent.failed()).await;
    assert!(error.to_string().contains("pinned key"), "{error}");
    assert!(agent.handle.identity.borrow().is_none());
}

#[tokio::test]
async fn a_token_is_used_once_but_an_answer_may_get_lost() {
    let plane = Plane::with(strict()).await;
    let token = token(&plane, "web").await;
    let mut client = IdentityClient::new(anonymous(&plane).await);
    let (key, other) = (KeyRequest::generate().unwrap(), KeyRequest::generate().unwrap());
    let first = client.enrol(request(&token, "web", &key)).await.unwrap().into_inner();
    assert!(first.valid_for_ms > 3_000_000 && first.chain.len() >= 2);
    client.enrol(request(&token, "web", &key)).await.expect("the same key may ask again");
    let status = client.enrol(request(&token, "web", &other)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
}

#[tokio::test]
async fn faults_have_their_codes_and_name_the_field() {
    let plane = Plane::with(strict()).await;
    let token = token(&plane, "web").await;
    let key = KeyRequest::generate().unwrap();
    let mut client = IdentityClient::new(anonymous(&plane).await);
    let mut code = async |request| client.enrol(request).await.unwrap_err();
    assert_eq!(code(request("", "web", &key)).await.code(), Code::Unauthenticated);
    assert_eq!(code(request(&token, "db", &key)).await.code(), Code::PermissionDenied);
    let status = code(request(&token, "a/b", &key)).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("service: "), "{status}");
    for csr in [vec![], vec![0x30], vec![0; 9000]] {
        let status = code(pb::EnrolRequest { csr, ..request(&token, "web", &key) }).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("csr: "), "{status}");
    }
    let csr = KeyRequest::generate().unwrap().csr;
    let status = client.renew(pb::RenewRequest { csr }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "renewal needs a certificate: {status}");
    let mut mesh = MeshClient::new(anonymous(&plane).await);
    let status = mesh.report(pb::ReportRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn renewal_keeps_the_identity_whatever_the_request_says() {
    let plane = Plane::start().await;
    let agent = plane.agent("web", &[]).await;
    let mut client = IdentityClient::new(as_agent(&plane, &agent).await);
    let key = KeyRequest::generate().unwrap();
    let got = client.renew(pb::RenewRequest { csr: key.csr.clone() }).await.unwrap().into_inner();
    assert_eq!(got.spiffe_id, plane.ca.service_id(&name("web")).unwrap().to_string());
    let bundle = plane.ca.bundle().borrow().clone();
    let now = std::time::SystemTime::now();
    let renewed = Identity::new(1, got.chain, &key.key, &bundle, now).unwrap();
    assert_eq!(renewed.id(), agent.handle.identity.borrow().as_ref().unwrap().id());
}

/// Several lifetimes: the identity is replaced in time, every time, and nothing else is disturbed.
#[tokio::test]
async fn short_lived_certificates_are_renewed_in_time() {
    let options = Options { leaf_ttl: Duration::from_secs(3), ..Options::default() };
    let plane = Plane::with(options).await;
    let _db = plane.agent("db", &[]).await;
    let web = plane.agent("web", &["db"]).await;
    let mut identity = web.handle.identity.clone();
    let first = identity.borrow().clone().unwrap();
    let mut serials = std::collections::BTreeSet::new();
    while serials.len() < 5 {
        let current = identity.borrow_and_update().clone().unwrap();
        assert!(std::time::SystemTime::now() < current.not_after(), "it was renewed too late");
        assert_eq!(current.id(), first.id());
        assert!(current.generation() >= first.generation());
        serials.insert(current.serial().to_owned());
        within("a renewal", identity.changed()).await.unwrap();
        assert_eq!(super::endpoints(&web, "db").len(), 1);
    }
    eventually("the stream", || web.handle.status.borrow().registered).await;
    assert_eq!(web.handle.status.borrow().stale_refused, 0);
}
