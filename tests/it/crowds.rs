//! Crowds at a sidecar's door: silent, nameless, denied, with old sessions; and what a denial does to a
//! thousand open connections. `WEFT_SLOW=1` runs them at full size.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client};
use weft::model::Action;
use weft::model::ban::Subject;
use weft::tls::{self, Identity};

use crate::pace::look_again;
use crate::plane::{Authority, Plane, echo, name, pair, soon};
use crate::process::slow;

/// So many with `WEFT_SLOW=1`, and a quarter without.
fn crowd(what: &str) -> usize {
    if slow(&format!("{what}: a thousand instead of 250")) { 1000 } else { 250 }
}

/// Counts who reaches an application, which hangs up on everybody.
fn counting(app: TcpListener) -> Arc<AtomicUsize> {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reached);
    tokio::spawn(async move {
        while app.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    reached
}

async fn handshake(
    plane: &Plane,
    config: &Arc<ClientConfig>,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(plane.inbound).await?;
    TlsConnector::from(Arc::clone(config)).connect(tls::no_server_name(), tcp).await
}

/// Has no certificate when it is asked for one.
#[derive(Debug)]
struct Nameless;

impl ResolvesClientCert for Nameless {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Waits for the end of a connection that must bring nothing.
async fn ends_empty(what: &str, stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut nothing = Vec::new();
    // A refusal by reset or alert is an error; a reaped silent client sees a plain end.
    let _either = soon(what, stream.read_to_end(&mut nothing)).await;
    assert!(nothing.len() < 64, "{what}: got {} bytes", nothing.len());
}

#[tokio::test]
async fn silent_nameless_and_denied_crowds_reach_no_application() {
    let (web, db, app, ca) = pair().await;
    let reached = counting(app);
    let count = crowd("silent, nameless and denied clients");
    db.intend("web", "db", Action::Deny);

    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(TcpStream::connect(db.inbound).await.unwrap());
    }
    let mut nameless = (*ca.identity("web", 1).client_config(&name("db")).unwrap()).clone();
    nameless.client_auth_cert_resolver = Arc::new(Nameless);
    let nameless = Arc::new(nameless);
    for _ in 0..count {
        let Ok(mut stream) = handshake(&db, &nameless).await else { continue };
        let _early = stream.write_all(b"\x01\0\0\x04\0\0\0\x01\0\0db").await;
        ends_empty("a nameless client", &mut stream).await;
    }
    let denied = ca.identity("web", 1).client_config(&name("db")).unwrap();
    let mut raw = (*denied).clone();
    raw.alpn_protocols.clear();
    let raw = Arc::new(raw);
    for _ in 0..count {
        let mut stream = handshake(&db, &raw).await.unwrap();
        let _early = stream.write_all(b"question").await;
        ends_empty("a denied client", &mut stream).await;
    }
    for _ in 0..count {
        match web.try_dial("db").await {
            Ok(mut client) => {
                let _early = client.write_all(b"question").await;
                ends_empty("a denied application", &mut client).await;
            }
            Err(refused) => assert_eq!(refused.kind(), ErrorKind::ConnectionReset),
        }
    }
    for client in &mut silent {
        ends_empty("a silent client", client).await;
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0, "somebody reached the application");
    db.intend("web", "db", Action::Allow);
    let _connected = web.dial("db").await;
    let arrival = async {
        while reached.load(Ordering::SeqCst) == 0 {
            look_again().await;
        }
    };
    soon("the first one who may", arrival).await;
}

/// Whoever opens connections keeps each of them open and working until it is forbidden.
async fn open(web: &Plane, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = web.dial("db").await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(soon("echo", client.read_u8()).await.unwrap(), b'x');
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_closes_all_it_forbids_within_a_second_and_nothing_else() {
    let (web, db, app, ca) = pair().await;
    echo(app);
    let api = Plane::start(&ca, "api", db.inbound, &["db"]);
    api.knows("db", "db-1", db.inbound);
    let count = crowd("open connections that a denial closes");
    let mut others = open(&api, 50).await;
    let clients = open(&web, count).await;
    let started = Instant::now();
    db.intend("web", "db", Action::Deny);
    let ends = clients.into_iter().map(|mut client| async move {
        let mut rest = Vec::new();
        let end = client.read_to_end(&mut rest).await;
        assert!(end.is_err() && rest.is_empty(), "a cut is no clean end");
        started.elapsed()
    });
    let mut took = soon("the end of all", futures_util::future::join_all(ends)).await;
    took.sort();
    let (p99, last) = (took[took.len() * 99 / 100], took[took.len() - 1]);
    println!("{count} connections closed: p99 {p99:?}, last {last:?}");
    assert!(p99 <= Duration::from_secs(1), "p99 {p99:?}");
    for client in &mut others {
        client.write_all(b"y").await.unwrap();
        assert_eq!(soon("echo", client.read_u8()).await.unwrap(), b'y');
    }
}

/// Settings that would resume any session they could.
fn eager(identity: &Identity) -> Arc<ClientConfig> {
    let mut config = (*identity.client_config(&name("db")).unwrap()).clone();
    config.resumption = Resumption::in_memory_sessions(256);
    Arc::new(config)
}

/// How many of so many handshakes end in a connection, and how many of those were resumed.
async fn replays(plane: &Plane, config: &Arc<ClientConfig>, count: usize) -> (usize, usize) {
    let (mut accepted, mut resumed) = (0, 0);
    for _ in 0..count {
        let Ok(mut stream) = handshake(plane, config).await else { continue };
        resumed += usize::from(stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
        // It is in only once the other side has answered OPEN.
        let _early = stream.write_all(b"\x01\0\0\x04\0\0\0\x01\0\0db").await;
        accepted += usize::from(soon("an answer", stream.read_u8()).await.is_ok());
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0, "a ticket was issued");
    }
    (accepted, resumed)
}

#[tokio::test]
async fn no_session_is_accepted_after_expiry_ban_or_rotation() {
    let (_web, db, app, ca) = pair().await;
    echo(app);
    let replayed = 100;
    let client = ca.identity("web", 1);
    let config = eager(&client);
    assert_eq!(replays(&db, &config, 10).await, (10, 0), "before, and nothing is resumed");

    let subject = Subject::serial(client.serial()).unwrap();
    db.ban(&subject, true);
    assert_eq!(replays(&db, &config, replayed).await, (0, 0), "after a ban");
    db.ban(&subject, false);
    assert_eq!(replays(&db, &config, 1).await, (1, 0));

    let short = ca.short_lived("web", Duration::from_secs(2)).await;
    let config_of_short = eager(&short);
    assert_eq!(replays(&db, &config_of_short, 5).await, (5, 0));
    let expired = async {
        while std::time::SystemTime::now() <= short.not_after() + Duration::from_secs(1) {
            look_again().await;
        }
    };
    soon("the expiry", expired).await;
    assert_eq!(replays(&db, &config_of_short, replayed).await, (0, 0), "after expiry");

    // The root that signed for the client is trusted no more: the sidecar goes on under another one.
    let new = Authority::new().await;
    db.identity.send_replace(Some(new.identity("db", 2)));
    assert_eq!(replays(&db, &config, replayed).await, (0, 0), "after rotation");
}

/// On a real port, between the settings that two sidecars use.
#[tokio::test]
async fn two_sidecars_choose_the_hybrid_group() {
    let (_web, db, _app, ca) = pair().await;
    let config = ca.identity("web", 1).client_config(&name("db")).unwrap();
    let stream = handshake(&db, &config).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

/// Handshakes that are cut, swollen or none at all.
pub(crate) fn broken_handshakes() -> Vec<(&'static str, Vec<u8>)> {
    let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0, 0];
    let record = |kind: u8, length: u16, body: &[u8]| {
        let mut wire = vec![kind, 3, 3];
        wire.extend(length.to_be_bytes());
        wire.extend_from_slice(body);
        wire
    };
    // A message of 16 MiB less one byte, in more records than are listened to.
    let endless = record(0x16, 16_384, &[1, 0xff, 0xff, 0xff]);
    let endless = [endless, vec![0; 16_380], record(0x16, 16_384, &[0; 16_384]).repeat(8)].concat();
    vec![
        ("a cut record", vec![0x16, 3, 1]),
        ("a cut hello", hello[..8].to_vec()),
        ("a short hello", hello.to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: db\r\n\r\n".to_vec()),
        ("SSL 2", [&[0x80, 0x2e, 1, 0, 2][..], &[0; 41]].concat()),
        ("a record of 65,535 bytes", record(0x16, 0xffff, &[0; 2000])),
        ("application data first", record(0x17, 5, b"hello")),
        ("an alert first", record(0x15, 2, &[2, 40])),
        ("an empty record again and again", record(0x16, 0, b"").repeat(2000)),
        ("a kind of record that is not", record(0x63, 3, b"abc")),
        ("an endless hello", endless),
        ("zeroes", vec![0; 4096]),
    ]
}

/// Sends bytes and waits for the end, which must bring no more than an alert.
pub(crate) async fn speaks_in_vain(address: SocketAddr, what: &str, wire: &[u8]) {
    let mut client = TcpStream::connect(address).await.unwrap();
    let _cut = client.write_all(wire).await;
    let _cut = client.shutdown().await;
    ends_empty(what, &mut client).await;
}

#[tokio::test]
async fn broken_handshakes_end_and_reach_nobody() {
    let (web, db, app, _ca) = pair().await;
    let reached = counting(app);
    for (what, wire) in broken_handshakes() {
        speaks_in_vain(db.inbound, what, &wire).await;
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0);
    let _connected = web.dial("db").await;
    let arrival = async {
        while reached.load(Ordering::SeqCst) == 0 {
            look_again().await;
        }
    };
    soon("an honest one", arrival).await;
}
