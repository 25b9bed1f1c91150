//! Where a tunnel leads, whom it lets through, and what it says when it does not. That it passes TCP
//! through unchanged is `fidelity`'s matter.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft::model::{Action, Reason};

use crate::plane::{Plane, application, echo, pair, soon};

async fn accept(app: &TcpListener) -> TcpStream {
    soon("connection at the application", app.accept()).await.unwrap().0
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("end of stream", stream.read_to_end(&mut all)).await?;
    Ok(all)
}

/// Opens a connection and asserts that it is broken off; the reset may come before the first call
/// on it returns.
async fn assert_broken_off(plane: &Plane, upstream: &str) {
    if let Ok(mut client) = TcpStream::connect(plane.upstreams[upstream]).await {
        assert!(read_all(&mut client).await.is_err(), "the connection must not end cleanly");
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_and_both_ends_are_clean() {
    let (mut web, mut db, app, _ca) = pair().await;
    let mut client = web.dial("db").await;
    client.write_all(b"ping").await.unwrap();
    let mut server = accept(&app).await;
    let mut got = [0; 4];
    soon("ping", server.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"ping");
    server.write_all(b"pong!").await.unwrap();
    soon("pong", client.read_exact(&mut got)).await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await.unwrap(), b"!");
    drop(client);
    assert_eq!(web.ended().await, Reason::Ok);
    assert!(db.edges.try_recv().is_err(), "only the dialling side reports an edge");
}

#[tokio::test]
async fn many_connections_at_once_share_lanes() {
    let (mut web, _db, app, _ca) = pair().await;
    echo(app);
    let address = web.upstreams["db"];
    let clients = (0..300u32).map(|number| async move {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&number.to_be_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), number.to_be_bytes());
    });
    soon("all echoes", futures_util::future::join_all(clients)).await;
    for _ in 0..300 {
        assert_eq!(web.ended().await, Reason::Ok);
    }
}

#[tokio::test]
async fn denied_means_no_connection_at_the_application_and_a_reason_at_the_source() {
    let (mut web, db, app, _ca) = pair().await;
    db.intend("web", "db", Action::Deny);
    assert_broken_off(&web, "db").await;
    assert_eq!(web.ended().await, Reason::Denied);
    db.intend("web", "db", Action::Allow);
    let _client = web.dial("db").await;
    let mut server = accept(&app).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), server.read(&mut byte)).await;
    assert!(early.is_err(), "the first connection the application sees is the allowed, silent one");
}

#[tokio::test]
async fn a_new_denial_cuts_what_runs_and_leaves_the_rest() {
    let (mut web, db, app, ca) = pair().await;
    let mut other = Plane::start(&ca, "other", db.inbound, &["db"]);
    other.knows("db", "db-1", db.inbound);
    let mut cut = web.dial("db").await;
    cut.write_all(b"a").await.unwrap();
    let mut cut_server = accept(&app).await;
    let mut kept = other.dial("db").await;
    kept.write_all(b"b").await.unwrap();
    let mut kept_server = accept(&app).await;
    let mut byte = [0];
    soon("a", cut_server.read_exact(&mut byte)).await.unwrap();
    soon("b", kept_server.read_exact(&mut byte)).await.unwrap();

    db.intend("web", "db", Action::Deny);
    assert!(read_all(&mut cut).await.is_err());
    assert!(read_all(&mut cut_server).await.is_err());
    assert_eq!(web.ended().await, Reason::Denied);
    kept.write_all(b"c").await.unwrap();
    soon("c", kept_server.read_exact(&mut byte)).await.unwrap();
    assert!(other.edges.try_recv().is_err());
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let (mut web, _db, app, _ca) = pair().await;
    let (gone, dead) = application().await;
    drop(gone);
    web.knows("db", "db-0", dead);
    for _ in 0..20 {
        let mut client = web.dial("db").await;
        client.write_all(b"hi").await.unwrap();
        let server = accept(&app).await;
        drop(server);
        drop(client);
        web.ended().await;
    }
}

