//! A stream that was cut short never looks like a whole one, wherever it was cut.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft::model::Reason;

use super::relay::Cut;
use super::rig::{Rig, SIDES, Wire, assert_reset};
use crate::plane::soon;

on_both_wires!(
    a_killed_peer_is_a_reset,
    an_own_sidecar_that_dies_is_a_reset,
    a_cut_without_close_notify_is_a_reset,
    a_reset_between_the_sidecars_is_a_reset,
    a_cut_record_is_a_reset,
    a_cut_after_a_half_close_is_a_reset,
);

async fn a_killed_peer_is_a_reset(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    let (mut client, mut server) = rig.connected().await;
    server.write_all(b"half of the ans").await.unwrap();
    rig.db.proxy.take().unwrap().kill().await;
    assert_reset("the caller", &mut client).await;
    assert_reset("the application", &mut server).await;
}

async fn an_own_sidecar_that_dies_is_a_reset(wire: Wire) {
    let mut rig = Rig::new(wire).await;
    let (mut client, mut server) = rig.connected().await;
    server.write_all(b"half of the ans").await.unwrap();
    soon("half", client.read_exact(&mut [0; 15])).await.unwrap();
    rig.web.proxy.take().unwrap().kill().await;
    assert_reset("the caller", &mut client).await;
    assert_reset("the application", &mut server).await;
}

async fn a_cut_without_close_notify_is_a_reset(wire: Wire) {
    cut_anywhere(wire, Cut::Fin).await;
}

async fn a_reset_between_the_sidecars_is_a_reset(wire: Wire) {
    cut_anywhere(wire, Cut::Reset).await;
}

async fn a_cut_record_is_a_reset(wire: Wire) {
    cut_anywhere(wire, Cut::MidRecord).await;
}

/// Beside the accepting sidecar, and beside the dialling one when there is something between them.
fn places(wire: Wire) -> std::ops::Range<usize> {
    0..if wire == Wire::Connect { 2 } else { 1 }
}

async fn cut_anywhere(wire: Wire, how: Cut) {
    for place in places(wire) {
        let (mut rig, relays) = Rig::with_relays(wire).await;
        let (mut client, mut server) = rig.connected().await;
        relays[place].cut(how);
        if how == Cut::MidRecord {
            server.write_all(&[1; 1000]).await.unwrap();
        }
        let got = assert_reset("the caller", &mut client).await;
        assert_eq!(got, b"", "a piece of a record was passed on");
        assert_reset("the application", &mut server).await;
        assert_eq!(rig.web.ended().await, Reason::PeerReset);
    }
}

/// The direction that had ended cleanly makes the other one no cleaner.
async fn a_cut_after_a_half_close_is_a_reset(wire: Wire) {
    for (place, finisher) in places(wire).flat_map(|place| SIDES.map(|side| (place, side))) {
        let (rig, relays) = Rig::with_relays(wire).await;
        let (mut first, mut second) = rig.connected_from(finisher).await;
        first.shutdown().await.unwrap();
        assert_eq!(soon("half-close", second.read(&mut [0])).await.unwrap(), 0);
        relays[place].cut(Cut::Fin);
        assert_reset("who waited for the rest", &mut first).await;
    }
}
