//! Clean ends: FIN passes in either direction, whoever says it first, and the other goes on.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft::model::Reason;

use super::rig::{
    Rig, SIDES, Side, Wire, fill, hash_at_a_pace, hash_of_noise, hash_until_end, read_all, send_noise,
};
use crate::plane::soon;

/// What arrives after the other direction has ended.
const AFTER_FIN: usize = 200_000;

on_both_wires!(
    data_arrives_after_a_half_close,
    a_half_close_without_a_byte_is_passed_on,
    a_half_close_waits_for_what_is_before_it,
    who_has_closed_is_still_heard,
    both_may_finish_at_once,
);

async fn data_arrives_after_a_half_close(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for first in SIDES {
        let (mut first, mut second) = rig.connected_from(first).await;
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await.unwrap(), b"question");
        let answer: Vec<u8> = (0..AFTER_FIN).map(|i| ((i * 31) >> 3) as u8).collect();
        // In two parts: the connection must outlive the first.
        for part in answer.chunks(AFTER_FIN / 2) {
            second.write_all(part).await.unwrap();
            let mut got = vec![0; part.len()];
            soon("answer", first.read_exact(&mut got)).await.unwrap();
            assert!(got == part, "bytes differ");
        }
        second.shutdown().await.unwrap();
        assert_eq!(read_all(&mut first).await.unwrap(), b"");
        assert_eq!(rig.web.ended().await, Reason::Ok);
    }
}

async fn a_half_close_without_a_byte_is_passed_on(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for first in SIDES {
        let client = rig.web.dial("db").await;
        let server = rig.accept().await;
        let (mut first, mut second) = match first {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await.unwrap(), b"");
        second.write_all(b"late").await.unwrap();
        second.shutdown().await.unwrap();
        assert_eq!(read_all(&mut first).await.unwrap(), b"late");
        assert_eq!(rig.web.ended().await, Reason::Ok);
    }
}

async fn a_half_close_waits_for_what_is_before_it(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for first in SIDES {
        let (mut first, mut second) = rig.connected_from(first).await;
        let sent = fill(&mut first, 3).await;
        first.shutdown().await.unwrap();
        let (received, hash) = hash_at_a_pace(&mut second, Duration::from_millis(1)).await;
        assert_eq!(received, sent);
        assert_eq!(hash, hash_of_noise(3, sent));
        second.write_all(b"thanks").await.unwrap();
        second.shutdown().await.unwrap();
        assert_eq!(read_all(&mut first).await.unwrap(), b"thanks");
        assert_eq!(rig.web.ended().await, Reason::Ok);
    }
}

/// The usual end of a program: it writes and exits, long before the other has read.
async fn who_has_closed_is_still_heard(wire: Wire) {
    const BYTES: u64 = 512 * 1024;
    let rig = Rig::new(wire).await;
    for writer in SIDES {
        let (mut writer, mut reader) = rig.connected_from(writer).await;
        let writing = tokio::spawn(async move {
            send_noise(&mut writer, 5, BYTES).await;
            drop(writer);
        });
        let (received, hash) = hash_until_end(&mut reader).await;
        soon("writer", writing).await.unwrap();
        assert_eq!((received, hash), (BYTES, hash_of_noise(5, BYTES)));
    }
}

async fn both_may_finish_at_once(wire: Wire) {
    const ROUNDS: usize = 50;
    let mut rig = Rig::new(wire).await;
    for _ in 0..ROUNDS {
        let (mut client, mut server) = rig.connected().await;
        client.write_all(b"to the server").await.unwrap();
        server.write_all(b"to the client").await.unwrap();
        let (one, other) = tokio::join!(client.shutdown(), server.shutdown());
        one.and(other).unwrap();
        assert_eq!(read_all(&mut client).await.unwrap(), b"to the client");
        assert_eq!(read_all(&mut server).await.unwrap(), b"to the server");
        assert_eq!(rig.web.ended().await, Reason::Ok);
    }
}
