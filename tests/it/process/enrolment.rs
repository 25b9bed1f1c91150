//! One token, two hundred claimants, and a server that is killed as soon as it has taken the token.

use std::sync::Arc;

use futures_util::future::join_all;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use weft::model::Token;
use weft::pb;
use weft::pb::identity_client::IdentityClient;
use weft::tls::{self, KeyRequest};

use super::mesh::Mesh;
use super::slow;
use super::support::within;

const CLAIMANTS: usize = 200;

/// What a claimant was told; `None` when it cannot know.
type Told = Option<bool>;

async fn dial(mesh: &Mesh, pin: &str) -> Option<Channel> {
    let (config, address) = (tls::bootstrap_config(Some(pin)), mesh.grpc);
    let connector = tower::service_fn(move |_| {
        let connector = TlsConnector::from(Arc::clone(&config));
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector.connect(tls::no_server_name(), tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://control").connect_with_connector(connector).await.ok()
}

async fn claim(channel: Option<Channel>, token: &str, csr: &[u8]) -> Told {
    let mut client = IdentityClient::new(channel?);
    loop {
        let request =
            pb::EnrolRequest { token: token.to_owned(), service: "web".to_owned(), csr: csr.to_vec() };
        match client.enrol(request).await {
            Ok(_) => return Some(true),
            Err(status) if status.code() == Code::Unauthenticated => return Some(false),
            // Too many at once.
            Err(status) if status.code() == Code::ResourceExhausted => {}
            Err(_broken) => return None,
        }
    }
}

async fn race(mesh: &Mesh, token: &str, keys: &[KeyRequest]) -> Vec<Told> {
    let parsed = Token::parse(token).unwrap();
    let channels = join_all((0..8).map(|_| dial(mesh, parsed.pin()))).await;
    let claims = keys.iter().zip(channels.iter().cycle());
    let claims = claims.map(|(key, channel)| claim(channel.clone(), token, &key.csr));
    join_all(claims).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_with_a_token_in_hand_certifies_one_key() {
    let rounds = if slow("ten kills instead of two") { 10 } else { 2 };
    let mut mesh = Mesh::start().await;
    let mut unanswered = 0;
    for _ in 0..rounds {
        let token = mesh.done(&["token", "create", "--service", "web"]).await;
        let token = token.trim().to_owned();
        let keys: Vec<_> = (0..CLAIMANTS).map(|_| KeyRequest::generate().unwrap()).collect();
        let mut server = mesh.take_server();
        let used = token.split('.').nth(1).unwrap().to_owned();
        let killed = async {
            let taken = |line: &serde_json::Value| {
                line["message"] == "enrolment token used" && line["token"] == used.as_str()
            };
            server.logged("that the token is used", taken).await;
            server.kill().await;
        };
        let (first, ()) = tokio::join!(race(&mesh, &token, &keys), killed);
        mesh.start_server().await;
        let second = within("the second race", race(&mesh, &token, &keys)).await;
        assert!(second.iter().all(Option::is_some), "the server lives");
        let granted: Vec<_> = (0..CLAIMANTS)
            .filter(|number| first[*number] == Some(true) || second[*number] == Some(true))
            .collect();
        assert_eq!(granted.len(), 1, "{granted:?}");
        assert_eq!(second[granted[0]], Some(true), "whose use was written may come again");
        unanswered += usize::from(first[granted[0]].is_none());
    }
    println!("{rounds} kills, {unanswered} of them between use and answer");
}
