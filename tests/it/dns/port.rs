//! The port over real sockets: both protocols, slow and lying clients, limits, the end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use weft::app::server::Server;
use weft::catalog::{Owner, Unlisted};
use weft::dns::limits;
use weft::model::{Definition, ServiceName};

use super::{DIG, addresses, question};
use crate::{http, mesh};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server and its DNS port.
pub(super) async fn server() -> (Server, SocketAddr) {
    let server = mesh::server().await;
    let dns = server.bound().dns.unwrap();
    (server, dns)
}

/// Puts instances of a service into a catalog, each at an address of its own.
pub(super) async fn register(server: &Server, service: &str, addresses: &[&str], port: u16) {
    let mut all = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let mut definition = Definition::new(ServiceName::new(service).unwrap(), port).unwrap();
        definition.id = format!("{service}-{number}").parse().unwrap();
        definition.address = (*address).to_owned();
        all.extend(definition.expand(&mesh::node(), 0).unwrap());
    }
    server.catalog().register(all, Owner::Permanent, Unlisted::Remove).await.unwrap();
}

/// One question over UDP.
pub(super) async fn over_udp(dns: SocketAddr, asked: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns).await.unwrap();
    socket.send(&asked.to_vec().unwrap()).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("no answer").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

/// A message with its length in front.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Message> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(Message::from_vec(&bytes).unwrap())
}

/// One question over TCP.
pub(super) async fn over_tcp(dns: SocketAddr, asked: &Message) -> Message {
    let mut stream = TcpStream::connect(dns).await.unwrap();
    stream.write_all(&framed(&asked.to_vec().unwrap())).await.unwrap();
    timeout(PATIENCE, read(&mut stream)).await.expect("no answer").unwrap()
}

/// Whether the other side ends the connection, by a close or a reset.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    ended.is_ok_and(|ended| ended.is_err() || rest.is_empty())
}

