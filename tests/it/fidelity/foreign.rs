//! A foreign proxy: takes a sidecar's connection and dials another sidecar, both in Connect mode, and
//! passes on what plain TLS can say: bytes, a clean end, or no clean end.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft::tls::Identity;

use crate::plane::name;

/// Bytes of one turn: as much as a TLS record carries.
const TURN_BYTES: usize = 16 * 1024;

/// Bridges connections that arrive at `listener` for `own` to the sidecar of `service` at `to`, as
/// `caller`. Gives the listener's address.
pub(crate) fn bridge(
    listener: std::net::TcpListener,
    own: &Identity,
    caller: &Identity,
    service: &str,
    to: SocketAddr,
) -> SocketAddr {
    let mut server = (*own.server_config()).clone();
    server.alpn_protocols.clear();
    let mut client = (*caller.client_config(&name(service)).unwrap()).clone();
    client.alpn_protocols.clear();
    let (acceptor, connector) =
        (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
    let listener = TcpListener::from_std(listener).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move { one(from, to, acceptor, connector).await });
        }
    });
    address
}

async fn one(from: TcpStream, to: SocketAddr, acceptor: TlsAcceptor, connector: TlsConnector) {
    let Ok(onward) = TcpStream::connect(to).await else { return };
    for socket in [&from, &onward] {
        // Either end may be gone already. What is not ended cleanly below is a reset.
        let _gone = (socket.set_nodelay(true), socket.set_zero_linger());
    }
    let (from, near_breaks) = watched(from);
    let (onward, far_breaks) = watched(onward);
    let name = ServerName::IpAddress(to.ip().into());
    let hands = tokio::try_join!(acceptor.accept(from), connector.connect(name, onward));
    let Ok((near, far)) = hands else { return };
    assert!(near.get_ref().1.alpn_protocol().is_none() && far.get_ref().1.alpn_protocol().is_none());
    let (mut near_reads, mut near_writes) = tokio::io::split(near);
    let (mut far_reads, mut far_writes) = tokio::io::split(far);
    let passing = async {
        tokio::try_join!(pass(&mut near_reads, &mut far_writes), pass(&mut far_reads, &mut near_writes))
    };
    tokio::select! {
        biased;
        passed = passing => if passed.is_err() { return },
        _reset = near_breaks.ready(Interest::ERROR) => return,
        _reset = far_breaks.ready(Interest::ERROR) => return,
    }
    for socket in [&near_breaks, &far_breaks] {
        let _gone = socket2::SockRef::from(socket).set_linger(None);
    }
}

/// A socket, and a second handle to it that tells of a reset even when nobody reads.
fn watched(socket: TcpStream) -> (TcpStream, TcpStream) {
    let socket = socket.into_std().unwrap();
    let second = socket.try_clone().unwrap();
    (TcpStream::from_std(socket).unwrap(), TcpStream::from_std(second).unwrap())
}

/// Passes bytes on until a clean end, and then that. An error is everything else.
async fn pass<R, W>(from: &mut R, to: &mut W) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut bytes = vec![0; TURN_BYTES];
    loop {
        match from.read(&mut bytes).await? {
            0 => return to.shutdown().await,
            count => to.write_all(&bytes[..count]).await?,
        }
        to.flush().await?;
    }
}
