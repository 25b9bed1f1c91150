//! Packets that mean nothing, in numbers, to the DNS port of the real binary: it goes on answering, and its
//! memory stays as it is.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use weft::net::rng::Rng;

use super::mesh::Mesh;
use super::support::slow;
use crate::dns::hostile::{mutate, questions};
use crate::dns::question;
use crate::http::send;

/// Packets between two questions whose answers show that the server is well and keeps up.
const BATCH: u64 = 64;
/// What may still come after the first tenth: pages of the heap that were used at the start and given back,
/// and are touched again one by one. A leak is at least 16 bytes for each packet that leaks.
const GROWTH_BYTES: u64 = 6 << 20;
const GROWTH_BYTES_PER_PACKET: u64 = 8;

#[tokio::test]
async fn mutated_packets_leave_the_server_well_and_its_memory_flat() {
    let packets = if slow("970,000 of a million mutated packets") { 1_000_000 } else { 30_000 };
    let (mut mesh, names) = Mesh::start_with_names().await;
    for (name, port) in [("web", 80), ("db", 5432), ("cache", 6379)] {
        let body = format!(r#"{{"Name":"{name}","Address":"10.0.0.1","Port":{port},"Tags":["v1"]}}"#);
        assert_eq!(send(mesh.http, "PUT", "/v1/agent/service/register", &body).await.status, 200);
    }
    let client = Client::new(names).await;
    let (questions, mut rng) = (questions(), Rng::from_seed(53));
    let started = Instant::now();
    let (mut early, mut most) = (0, 0);
    for sent in (0..packets).step_by(BATCH as usize) {
        for _ in 0..BATCH {
            let mut packet = questions[rng.below(questions.len() as u64) as usize].clone();
            mutate(&mut packet, &mut rng);
            client.socket.send(&packet).await.unwrap();
        }
        client.is_answered().await;
        if sent % (packets / 100) < BATCH {
            let now = mesh.server().memory_bytes();
            if sent <= packets / 10 { early = early.max(now) } else { most = most.max(now) }
        }
    }
    println!(
        "{packets} packets in {:?}: {early} bytes at first, at most {most} later",
        started.elapsed()
    );
    let bound = early + GROWTH_BYTES + GROWTH_BYTES_PER_PACKET * packets;
    assert!(most <= bound, "memory grew from {early} to {most} bytes");
    mesh.stop_server().await;
}

struct Client {
    socket: UdpSocket,
    /// A question with an answer.
    control: Vec<u8>,
}

impl Client {
    async fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        let mut control = question("web.service.consul.", RecordType::A, Some(1232));
        control.metadata.id = 0x5eed;
        Self { socket, control: control.to_vec().unwrap() }
    }

    /// Asks until the answer comes, past those to other packets: UDP may lose any of them.
    async fn is_answered(&self) {
        let mut answer = vec![0; 65_536];
        for _ in 0..20 {
            self.socket.send(&self.control).await.unwrap();
            let heard = async {
                loop {
                    let length = self.socket.recv(&mut answer).await.unwrap();
                    if answer[..2] == self.control[..2] {
                        return Message::from_vec(&answer[..length]).unwrap();
                    }
                }
            };
            if let Ok(message) = timeout(Duration::from_secs(1), heard).await {
                assert_eq!(message.answers.len(), 1, "{message:?}");
                return;
            }
        }
        panic!("the server does not answer any more");
    }
}
