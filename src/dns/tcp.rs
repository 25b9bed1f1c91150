//! Connections: questions one after the other, each with its length in front (RFC 7766).

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::limits::{CONNECTION_IDLE, CONNECTIONS, MAX_QUERY_BYTES, QUERIES_PER_CONNECTION};
use super::respond::{HEADER_BYTES, Transport};
use super::server::{Answered, Shared, draining};
use crate::net::accept::Acceptor;
use crate::net::drain::Watcher;
use crate::net::rng::Rng;
use crate::net::seats::Seats;

/// Accepts until the drain begins.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut watcher: Watcher) {
    let mut acceptor = Acceptor::new(listener);
    let seats = Seats::new(CONNECTIONS);
    loop {
        let (stream, _peer) = tokio::select! {
            () = draining(&mut watcher) => return,
            accepted = acceptor.accept() => accepted,
        };
        let Some(seat) = seats.take() else {
            shared.metrics.dns_dropped("connections");
            continue;
        };
        let (shared, watcher) = (Arc::clone(&shared), watcher.clone());
        tokio::spawn(async move {
            // How a client leaves is its own business.
            let _gone = converse(stream, &shared, watcher).await;
            drop(seat);
        });
    }
}

/// Answers the questions of one connection, until it ends, says something that is no question, or the
/// server stops.
async fn converse(stream: TcpStream, shared: &Shared, mut watcher: Watcher) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(1024, stream);
    let mut rng = Rng::new();
    for _query in 0..QUERIES_PER_CONNECTION {
        let asked = tokio::select! {
            () = draining(&mut watcher) => return Ok(()),
            asked = timeout(CONNECTION_IDLE, question(&mut stream)) => asked??,
        };
        let reply = match shared.answer(&asked, Transport::Tcp, &mut rng) {
            Answered::Silence => return Ok(()),
            Answered::Now(reply) => reply,
            Answered::Later(recursion) => shared.recurse(recursion, Transport::Tcp).await,
        };
        let length = u16::try_from(reply.bytes.len()).map_err(io::Error::other)?;
        let answer = [&length.to_be_bytes(), reply.bytes.as_slice()].concat();
        timeout(CONNECTION_IDLE, stream.write_all(&answer)).await??;
    }
    Ok(())
}

/// One question; lengths that no question has end the connection.
async fn question(stream: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if !(HEADER_BYTES..=MAX_QUERY_BYTES).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut asked = vec![0; length];
    stream.read_exact(&mut asked).await?;
    Ok(asked)
}
