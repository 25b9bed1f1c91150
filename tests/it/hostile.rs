//! Peers that mean harm: they have a certificate of the mesh, or none, and break every rule.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client};
use weft::model::Action;

use crate::plane::{Authority, Plane, application, echo, name, pair, soon};

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const CREDIT: u8 = 5;
const FIN: u8 = 6;
const GOAWAY: u8 = 8;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut wire = (payload.len() as u32).to_be_bytes().to_vec();
    wire[0] = kind;
    wire.extend_from_slice(&stream.to_be_bytes());
    wire.extend_from_slice(payload);
    wire
}

fn open(stream: u32) -> Vec<u8> {
    frame(OPEN, stream, b"\0\0db")
}

/// A lane to a sidecar, spoken by hand.
async fn lane(ca: &Authority, plane: &Plane, alpn: &[&[u8]]) -> client::TlsStream<TcpStream> {
    let mut config = (*ca.identity("web", 1).client_config(&name("db")).unwrap()).clone();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(plane.inbound).await.unwrap();
    let server = ServerName::IpAddress(plane.inbound.ip().into());
    soon("handshake", TlsConnector::from(Arc::new(config)).connect(server, stream)).await.unwrap()
}

/// One connection through `web`, there and back.
async fn round_trip(web: &Plane) -> io::Result<Duration> {
    let started = Instant::now();
    let mut client = web.dial("db").await;
    client.write_all(b"ping").await?;
    let mut got = [0; 4];
    soon("echo", client.read_exact(&mut got)).await?;
    assert_eq!(&got, b"ping");
    Ok(started.elapsed())
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_cut_off_and_nobody_else() {
    let (web, db, app, ca) = pair().await;
    echo(app);
    let overflow = frame(CREDIT, 1, &u32::MAX.to_be_bytes());
    let cases = [
        ("unknown type", frame(9, 1, b"")),
        ("type zero", frame(0, 1, b"")),
        ("DATA too long", frame(DATA, 1, &[0; 70_000])),
        ("OPEN too long", frame(OPEN, 1, &[b'a'; 1025])),
        ("OPEN without a port", frame(OPEN, 1, b"\0")),
        ("OPEN of a name that is not text", frame(OPEN, 1, b"\0\0\xff")),
        ("OPEN on stream zero", frame(OPEN, 0, b"\0\0db")),
        ("GOAWAY on a stream", frame(GOAWAY, 1, &[0; 5])),
        ("FIN with a payload", [open(1), frame(FIN, 1, b"x")].concat()),
        ("a stream id twice", [open(1), open(1)].concat()),
        ("a lower stream id", [open(7), open(5)].concat()),
        ("credit beyond measure", [open(1), overflow.clone(), overflow].concat()),
        ("DATA on a stream never opened", [open(1), frame(DATA, 2, b"x")].concat()),
        ("FIN on a stream never opened", frame(FIN, 9, b"")),
        ("DATA after FIN", [open(1), frame(FIN, 1, b""), frame(DATA, 1, b"x")].concat()),
        ("OPENED by the dialling side", [open(1), frame(OPENED, 1, b"")].concat()),
        ("REFUSED by the dialling side", [open(1), frame(REFUSED, 1, &[1])].concat()),
    ];
    for (what, wire) in cases {
        let mut peer = lane(&ca, &db, &[b"weft/1"]).await;
        // It may be cut off in the middle of it.
        let _cut = peer.write_all(&wire).await;
        let mut rest = Vec::new();
        let end = soon(what, peer.read_to_end(&mut rest)).await;
        assert!(end.is_err(), "{what}: the end looked clean");
    }
    round_trip(&web).await.unwrap();
}

#[tokio::test]
async fn more_data_than_credit_is_cut_off() {
    let (_web, db, app, ca) = pair().await;
    let mut peer = lane(&ca, &db, &[b"weft/1"]).await;
    peer.write_all(&open(1)).await.unwrap();
    let (_never_reads, _) = soon("application", app.accept()).await.unwrap();
    let flood = frame(DATA, 1, &[0; 65_536]);
    let mut sent = 0;
    while soon("room", peer.write_all(&flood)).await.is_ok() {
        sent += flood.len();
        assert!(sent < 64 << 20, "credit did not stop the peer");
    }
}

#[tokio::test]
async fn bytes_after_close_notify_stop_nobody() {
    let (web, db, app, ca) = pair().await;
    echo(app);
    for _ in 0..4 {
        let (mut tcp, mut tls) = lane(&ca, &db, &[]).await.into_inner();
        tls.send_close_notify();
        let mut wire = Vec::new();
        tls.write_tls(&mut wire).unwrap();
        wire.extend_from_slice(&[0x17; 40_000]);
        tcp.write_all(&wire).await.unwrap();
    }
    for _ in 0..16 {
        round_trip(&web).await.unwrap();
    }
}

#[tokio::test]
async fn silent_clients_are_reaped_and_hold_up_nobody() {
    let (web, db, app, _ca) = pair().await;
    echo(app);
    let started = Instant::now();
    let mut silent = Vec::new();
    for number in 0..2000 {
        let mut client = TcpStream::connect(db.inbound).await.unwrap();
        if number % 2 == 0 {
            client.write_all(&[0x16]).await.unwrap(); // the first byte of a handshake, and no more
        }
        silent.push(client);
    }
    for _ in 0..10 {
        let took = round_trip(&web).await.unwrap();
        assert!(took < Duration::from_secs(2), "held up for {took:?}");
    }
    for client in &mut silent {
        let mut nothing = [0; 64];
        let read = soon("the end of a silent client", client.read(&mut nothing)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_reads_no_answers_is_not_listened_to() {
    let (web, db, app, ca) = pair().await;
    db.intend("web", "db", Action::Deny);
    let mut peer = lane(&ca, &db, &[b"weft/1"]).await;
    let (mut next, mut sent) = (1u32, 0usize);
    loop {
        let flood: Vec<u8> = (next..next + 1000).flat_map(open).collect();
        next += 1000;
        if !matches!(
            tokio::time::timeout(Duration::from_secs(2), peer.write_all(&flood)).await,
            Ok(Ok(()))
        ) {
            break;
        }
        sent += flood.len();
        assert!(sent < 48 << 20, "answers that nobody reads pile up");
    }
    db.intend("web", "db", Action::Allow);
    echo(app);
    round_trip(&web).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_leaves_time_for_neighbours() {
    let (web, db, app, ca) = pair().await;
    echo(app);
    let mut peers = Vec::new();
    for _ in 0..6 {
        let mut peer = lane(&ca, &db, &[b"weft/1"]).await;
        peers.push(tokio::spawn(async move {
            peer.write_all(&[open(1), frame(7, 1, &[0])].concat()).await.unwrap();
            // The stream is gone, so these cost no credit.
            let flood = frame(DATA, 1, &[]).repeat(8000);
            while peer.write_all(&flood).await.is_ok() {}
        }));
    }
    let mut worst = Duration::ZERO;
    for _ in 0..40 {
        worst = worst.max(round_trip(&web).await.unwrap());
    }
    for peer in &peers {
        peer.abort();
    }
    assert!(worst < Duration::from_secs(5), "held up for {worst:?}");
}

#[tokio::test]
async fn a_sidecar_that_accepts_and_says_nothing_costs_one_connect_timeout() {
    let ca = Authority::new().await;
    let (silent, address) = application().await;
    let mut web = Plane::start(&ca, "web", address, &["db"]);
    web.knows("db", "db-1", address);
    let started = Instant::now();
    let mut client = web.dial("db").await;
    let mut nothing = [0];
    assert!(soon("refusal", client.read(&mut nothing)).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    web.ended().await;
    drop(silent);
}