#[tokio::test]
async fn both_protocols_answer_at_one_address() {
    let (server, dns) = server().await;
    let many: Vec<String> = (1..=30).map(|n| format!("10.1.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    register(&server, "web", &many, 80).await;
    let asked = question("web.service.consul.", RecordType::A, None);
    let small = over_udp(dns, &asked).await;
    assert_eq!((small.answers.len(), small.metadata.truncation), (3, true));
    let whole = over_tcp(dns, &asked).await;
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (30, false));
    let large = over_udp(dns, &question("web.service.consul.", RecordType::A, Some(DIG))).await;
    assert_eq!(addresses(&large).len(), 30);

    // What is written is seen at once, and so is its end.
    let id = "web-0".parse().unwrap();
    server.catalog().deregister(&mesh::node(), &id).await.unwrap();
    assert_eq!(over_tcp(dns, &asked).await.answers.len(), 29);
    let page = http::send(server.bound().http, "GET", "/metrics", "").await.body;
    assert!(page.contains(r#"weft_dns_queries_total{type="A",rcode="NOERROR"} 4"#), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_takes_many_questions_in_any_pieces() {
    let (server, dns) = server().await;
    register(&server, "web", &["10.1.0.1"], 80).await;
    let mut stream = TcpStream::connect(dns).await.unwrap();
    let mut asked = Vec::new();
    for id in 0..50u16 {
        let mut message = question("web.service.consul.", RecordType::SRV, Some(DIG));
        message.metadata.id = id;
        asked.extend(framed(&message.to_vec().unwrap()));
    }
    // All at once but for the last byte.
    let (last, most) = asked.split_last().unwrap();
    stream.write_all(most).await.unwrap();
    for id in 0..49 {
        assert_eq!(timeout(PATIENCE, read(&mut stream)).await.unwrap().unwrap().metadata.id, id);
    }
    stream.write_all(&[*last]).await.unwrap();
    assert_eq!(timeout(PATIENCE, read(&mut stream)).await.unwrap().unwrap().metadata.id, 49);
    // Byte by byte.
    for byte in framed(&question("web.service.consul.", RecordType::A, None).to_vec().unwrap()) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    assert_eq!(timeout(PATIENCE, read(&mut stream)).await.unwrap().unwrap().answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn lengths_that_lie_cost_a_connection_and_nothing_else() {
    let (server, dns) = server().await;
    let good = question("consul.", RecordType::SOA, None).to_vec().unwrap();
    let mut reflected = good.clone();
    reflected[2] |= 0x80;
    for (what, bytes) in [
        ("a length of zero", vec![0, 0]),
        ("shorter than a header", vec![0, 5, 1, 2, 3, 4, 5]),
        ("longer than any question", vec![0xff, 0xff, 0, 0]),
        ("no DNS at all", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("an answer", framed(&reflected)),
    ] {
        let mut stream = TcpStream::connect(dns).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert!(is_closed(&mut stream).await, "{what} leaves the connection open");
    }
    // A message that ends before its names do is told so.
    let mut stream = TcpStream::connect(dns).await.unwrap();
    stream.write_all(&framed(&good[..14])).await.unwrap();
    let told = timeout(PATIENCE, read(&mut stream)).await.unwrap().unwrap();
    assert_eq!(told.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(over_udp(dns, &question("consul.", RecordType::SOA, None)).await.answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn whoever_says_nothing_is_let_go() {
    let (server, dns) = server().await;
    let started = Instant::now();
    let mut silent = TcpStream::connect(dns).await.unwrap();
    let mut half = TcpStream::connect(dns).await.unwrap();
    half.write_all(&[0, 40, 0, 7]).await.unwrap();
    assert!(is_closed(&mut silent).await && is_closed(&mut half).await);
    let took = started.elapsed();
    assert!(took >= limits::CONNECTION_IDLE && took < 2 * limits::CONNECTION_IDLE, "{took:?}");
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let (server, dns) = server().await;
    let mut held = Vec::new();
    let asked = question("consul.", RecordType::SOA, None).to_vec().unwrap();
    for _ in 0..limits::CONNECTIONS {
        let mut stream = TcpStream::connect(dns).await.unwrap();
        stream.write_all(&framed(&asked)).await.unwrap();
        timeout(PATIENCE, read(&mut stream)).await.unwrap().unwrap();
        held.push(stream);
    }
    let mut late = TcpStream::connect(dns).await.unwrap();
    assert!(is_closed(&mut late).await, "one too many is served");
    // Datagrams do not care, and a seat that is given up is taken again.
    assert_eq!(over_udp(dns, &question("consul.", RecordType::SOA, None)).await.answers.len(), 1);
    drop(held.pop());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(dns).await.unwrap();
            let asked = stream.write_all(&framed(&asked)).await;
            if asked.is_ok() && read(&mut stream).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("no seat comes free");
    let page = http::send(server.bound().http, "GET", "/metrics", "").await.body;
    assert!(page.contains(r#"weft_dns_dropped_total{cause="connections"} "#), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn no_answer_is_answered_and_garbage_is_not_either() {
    let (server, dns) = server().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns).await.unwrap();
    let mut reflected = question("consul.", RecordType::SOA, Some(DIG));
    reflected.metadata.message_type = hickory_proto::op::MessageType::Response;
    let reflected = reflected.to_vec().unwrap();
    for _ in 0..1000 {
        socket.send(&reflected).await.unwrap();
    }
    socket.send(&[]).await.unwrap();
    socket.send(&[1, 2, 3]).await.unwrap();
    socket.send(&vec![0; limits::MAX_QUERY_BYTES + 1]).await.unwrap();
    // The first answer there is belongs to the question that follows.
    let mut asked = question("consul.", RecordType::SOA, None);
    asked.metadata.id = 4711;
    socket.send(&asked.to_vec().unwrap()).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().metadata.id, 4711);
    server.stop().await;
}

#[tokio::test]
async fn the_end_closes_both_ports_soon() {
    let (server, dns) = server().await;
    let mut idle = TcpStream::connect(dns).await.unwrap();
    let asked = question("consul.", RecordType::SOA, None).to_vec().unwrap();
    idle.write_all(&framed(&asked)).await.unwrap();
    timeout(PATIENCE, read(&mut idle)).await.unwrap().unwrap();
    let started = Instant::now();
    server.stop().await;
    assert!(is_closed(&mut idle).await);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Both are free again.
    let _tcp = std::net::TcpListener::bind(dns).unwrap();
    let _udp = std::net::UdpSocket::bind(dns).unwrap();
}
