//! Datagrams: read, answered and sent by the same task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::limits::{DATAGRAMS_PER_TURN, MAX_QUERY_BYTES};
use super::respond::{Reply, Transport};
use super::server::{Answered, Shared, draining};
use crate::net::drain::Watcher;
use crate::net::rng::Rng;

/// Answers until the drain begins. Several of these share a socket.
pub(super) async fn serve(socket: Arc<UdpSocket>, shared: Arc<Shared>, mut watcher: Watcher) {
    let mut rng = Rng::new();
    // One byte more tells a question that is too long from one that just fits.
    let mut buffer = vec![0; MAX_QUERY_BYTES + 1];
    loop {
        tokio::select! {
            () = draining(&mut watcher) => return,
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::error!(%error, "the DNS port cannot be read any more");
                    return;
                }
            }
        }
        for _datagram in 0..DATAGRAMS_PER_TURN {
            let (length, client) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What the network says of an earlier answer; the socket is fine.
                Err(_) => continue,
            };
            match buffer.get(..length) {
                Some(asked) if length <= MAX_QUERY_BYTES => {
                    answer(&socket, &shared, asked, client, &watcher, &mut rng);
                }
                _ => shared.metrics.dns_dropped("too_long"),
            }
        }
        tokio::task::yield_now().await;
    }
}

fn answer(
    socket: &Arc<UdpSocket>,
    shared: &Arc<Shared>,
    asked: &[u8],
    client: SocketAddr,
    watcher: &Watcher,
    rng: &mut Rng,
) {
    match shared.answer(asked, Transport::Udp, rng) {
        Answered::Silence => {}
        Answered::Now(reply) => send(socket, shared, reply, asked.len(), client),
        Answered::Later(recursion) => {
            let (socket, shared) = (Arc::clone(socket), Arc::clone(shared));
            let (asked_bytes, watcher) = (asked.len(), watcher.clone());
            tokio::spawn(async move {
                let reply = shared.recurse(recursion, Transport::Udp).await;
                send(&socket, &shared, reply, asked_bytes, client);
                drop(watcher);
            });
        }
    }
}

/// An answer that the kernel does not take now is lost; the client asks again.
fn send(socket: &UdpSocket, shared: &Shared, reply: Reply, asked_bytes: usize, client: SocketAddr) {
    let answer = shared.sendable(reply, asked_bytes, client);
    if socket.try_send_to(&answer, client).is_err() {
        shared.metrics.dns_dropped("send");
    }
}
