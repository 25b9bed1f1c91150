//! More than a sidecar can hold: what is beyond a limit is refused at once and counted, and what was
//! there before is not harmed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use weft::model::{Reason, UpstreamConfig, UpstreamLimits};
use weft::net::capacity::Capacity;

use crate::plane::{Authority, Plane, Tuning, application, echo, pair, soon};

const PLENTY: Capacity = Capacity {
    descriptors: 1000,
    connections: 1000,
    streams: 1000,
    peers: 1000,
    handshakes: 1000,
    per_source: 1000,
    window_growth: usize::MAX,
};

fn with(capacity: Capacity) -> Tuning {
    Tuning { capacity, ..Tuning::default() }
}

fn circuit(connections: Option<u32>, pending: Option<u32>) -> Tuning {
    let mut tuning = Tuning::default();
    let limits = UpstreamLimits { connections, pending };
    tuning.upstream = UpstreamConfig { limits, ..tuning.upstream };
    tuning
}

/// `web` and `db` with limits of their own; the listener is `db`'s application, which echoes.
async fn tuned_pair(web: Tuning, db: Tuning) -> (Plane, Plane) {
    let authority = Authority::new().await;
    let (app, address) = application().await;
    echo(app);
    let db = Plane::tuned(&authority, "db", address, &[], db);
    let web = Plane::tuned(&authority, "web", address, &["db"], web);
    db.allow_all();
    web.knows("db", "db-1", db.inbound);
    (web, db)
}

/// Opens a connection through a sidecar and proves that it works.
async fn talk(web: &Plane) -> io::Result<TcpStream> {
    let mut client = TcpStream::connect(web.upstreams["db"]).await?;
    client.write_all(b"ping").await?;
    let mut got = [0; 4];
    soon("echo", client.read_exact(&mut got)).await?;
    Ok(client)
}

/// So many connections at once; those that work.
async fn crowd(web: &Plane, size: usize) -> Vec<TcpStream> {
    let all = futures_util::future::join_all((0..size).map(|_| talk(web))).await;
    all.into_iter().filter_map(Result::ok).collect()
}

#[tokio::test]
async fn an_upstream_has_no_more_connections_than_its_circuit_allows() {
    let (mut web, _db) = tuned_pair(circuit(Some(2), None), Tuning::default()).await;
    let first = talk(&web).await.unwrap();
    let _second = talk(&web).await.unwrap();
    let started = Instant::now();
    assert!(talk(&web).await.is_err());
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(web.ended().await, Reason::Overloaded);
    assert!(web.reached("max_connections") >= 1.0);
    drop(first);
    assert_eq!(web.ended().await, Reason::Ok);
    talk(&web).await.unwrap();
}

#[tokio::test]
async fn an_upstream_has_no_more_pending_than_its_circuit_allows() {
    let ca = Authority::new().await;
    let (silent, address) = application().await;
    let mut web = Plane::tuned(&ca, "web", address, &["db"], circuit(None, Some(1)));
    web.knows("db", "db-1", address);
    let pending = web.dial("db").await;
    let (_held, _) = soon("the dial of the first", silent.accept()).await.unwrap();
    assert!(talk(&web).await.is_err());
    assert_eq!(web.ended().await, Reason::Overloaded);
    assert!(web.reached("max_pending") >= 1.0);
    drop(pending);
}

#[tokio::test]
async fn beyond_its_connections_a_sidecar_resets_and_serves_on() {
    let (web, _db) = tuned_pair(with(Capacity { connections: 5, ..PLENTY }), Tuning::default()).await;
    let served = crowd(&web, 30).await;
    assert_eq!(served.len(), 5);
    assert!(web.reached("connections") >= 25.0);
    for mut client in served {
        client.write_all(b"more").await.unwrap();
        soon("an answer on an old connection", client.read_exact(&mut [0; 4])).await.unwrap();
    }
    let given_back = async { while crowd(&web, 5).await.len() < 5 {} };
    soon("places that were given back", given_back).await;
}

