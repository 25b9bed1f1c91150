//! A reset stays a reset, on either wire, in either direction, in every state of the connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft::model::Reason;

use super::rig::{Noise, Rig, SIDES, Side, Wire, assert_reset, fill, read_all, reset};
use crate::plane::soon;

on_both_wires!(
    a_reset_is_passed_on,
    a_reset_before_the_first_byte_is_passed_on,
    a_reset_is_passed_on_over_a_backlog,
    a_reset_of_a_reader_with_a_backlog_reaches_the_writer,
    a_reset_after_a_half_close_is_passed_on,
    a_reset_after_a_half_close_with_a_backlog_is_passed_on,
);

/// What the dialling sidecar says of a reset: Connect mode cannot tell it whose it was.
fn reason(wire: Wire, actor: Side) -> Reason {
    match (wire, actor) {
        (Wire::Connect, Side::Server) => Reason::PeerReset,
        _ => Reason::AppReset,
    }
}

/// Writes until that fails, which it must.
async fn assert_writes_fail(stream: &mut TcpStream) {
    soon("failing write", async { while stream.write_all(&[0; 1000]).await.is_ok() {} }).await;
}

async fn a_reset_is_passed_on(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for actor in SIDES {
        let (first, mut second) = rig.connected_from(actor).await;
        reset(first);
        assert_reset("the other end", &mut second).await;
        assert_eq!(rig.web.ended().await, reason(wire, actor));
    }
}

async fn a_reset_before_the_first_byte_is_passed_on(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    let client = rig.web.dial("db").await;
    let mut server = rig.accept().await;
    reset(client);
    assert_reset("the server", &mut server).await;
    assert_eq!(rig.web.ended().await, Reason::AppReset);
}

async fn a_reset_is_passed_on_over_a_backlog(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for actor in SIDES {
        let (mut first, mut second) = rig.connected_from(actor).await;
        let sent = fill(&mut first, 7).await;
        reset(first);
        let got = assert_reset("the reader of the backlog", &mut second).await;
        assert!(got.len() as u64 <= sent);
        let mut noise = Noise::new(7);
        for block in got.chunks(Noise::BLOCK) {
            assert!(noise.next_block().starts_with(block), "bytes differ");
        }
        assert_eq!(rig.web.ended().await, reason(wire, actor));
    }
}

async fn a_reset_of_a_reader_with_a_backlog_reaches_the_writer(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for actor in SIDES {
        let (first, mut second) = rig.connected_from(actor).await;
        fill(&mut second, 9).await;
        reset(first);
        assert_reset("the writer", &mut second).await;
        assert_eq!(rig.web.ended().await, reason(wire, actor));
    }
}

async fn a_reset_after_a_half_close_is_passed_on(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    for finisher in SIDES {
        // Who has finished resets while the other still sends.
        let (mut first, mut second) = rig.connected_from(finisher).await;
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await.unwrap(), b"");
        reset(first);
        assert_eq!(rig.web.ended().await, reason(wire, finisher));
        assert_writes_fail(&mut second).await;

        // The other one resets instead of finishing, too.
        let (mut first, mut second) = rig.connected_from(finisher).await;
        first.shutdown().await.unwrap();
        assert_eq!(read_all(&mut second).await.unwrap(), b"");
        second.write_all(b"half of the ans").await.unwrap();
        soon("half", first.read_exact(&mut [0; 15])).await.unwrap();
        reset(second);
        assert_reset("who had finished", &mut first).await;
        let other = if finisher == Side::Client { Side::Server } else { Side::Client };
        assert_eq!(rig.web.ended().await, reason(wire, other));
    }
}

async fn a_reset_after_a_half_close_with_a_backlog_is_passed_on(wire: Wire) {
    let rig = Rig::new(wire).await;
    for writer in SIDES {
        // FIN waits behind a backlog that nobody reads; then the writer resets.
        let (mut first, mut second) = rig.connected_from(writer).await;
        fill(&mut first, 11).await;
        first.shutdown().await.unwrap();
        reset(first);
        assert_reset("the reader of the backlog", &mut second).await;
    }
}
