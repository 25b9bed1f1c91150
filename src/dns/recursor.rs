//! Asks recursors about the names of others, and believes them only what they were asked.
//!
//! Every question leaves with an id and a port of its own, both random, and the kernel lets in only
//! what comes from the recursor it went to. An answer counts when its id and its question are ours.
//! The rest of it is passed on as it is.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hickory_proto::op::{Header, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::respond::{Forward, HEADER_BYTES, Reply, Transport};
use super::settings::{RecursorOrder, Settings};
use crate::net::rng::Rng;
use crate::net::socket;

/// Where the flags QR and RA stand.
const QR: u8 = 0x80;
const RA: u8 = 0x80;

/// Asks one recursor after the other until one knows: with an answer, or that there is none.
pub(super) async fn resolve(
    settings: &Settings,
    forward: Forward,
    transport: Transport,
    rng: &mut Rng,
) -> Reply {
    let mut recursors = settings.recursors.clone();
    if settings.recursor_order == RecursorOrder::Random {
        rng.shuffle(&mut recursors);
    }
    for recursor in recursors {
        let attempt = ask(recursor, &forward, transport);
        match timeout(settings.recursor_timeout, attempt).await {
            Ok(Ok(reply)) if is_known(reply.code) => return forward.complete(settings, reply),
            Ok(Ok(reply)) => {
                tracing::debug!(%recursor, code = %reply.code, "a recursor gives no answer");
            }
            Ok(Err(error)) => tracing::debug!(%recursor, %error, "cannot ask a recursor"),
            Err(_elapsed) => tracing::debug!(%recursor, "a recursor does not answer in time"),
        }
    }
    forward.failure
}

const fn is_known(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn ask(recursor: SocketAddr, forward: &Forward, transport: Transport) -> io::Result<Reply> {
    let (id, question) = with_id(&forward.message)?;
    let mut answer = match transport {
        Transport::Udp => over_udp(recursor, &question, id, forward).await?,
        Transport::Tcp => over_tcp(recursor, &question).await?,
    };
    let Some(code) = verified(&answer, id, &forward.question) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is to another question"));
    };
    if let (Some(to), Some(from)) = (answer.get_mut(..2), forward.message.get(..2)) {
        to.copy_from_slice(from);
    }
    if let Some(flags) = answer.get_mut(3) {
        *flags |= RA;
    }
    Ok(Reply { bytes: answer, kind: Some(forward.question.query_type), code })
}

/// The question with a new id.
fn with_id(asked: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut id = [0; 2];
    SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let mut question = asked.to_vec();
    if let Some(place) = question.get_mut(..2) {
        place.copy_from_slice(&id);
    }
    Ok((u16::from_be_bytes(id), question))
}

/// Waits for the answer among whatever else comes.
async fn over_udp(
    recursor: SocketAddr,
    question: &[u8],
    id: u16,
    forward: &Forward,
) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match recursor {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(recursor).await?;
    socket.send(question).await?;
    let mut answer = vec![0; usize::from(forward.room)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if let Some(received) = answer.get(..length)
            && verified(received, id, &forward.question).is_some()
        {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(recursor: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    // The caller's deadline is the shorter one.
    let mut stream = socket::connect(recursor, Duration::from_secs(60)).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The code of an answer, if it is one to this question.
fn verified(answer: &[u8], id: u16, question: &Query) -> Option<ResponseCode> {
    let flags = answer.first_chunk::<HEADER_BYTES>()?[2];
    let mut decoder = BinDecoder::new(answer);
    let header = Header::read(&mut decoder).ok()?;
    let ours = flags & QR != 0 && header.metadata.id == id && header.counts.queries == 1;
    let asked = Query::read(&mut decoder).ok().filter(|_| ours)?;
    (asked == *question).then_some(header.metadata.response_code)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let question = Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A);
        let message = |id, kind, query: Option<Query>| {
            let mut message = Message::new(id, kind, OpCode::Query);
            message.add_queries(query);
            message.to_vec().unwrap()
        };
        let good = message(7, MessageType::Response, Some(question.clone()));
        assert_eq!(verified(&good, 7, &question), Some(ResponseCode::NoError));
        let other = Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A);
        for bad in [
            message(8, MessageType::Response, Some(question.clone())),
            message(7, MessageType::Query, Some(question.clone())),
            message(7, MessageType::Response, Some(other)),
            message(7, MessageType::Response, None),
            good[..11].to_vec(),
            good[..20].to_vec(),
        ] {
            assert_eq!(verified(&bad, 7, &question), None, "{bad:?}");
        }
    }
}