#[tokio::test]
async fn an_application_that_is_down_is_named_and_tried_elsewhere() {
    let (mut web, _db, app, ca) = pair().await;
    let (gone, dead) = application().await;
    drop(gone);
    let broken = Plane::start(&ca, "db", dead, &[]);
    broken.allow_all();
    web.knows("db", "db-0", broken.inbound);
    for _ in 0..10 {
        let mut client = web.dial("db").await;
        client.write_all(b"early words").await.unwrap();
        let mut server = accept(&app).await;
        let mut got = [0; 11];
        soon("early words", server.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"early words");
    }
    drop(app);
    assert_broken_off(&web, "db").await;
    // The ten above were cut when their server went out of scope, or are still closing.
    while web.ended().await != Reason::AppRefused {}
}

#[tokio::test]
async fn nothing_to_dial_is_said_at_once() {
    let (mut web, db, _app, ca) = pair().await;
    let mut lonely = Plane::start(&ca, "lonely", db.inbound, &["nowhere"]);
    assert_broken_off(&lonely, "nowhere").await;
    assert_eq!(lonely.ended().await, Reason::NoService);
    let (gone, dead): (TcpListener, SocketAddr) = application().await;
    drop(gone);
    lonely.knows("nowhere", "n-1", dead);
    assert_broken_off(&lonely, "nowhere").await;
    assert_eq!(lonely.ended().await, Reason::ConnectRefused);
    assert!(web.edges.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_with_the_wrong_identity_is_never_used() {
    let (mut web, _db, _app, ca) = pair().await;
    let (app, address) = application().await;
    let impostor = Plane::start(&ca, "impostor", address, &[]);
    impostor.allow_all();
    let mut lonely = Plane::start(&ca, "web", address, &["db"]);
    lonely.knows("db", "db-1", impostor.inbound);
    assert_broken_off(&lonely, "db").await;
    assert_eq!(lonely.ended().await, Reason::IdentityMismatch);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), app.accept()).await.is_err(),
        "the impostor's application was reached"
    );
    assert!(web.edges.try_recv().is_err());
}

#[tokio::test]
async fn a_new_certificate_moves_new_streams_and_keeps_old_ones() {
    let (web, db, app, ca) = pair().await;
    let mut old = web.dial("db").await;
    let mut old_server = accept(&app).await;
    for generation in 2..6 {
        web.identity.send_replace(Some(ca.identity("web", generation)));
        db.identity.send_replace(Some(ca.identity("db", generation)));
        let mut client = web.dial("db").await;
        client.write_all(b"new").await.unwrap();
        let mut server = accept(&app).await;
        let mut got = [0; 3];
        soon("new", server.read_exact(&mut got)).await.unwrap();
        old.write_all(b"old").await.unwrap();
        soon("old", old_server.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"old");
    }
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    let (mut web, mut db, app, _ca) = pair().await;
    let mut client = web.dial("db").await;
    client.write_all(b"one").await.unwrap();
    let mut server = accept(&app).await;
    let proxy = db.proxy.take().unwrap();
    let drained = tokio::spawn(proxy.drain(Duration::from_secs(10)));
    let mut got = [0; 3];
    soon("one", server.read_exact(&mut got)).await.unwrap();
    // New connections are refused as soon as the drain has begun; the old one still works.
    loop {
        // It may be broken off before the first call on it returns.
        let _late = TcpStream::connect(web.upstreams["db"]).await;
        if tokio::time::timeout(Duration::from_millis(200), app.accept()).await.is_err() {
            break;
        }
    }
    client.write_all(b"two").await.unwrap();
    soon("two", server.read_exact(&mut got)).await.unwrap();
    drop(client);
    drop(server);
    assert!(soon("drain", drained).await.unwrap(), "every stream ended by itself");
    web.ended().await;
}

#[tokio::test]
async fn connections_wait_for_the_first_configuration() {
    let (web, _db, app, _ca) = pair().await;
    web.set_synced(false);
    let mut client = web.dial("db").await;
    client.write_all(b"early").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), app.accept()).await.is_err());
    web.set_synced(true);
    let mut server = accept(&app).await;
    let mut got = [0; 5];
    soon("early", server.read_exact(&mut got)).await.unwrap();
}
