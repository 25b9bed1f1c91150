//! The options that sockets of a running sidecar really have, read back from the kernel: without them
//! a peer whose host has vanished is never noticed.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockRef, Type};

use super::mesh::Sidecar;
use super::pair::Pair;
use crate::fidelity::rig::Wire;

/// A peer that has vanished is noticed within this time when nothing is said.
const NOTICED_IDLE: Duration = Duration::from_secs(30);
/// And within this when something is.
const NOTICED_UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Which connection a socket is, and what it has.
struct Seen {
    ports: [u16; 2],
    keepalive: Option<Duration>,
    user_timeout: Option<Duration>,
    nodelay: bool,
}

#[tokio::test]
async fn every_connection_notices_a_vanished_peer() {
    for wire in [Wire::Lanes, Wire::Connect] {
        let pair = Pair::start(wire).await;
        let (client, server) = pair.connected().await;
        let ports = BTreeMap::from([
            (client.local_addr().unwrap().port(), "the client"),
            (server.peer_addr().unwrap().port(), "the application"),
        ]);
        for (name, sidecar) in pair.sidecars() {
            let seen = connections(sidecar);
            let tunnel = seen.iter().filter(|s| !s.ports.iter().any(|port| ports.contains_key(port)));
            println!(
                "{wire:?}, {name}: {} connections, {} not of applications",
                seen.len(),
                tunnel.clone().count()
            );
            assert!(seen.len() >= 3, "an application, a peer and the control plane");
            for socket in &seen {
                let (what, keepalive) = (socket.ports, socket.keepalive);
                assert!(socket.nodelay, "{name} {what:?}: small writes wait");
                assert!(
                    keepalive.is_some_and(|noticed| noticed <= NOTICED_IDLE),
                    "{name} {what:?}: keepalive {keepalive:?}"
                );
            }
            let with_timeout =
                tunnel.filter(|s| s.user_timeout.is_some_and(|t| t <= NOTICED_UNACKNOWLEDGED)).count();
            // In Connect mode the peer's application may take its time, and the kernel counts a
            // reader that stalls as one that vanished.
            assert!(wire == Wire::Connect || with_timeout >= 1, "{name}: a lane without a user timeout");
        }
    }
}

/// The TCP connections that a process has; listeners aside.
fn connections(sidecar: &Sidecar) -> Vec<Seen> {
    let process = pidfd_open(sidecar.process.id(), PidfdFlags::empty()).unwrap();
    let files = sidecar.process.open_files().into_iter();
    let copies = files.filter_map(|file| pidfd_getfd(&process, file, PidfdGetfdFlags::empty()).ok());
    copies.filter_map(|copy| look(&SockRef::from(&copy))).collect()
}

/// `None` for what is no TCP connection.
fn look(socket: &SockRef<'_>) -> Option<Seen> {
    if socket.r#type().ok()? != Type::STREAM {
        return None;
    }
    let (local, peer) = (socket.local_addr().ok()?.as_socket()?, socket.peer_addr().ok()?.as_socket()?);
    let keepalive = socket.keepalive().unwrap().then(|| {
        let probes = socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        socket.tcp_keepalive_time().unwrap() + probes
    });
    Some(Seen {
        ports: [local.port(), peer.port()],
        keepalive,
        user_timeout: socket.tcp_user_timeout().unwrap(),
        nodelay: socket.tcp_nodelay().unwrap(),
    })
}
