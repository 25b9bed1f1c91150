//! Names of others: who is asked, whom we believe, and what the client is told when nobody knows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use weft::app::server::{Server, names};
use weft::config::DnsKeys;
use weft::dns::{self, DnsError, RecursorOrder};
use weft::telemetry::ServerMetrics;

use super::port::{over_tcp, over_udp, register};
use super::{DIG, addresses, question, shown};
use crate::mesh;

/// How a stand-in for a recursor behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Knows,
    /// Says so with this code.
    Fails(ResponseCode),
    Silent,
    /// Lies first, in every way an attacker could, and then tells the truth.
    Besieged,
}

/// A recursor, and how often it was asked.
struct Recursor {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Recursor {
    async fn start(manner: Manner) -> Self {
        let (udp, tcp) = both_protocols().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::Relaxed);
                for answer in answers(manner, &Message::from_vec(&buffer[..length]).unwrap()) {
                    udp.send_to(&answer, client).await.unwrap();
                }
            }
        });
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let mut bytes = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut bytes).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                for answer in answers(manner, &Message::from_vec(&bytes).unwrap()) {
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
        Self { address, asked }
    }

    fn times(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Sockets with one number, which somebody else may have for one of the protocols.
async fn both_protocols() -> (UdpSocket, TcpListener) {
    for _try in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both protocols");
}

fn answers(manner: Manner, asked: &Message) -> Vec<Vec<u8>> {
    let mut truth = asked.clone();
    truth.metadata.message_type = MessageType::Response;
    let name = asked.queries[0].name.clone();
    truth.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
    let mut lie = truth.clone();
    lie.answers[0].data = RData::A(A::new(6, 6, 6, 6));
    let lies = [
        (|m: &mut Message| m.metadata.id ^= 1) as fn(&mut Message),
        |m| m.metadata.message_type = MessageType::Query,
        |m| m.queries[0].query_type = RecordType::AAAA,
        |m| m.queries.clear(),
    ];
    let told = |message: &Message| message.to_vec().unwrap();
    match manner {
        Manner::Knows => vec![told(&truth)],
        Manner::Silent => Vec::new(),
        Manner::Fails(code) => {
            truth.answers.clear();
            truth.metadata.response_code = code;
            vec![told(&truth)]
        }
        Manner::Besieged => {
            let mut all: Vec<_> = lies
                .iter()
                .map(|change| {
                    let mut lie = lie.clone();
                    change(&mut lie);
                    told(&lie)
                })
                .collect();
            all.push(vec![1, 2, 3]);
            all.push(told(&truth));
            all
        }
    }
}

async fn server(recursors: &[&Recursor], order: RecursorOrder) -> (Server, SocketAddr) {
    let mut settings = names(&DnsKeys::default()).unwrap();
    settings.recursors = recursors.iter().map(|recursor| recursor.address).collect();
    settings.recursor_timeout = Duration::from_millis(200);
    settings.recursor_order = order;
    let server = mesh::server_answering(settings).await;
    let dns = server.bound().dns.unwrap();
    (server, dns)
}

#[tokio::test]
async fn foreign_names_are_asked_of_recursors_and_passed_on_as_they_are() {
    let recursor = Recursor::start(Manner::Knows).await;
    let (server, dns) = server(&[&recursor], RecursorOrder::Sequential).await;
    register(&server, "web", &["10.1.0.1"], 80).await;
    let asked = question("Www.Example.COM.", RecordType::A, Some(DIG));
    for answer in [over_udp(dns, &asked).await, over_tcp(dns, &asked).await] {
        let flags = answer.metadata;
        assert_eq!(flags.id, asked.metadata.id);
        assert!(flags.recursion_available && !flags.authoritative);
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        assert_eq!(answer.answers[0].name.to_string(), "Www.Example.COM.");
    }
    assert_eq!(recursor.times(), 2);
    // Addresses that nobody of ours has, too.
    let unknown = question("9.9.9.10.in-addr.arpa.", RecordType::PTR, Some(DIG));
    assert_eq!(over_udp(dns, &unknown).await.answers.len(), 1);
    assert_eq!(recursor.times(), 3);
    // Our own names never leave, and say that there is recursion.
    for name in ["web.service.consul.", "nope.service.consul."] {
        let answer = over_udp(dns, &question(name, RecordType::A, Some(DIG))).await;
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available, "{name}");
    }
    // Nor does what is not to be recursed.
    let mut plain = question("example.com.", RecordType::A, Some(DIG));
    plain.metadata.recursion_desired = false;
    assert_eq!(over_udp(dns, &plain).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(recursor.times(), 3);
    server.stop().await;
}

#[tokio::test]
async fn aliases_are_followed_among_our_names_and_those_of_others() {
    let knows = Recursor::start(Manner::Knows).await;
    let (server, dns) = server(&[&knows], RecursorOrder::Sequential).await;
    register(&server, "web", &["10.1.0.1"], 80).await;
    register(&server, "near", &["web.service.consul"], 80).await;
    register(&server, "far", &["db.example.com"], 80).await;
    register(&server, "circle", &["circle.service.consul"], 80).await;
    let lines = async |name: &str, kind| {
        let asked = question(name, kind, Some(DIG));
        let (udp, tcp) = (over_udp(dns, &asked).await, over_tcp(dns, &asked).await);
        assert_eq!(udp.answers, tcp.answers, "{name}");
        assert!(udp.metadata.authoritative && udp.metadata.id == asked.metadata.id, "{name}");
        shown(&udp.answers)
    };
    let near = ["near.service.consul. 0 CNAME web.service.consul.", "web.service.consul. 0 A 10.1.0.1"];
    assert_eq!(lines("near.service.consul.", RecordType::A).await, near);
    let far = ["far.service.consul. 0 CNAME db.example.com.", "db.example.com. 60 A 192.0.2.1"];
    assert_eq!(lines("far.service.consul.", RecordType::A).await, far);
    assert_eq!(lines("far.service.consul.", RecordType::ANY).await, far[..1]);
    assert_eq!(lines("circle.service.consul.", RecordType::A).await.len(), 1);
    server.stop().await;

    // When nobody knows, the alias alone is still true.
    let silent = Recursor::start(Manner::Silent).await;
    let (server, dns) = self::server(&[&silent], RecursorOrder::Sequential).await;
    register(&server, "far", &["db.example.com"], 80).await;
    let answer = over_udp(dns, &question("far.service.consul.", RecordType::A, Some(DIG))).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(shown(&answer.answers), far[..1]);
    server.stop().await;
}

#[tokio::test]
async fn the_next_recursor_is_asked_when_one_does_not_know() {
    let silent = Recursor::start(Manner::Silent).await;
    let refuses = Recursor::start(Manner::Fails(ResponseCode::Refused)).await;
    let knows = Recursor::start(Manner::Knows).await;
    let (server, dns) = server(&[&silent, &refuses, &knows], RecursorOrder::Sequential).await;
    let answer = over_udp(dns, &question("example.com.", RecordType::A, Some(DIG))).await;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    assert_eq!([&silent, &refuses, &knows].map(Recursor::times), [1, 1, 1]);
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_answer() {
    let none = Recursor::start(Manner::Fails(ResponseCode::NXDomain)).await;
    let knows = Recursor::start(Manner::Knows).await;
    let (server, dns) = server(&[&none, &knows], RecursorOrder::Sequential).await;
    let answer = over_udp(dns, &question("example.com.", RecordType::A, Some(DIG))).await;
    assert_eq!((answer.metadata.response_code, knows.times()), (ResponseCode::NXDomain, 0));
    server.stop().await;
}

#[tokio::test]
async fn when_nobody_knows_the_client_is_told_so() {
    let silent = Recursor::start(Manner::Silent).await;
    let fails = Recursor::start(Manner::Fails(ResponseCode::ServFail)).await;
    let (server, dns) = server(&[&silent, &fails], RecursorOrder::Random).await;
    let asked = question("example.com.", RecordType::A, Some(DIG));
    for answer in [over_udp(dns, &asked).await, over_tcp(dns, &asked).await] {
        let flags = answer.metadata;
        assert_eq!(flags.response_code, ResponseCode::ServFail);
        assert!(flags.recursion_available && !flags.authoritative && answer.edns.is_some());
        assert_eq!(
            (answer.queries[0].name.to_string().as_str(), answer.answers.len()),
            ("example.com.", 0)
        );
    }
    assert!(silent.times() + fails.times() >= 2);
    server.stop().await;
}

#[tokio::test]
async fn lies_are_not_believed() {
    let recursor = Recursor::start(Manner::Besieged).await;
    let (server, dns) = server(&[&recursor], RecursorOrder::Sequential).await;
    for _ in 0..20 {
        let answer = over_udp(dns, &question("example.com.", RecordType::A, Some(DIG))).await;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    server.stop().await;
}

#[tokio::test]
async fn recursions_are_limited_and_block_nobody() {
    let silent = Recursor::start(Manner::Silent).await;
    let mut settings = names(&DnsKeys::default()).unwrap();
    settings.recursors = vec![silent.address];
    settings.recursor_timeout = Duration::from_secs(20);
    let server = mesh::server_answering(settings).await;
    let dns = server.bound().dns.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns).await.unwrap();
    let asked = question("example.com.", RecordType::A, Some(DIG)).to_vec().unwrap();
    let mut buffer = [0; 512];
    let refused = async {
        let mut sent = 0;
        loop {
            // A pause now and then lets the server read.
            for _ in 0..16 {
                socket.send(&asked).await.unwrap();
                sent += 1;
            }
            let pause = Duration::from_millis(1);
            if let Ok(length) = tokio::time::timeout(pause, socket.recv(&mut buffer)).await {
                return (sent, Message::from_vec(&buffer[..length.unwrap()]).unwrap());
            }
        }
    };
    let (sent, told) = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
    assert_eq!(told.metadata.response_code, ResponseCode::ServFail);
    assert!(sent > dns::limits::RECURSIONS, "refused after {sent}");
    let own = over_udp(dns, &question("consul.", RecordType::SOA, Some(DIG))).await;
    assert_eq!(own.answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_server_is_not_its_own_recursor() {
    let server = mesh::server().await;
    let settings = names(&DnsKeys::default()).unwrap();
    for (bound, asked) in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")] {
        let address = SocketAddr::new(bound.parse().unwrap(), 0);
        let (catalog, metrics) = (server.catalog().clone(), ServerMetrics::new());
        let port = dns::Server::bind(address, catalog, settings.clone(), metrics).unwrap();
        let own = SocketAddr::new(asked.parse().unwrap(), port.local_addr().port());
        let mut changed = settings.clone();
        changed.recursors = vec![own];
        let set = port.tuner().set(changed);
        assert!(matches!(set, Err(DnsError::OwnRecursor(found)) if found == own), "{bound}");
    }
    server.stop().await;
}
