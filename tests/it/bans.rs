//! Bans at the sidecars: no handshake in either direction, and what is open is cut within a second, for
//! lanes and in Connect mode, while others go on undisturbed.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft::model::ban::Subject;
use weft::model::{Reason, Serial};

use crate::connect_mode::foreign_client;
use crate::plane::{Plane, application, echo, pair, soon};

/// Asks through an open connection and waits for the echo.
async fn still_works(client: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> io::Result<()> {
    client.write_all(b"ping").await?;
    let mut got = [0; 4];
    soon("echo", client.read_exact(&mut got)).await?;
    assert_eq!(&got, b"ping");
    Ok(())
}

/// Whether a new connection is reset, at the latest when it is used.
async fn is_refused(web: &Plane) -> bool {
    match web.try_dial("db").await {
        Ok(mut client) => still_works(&mut client).await.is_err(),
        Err(fault) => fault.kind() == io::ErrorKind::ConnectionReset,
    }
}

async fn open(web: &Plane, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = web.dial("db").await;
        still_works(&mut client).await.unwrap();
        clients.push(client);
    }
    clients
}

/// Waits until every connection is cut, which may take a second.
async fn all_cut(clients: Vec<TcpStream>, since: Instant) {
    for mut client in clients {
        let mut rest = Vec::new();
        let end = soon("the cut", client.read_to_end(&mut rest)).await;
        assert!(end.is_err(), "a cut is no clean end");
    }
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

fn names(plane: &Plane) -> [Subject; 3] {
    let identity = plane.identity.borrow().clone().unwrap();
    let enrolment = Serial::parse(identity.serial()).unwrap().enrolment.to_string();
    [
        Subject::identity(identity.id().as_str()).unwrap(),
        Subject::enrolment(&enrolment).unwrap(),
        Subject::serial(identity.serial()).unwrap(),
    ]
}

#[tokio::test]
async fn who_accepts_cuts_a_banned_caller() {
    let (mut web, db, app, ca) = pair().await;
    echo(app);
    let api = Plane::start(&ca, "api", db.inbound, &["db"]);
    api.knows("db", "db-1", db.inbound);
    let mut bystanders = open(&api, 8).await;
    for subject in names(&web) {
        let clients = open(&web, 8).await;
        let started = Instant::now();
        db.ban(&subject, true);
        all_cut(clients, started).await;
        for _ in 0..8 {
            assert_eq!(web.ended().await, Reason::PeerReset, "{subject}: the caller learns no more");
        }
        assert!(is_refused(&web).await, "{subject}: a new connection");
        assert_ne!(web.ended().await, Reason::Ok);
        db.shows(r#"weft_tls_handshakes_total{direction="inbound",result="denied"}"#, |n| n > 0.0).await;
        for client in &mut bystanders {
            still_works(client).await.unwrap();
        }
        db.ban(&subject, false);
    }
    open(&web, 1).await;
}

#[tokio::test]
async fn who_dials_cuts_a_banned_destination() {
    let (mut web, db, app, _ca) = pair().await;
    echo(app);
    for subject in names(&db) {
        let clients = open(&web, 8).await;
        let started = Instant::now();
        web.ban(&subject, true);
        all_cut(clients, started).await;
        for _ in 0..8 {
            assert_eq!(web.ended().await, Reason::Denied, "{subject}");
        }
        assert!(is_refused(&web).await, "{subject}: a new connection");
        assert_eq!(web.ended().await, Reason::Denied, "{subject}");
        web.ban(&subject, false);
    }
    open(&web, 1).await;
}

#[tokio::test]
async fn connect_mode_is_no_way_around_a_ban() {
    let (web, db, app, ca) = pair().await;
    echo(app);
    let mut inbound = foreign_client(&ca, "web", &db).await;
    still_works(&mut inbound).await.unwrap();
    let subject = names(&web)[0].clone();
    let started = Instant::now();
    db.ban(&subject, true);
    assert!(soon("the cut", inbound.read_u8()).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    // The other direction: a foreign server.
    let (listener, address) = application().await;
    let api = Plane::start(&ca, "api", address, &["db"]);
    api.knows("db", "db-2", address);
    let server = crate::connect_mode::foreign_server(&ca, "db", &listener);
    let (mut client, mut server) = tokio::join!(api.dial("db"), server);
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon("a byte", server.read_u8()).await.unwrap(), b'x');
    let started = Instant::now();
    api.ban(&names(&db)[0], true);
    assert!(soon("the cut", server.read_u8()).await.is_err());
    assert!(soon("the cut", client.read_u8()).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
