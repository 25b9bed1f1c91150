//! Connect mode: a foreign proxy at either end, which knows nothing of lanes: plain mutual TLS and
//! raw bytes, with the same verification and authorization.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use weft::model::{Action, Reason};

use crate::plane::{Authority, Plane, application, name, pair, soon};

/// Dials a sidecar as Consul's own proxy does: no ALPN, its own certificate.
pub(crate) async fn foreign_client(
    ca: &Authority,
    service: &str,
    plane: &Plane,
) -> client::TlsStream<TcpStream> {
    let mut config = (*ca.identity(service, 1).client_config(&name("db")).unwrap()).clone();
    config.alpn_protocols.clear();
    let stream = TcpStream::connect(plane.inbound).await.unwrap();
    let server = ServerName::IpAddress(plane.inbound.ip().into());
    soon("handshake", TlsConnector::from(Arc::new(config)).connect(server, stream)).await.unwrap()
}

/// Takes a sidecar's connection as Consul's own proxy does.
pub(crate) async fn foreign_server(
    ca: &Authority,
    service: &str,
    listener: &TcpListener,
) -> server::TlsStream<TcpStream> {
    let mut config = (*ca.identity(service, 1).server_config()).clone();
    config.alpn_protocols.clear();
    let (stream, _) = soon("connection", listener.accept()).await.unwrap();
    soon("handshake", TlsAcceptor::from(Arc::new(config)).accept(stream)).await.unwrap()
}

#[tokio::test]
async fn a_foreign_client_reaches_the_application() {
    let (_web, db, app, ca) = pair().await;
    let mut client = foreign_client(&ca, "web", &db).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, _) = soon("application", app.accept()).await.unwrap();
    let mut got = Vec::new();
    soon("question", server.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"question");
    let answer = vec![5u8; 300_000];
    server.write_all(&answer).await.unwrap();
    drop(server);
    let mut back = Vec::new();
    soon("answer", client.read_to_end(&mut back)).await.unwrap();
    assert!(back == answer, "the answer arrived whole and ended with close_notify");
}

#[tokio::test]
async fn a_foreign_client_is_authorized_like_any_other() {
    let (_web, db, app, ca) = pair().await;
    db.intend("web", "db", Action::Deny);
    let mut client = foreign_client(&ca, "web", &db).await;
    // The refusal may come before or after these bytes.
    let _early = client.write_all(b"question").await;
    let mut back = Vec::new();
    let end = soon("refusal", client.read_to_end(&mut back)).await;
    assert!(end.is_err() && back.is_empty(), "a refusal is no clean end");
    let reached = tokio::time::timeout(Duration::from_millis(50), app.accept()).await;
    assert!(reached.is_err(), "the application was reached");
}

#[tokio::test]
async fn a_reset_application_is_no_clean_end_for_a_foreign_client() {
    let (_web, db, app, ca) = pair().await;
    let mut client = foreign_client(&ca, "web", &db).await;
    client.write_all(b"x").await.unwrap();
    let (server, _) = soon("application", app.accept()).await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    let mut back = Vec::new();
    assert!(soon("end", client.read_to_end(&mut back)).await.is_err());
}

#[tokio::test]
async fn a_foreign_server_serves_several_connections() {
    let ca = Authority::new().await;
    let (listener, address) = application().await;
    let mut web = Plane::start(&ca, "web", address, &["db"]);
    web.knows("db", "db-1", address);
    let server = tokio::spawn(async move {
        for _ in 0..5 {
            let mut stream = foreign_server(&ca, "db", &listener).await;
            let mut question = Vec::new();
            stream.read_to_end(&mut question).await.unwrap();
            stream.write_all(&question.repeat(1000)).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    for round in 0..5u8 {
        let mut client = web.dial("db").await;
        client.write_all(&[round; 100]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut back = Vec::new();
        soon("answer", client.read_to_end(&mut back)).await.unwrap();
        assert_eq!(back, [round; 100_000]);
        assert_eq!(web.ended().await, Reason::Ok);
    }
    server.await.unwrap();
}

#[tokio::test]
async fn truncation_by_a_foreign_server_is_a_reset() {
    let ca = Authority::new().await;
    let (listener, address) = application().await;
    let mut web = Plane::start(&ca, "web", address, &["db"]);
    web.knows("db", "db-1", address);
    let mut client = web.dial("db").await;
    client.write_all(b"x").await.unwrap();
    let mut server = foreign_server(&ca, "db", &listener).await;
    let mut question = [0];
    soon("question", server.read_exact(&mut question)).await.unwrap();
    server.write_all(b"half of the ans").await.unwrap();
    let (tcp, _tls) = server.into_inner();
    drop(tcp); // FIN without close_notify
    let mut back = Vec::new();
    let end = soon("end", client.read_to_end(&mut back)).await;
    assert!(end.is_err(), "a truncated stream looked like a whole one: {back:?}");
    assert_eq!(web.ended().await, Reason::PeerReset);
}

#[tokio::test]
async fn a_foreign_server_that_resets_after_its_half_close_is_noticed() {
    let ca = Authority::new().await;
    let (listener, address) = application().await;
    let mut web = Plane::start(&ca, "web", address, &["db"]);
    web.knows("db", "db-1", address);
    let mut client = web.dial("db").await;
    client.write_all(b"x").await.unwrap();
    let mut server = foreign_server(&ca, "db", &listener).await;
    let mut question = [0];
    soon("question", server.read_exact(&mut question)).await.unwrap();
    server.shutdown().await.unwrap();
    let mut back = Vec::new();
    assert_eq!(soon("half-close", client.read_to_end(&mut back)).await.unwrap(), 0);
    let (tcp, _tls) = server.into_inner();
    tcp.set_zero_linger().unwrap();
    drop(tcp);
    assert_eq!(web.ended().await, Reason::PeerReset);
}