#[tokio::test]
async fn descriptors_are_shared_by_all_kinds() {
    let few = Capacity { descriptors: 6, ..PLENTY };
    let (web, db) = tuned_pair(Tuning::default(), with(few)).await;
    // Lanes take some of the six, the application's ends of streams the rest.
    let served = crowd(&web, 30).await.len();
    assert!((1..6).contains(&served), "{served} of 30");
    assert!(db.reached("descriptors") >= 1.0);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_with_a_reason() {
    let (mut web, db) = tuned_pair(Tuning::default(), with(Capacity { streams: 3, ..PLENTY })).await;
    let served = crowd(&web, 4).await;
    assert_eq!(served.len(), 3);
    assert_eq!(web.ended().await, Reason::Overloaded);
    assert!(db.reached("streams") >= 1.0);
}

#[tokio::test]
async fn one_source_cannot_take_every_place() {
    let few = Capacity { peers: 8, per_source: 4, ..PLENTY };
    let (web, db) = tuned_pair(Tuning::default(), with(few)).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(from([127, 0, 0, 9], db.inbound).await);
    }
    db.shows(r#"weft_limit_reached_total{limit="per_source"}"#, |count| count >= 4.0).await;
    talk(&web).await.unwrap();
}

/// A connection from an address of the loopback network; it may be reset before it is known here.
async fn from(source: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(source)), 0)).unwrap();
    soon("connection", socket.connect(to)).await
}

#[tokio::test]
async fn silent_peers_make_room_for_new_ones() {
    let (web, db) = tuned_pair(Tuning::default(), with(Capacity { handshakes: 4, ..PLENTY })).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(db.inbound).await.unwrap());
    }
    talk(&web).await.unwrap();
    // Long before the deadline of a handshake, all but four of each of the two workers have left.
    let left = silent.iter_mut().map(async |client| {
        let end = timeout(Duration::from_secs(3), client.read(&mut [0; 8])).await;
        usize::from(end.is_ok())
    });
    let left: usize = futures_util::future::join_all(left).await.into_iter().sum();
    assert!(left >= 40 - 2 * 4, "{left} of 40 left");
    assert!(db.reached("handshakes") >= 20.0);
}

#[tokio::test]
async fn who_has_proved_nothing_may_not_say_much() {
    let (_web, db, _app, _ca) = pair().await;
    let mut peer = TcpStream::connect(db.inbound).await.unwrap();
    // A ClientHello that is 60,000 bytes long, in records of 16 KiB, and does not come to its end.
    let mut hello = vec![1, 0, 0xea, 0x60];
    hello.resize(48 * 1024, 0);
    let mut wire = Vec::new();
    for piece in hello.chunks(16 * 1024) {
        wire.extend_from_slice(&[0x16, 3, 1]);
        wire.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
        wire.extend_from_slice(piece);
    }
    let started = Instant::now();
    // It may be cut off in the middle of it.
    let _cut = peer.write_all(&wire).await;
    let read = soon("the end", peer.read(&mut [0; 64])).await;
    assert!(started.elapsed() < Duration::from_secs(3), "it was heard until the deadline: {read:?}");
    let refused = r#"weft_tls_handshakes_total{direction="inbound",result="tls_handshake"}"#;
    db.shows(refused, |count| count == 1.0).await;
}

#[tokio::test]
async fn a_way_that_leads_back_is_refused_at_once() {
    let ca = Authority::new().await;
    let (app, address) = application().await;
    let mut web = Plane::start(&ca, "db", address, &["db"]);
    web.allow_all();
    web.knows("db", "own-inbound", web.inbound);
    web.knows("db", "own-upstream", web.upstreams["db"]);
    let started = Instant::now();
    for _ in 0..20 {
        assert!(talk(&web).await.is_err());
        assert_eq!(web.ended().await, Reason::NoHealthyEndpoint);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(
        web.metric(r#"weft_connections_opened_total{direction="outbound",src="db",dst="db"}"#),
        20.0
    );
    // Another instance of the same service is no loop.
    let other = Plane::start(&ca, "db", address, &[]);
    other.allow_all();
    echo(app);
    web.knows("db", "other", other.inbound);
    talk(&web).await.unwrap();
}
