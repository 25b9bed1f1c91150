//! The UDP probe: sends one empty datagram and listens for a moment.
//!
//! UDP has no handshake, so silence is no failure; only a port that is known to be closed, or an address
//! that cannot be reached, is one. Consul judges in the same way.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::dial::{DialError, resolve};
use crate::model::CheckStatus;

/// A closed port of this network answers sooner.
const LISTEN: Duration = Duration::from_secs(1);

/// Asks `host:port` once, within `budget`.
pub(super) async fn probe(target: &str, budget: Duration) -> (CheckStatus, String) {
    match timeout(budget, ask(target, budget.min(LISTEN))).await {
        Ok(Ok(())) => (CheckStatus::Passing, format!("UDP connect {target}: Success")),
        Ok(Err(error)) => (CheckStatus::Critical, error.to_string().replacen("dial tcp", "dial udp", 1)),
        Err(_) => (CheckStatus::Critical, format!("dial udp {target}: i/o timeout")),
    }
}

async fn ask(target: &str, listen: Duration) -> Result<(), DialError> {
    let host = || target.rsplit_once(':').map_or(target, |(host, _)| host).to_owned();
    let none = || DialError::Lookup { host: host(), cause: "no such host".to_owned() };
    let address = *resolve(target).await?.first().ok_or_else(none)?;
    let failed = |fault: io::Error| DialError::Connect { address, cause: super::dial::cause(&fault) };
    let from: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    socket.send(&[]).await.map_err(failed)?;
    match timeout(listen, socket.recv(&mut [0; 1])).await {
        Ok(Err(fault)) => Err(failed(fault)),
        // An answer, or silence.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn only_a_closed_port_fails() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = socket.local_addr().unwrap().to_string();
        let silent = probe(&target, Duration::from_millis(200)).await;
        assert_eq!(silent, (CheckStatus::Passing, format!("UDP connect {target}: Success")));
        let (count, peer) = socket.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!((count, peer.ip().is_loopback()), (0, true), "what was sent is empty");
        drop(socket);
        let expected = format!("dial udp {target}: connect: connection refused");
        assert_eq!(probe(&target, BUDGET).await, (CheckStatus::Critical, expected));
    }

    #[tokio::test]
    async fn forbidden_targets_are_not_sent_to() {
        let (status, output) = probe("169.254.169.254:53", BUDGET).await;
        assert_eq!(status, CheckStatus::Critical);
        assert!(output.contains("refused by policy"), "{output}");
    }
}
