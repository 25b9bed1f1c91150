//! Readers that stall cost their sidecars a bounded buffer each, and their neighbours nothing.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::pair::{Pair, exchange_times};
use super::support::{slow, until, within};
use crate::fidelity::rig::{SIDES, Side, Wire, fill, send_noise};
use crate::pace::pause;

const STALLED: usize = 60;
/// What a direction whose reader stalls may cost each of the two sidecars, whether it never read or had
/// earned the largest window before.
const STALLED_BYTES: u64 = 64 * 1024;
/// By how much the buffers that two threads keep may differ from one moment to another, when as many
/// readers have stalled before: four of 256 KiB.
const THREADS_BYTES: u64 = 4 * 256 * 1024;
/// What passes before the stall where readers have proven that they are fast.
const PROOF_BYTES: u64 = 8 * 1024 * 1024;

#[tokio::test]
async fn stalled_readers_on_lanes() {
    stall(Wire::Lanes).await;
}

#[tokio::test]
async fn stalled_readers_in_connect_mode() {
    stall(Wire::Connect).await;
}

/// Readers that never read, and readers that read much before, in either direction.
async fn stall(wire: Wire) {
    let mut too_much = Vec::new();
    let mut cases = vec![0];
    if slow("readers that stall after they were fast") {
        cases.push(PROOF_BYTES);
    }
    for (sender, proof) in
        SIDES.into_iter().flat_map(|side| cases.iter().map(move |proof| (side, *proof)))
    {
        let pair = Pair::start(wire).await;
        let mut neighbour = pair.connected().await;
        let alone = exchange_times(&mut neighbour, 1000).await;
        let costs = cost_of_a_stall(&pair, sender, proof).await;
        let beside = exchange_times(&mut neighbour, 1000).await;
        println!(
            "{wire:?}, {sender:?} sends, {} KiB read before the stall: {STALLED} cost web {} KiB, db {} KiB, \
             up to {} KiB of them its threads' buffers; a neighbour's exchange {:?}, p99 {:?}, alone {:?}, \
             p99 {:?}",
            proof / 1024,
            costs[0] / 1024,
            costs[1] / 1024,
            THREADS_BYTES / 1024,
            beside[0],
            beside[1],
            alone[0],
            alone[1]
        );
        assert!(beside[0] < alone[0] * 2 + Duration::from_millis(5), "the neighbour is harmed");
        let most = STALLED as u64 * STALLED_BYTES + THREADS_BYTES;
        if costs.iter().any(|cost| *cost > most) {
            too_much.push(format!("{sender:?} sends, {proof} bytes before: {costs:?} of {most} bytes"));
        }
    }
    assert!(too_much.is_empty(), "stalled readers cost too much: {too_much:#?}");
}

/// By how much either sidecar grows for all readers that stall. As many before them take what is not
/// theirs: the buffers that threads keep.
async fn cost_of_a_stall(pair: &Pair, sender: Side, proof: u64) -> [u64; 2] {
    let mut first = connections(pair, sender, proof, STALLED).await;
    let mut further = connections(pair, sender, proof, STALLED).await;
    stall_all(&mut first).await;
    let before = settled(pair).await;
    stall_all(&mut further).await;
    let after = settled(pair).await;
    [0, 1].map(|side| after[side].saturating_sub(before[side]))
}

/// The memory of both sidecars, once what is under way on a busy machine has arrived where it stays.
async fn settled(pair: &Pair) -> [u64; 2] {
    const STILL: Duration = Duration::from_millis(500);
    let memory = || pair.sidecars().map(|(_, sidecar)| sidecar.process.memory_bytes());
    let mut last = memory();
    until("memory that stays as it is", async || {
        pause(STILL).await;
        let now = memory();
        let still = now.iter().zip(&last).all(|(now, last)| now.abs_diff(*last) < STALLED_BYTES);
        last = now;
        still
    })
    .await;
    last
}

/// So many connections whose readers have read `proof` bytes each.
async fn connections(
    pair: &Pair,
    sender: Side,
    proof: u64,
    count: usize,
) -> Vec<(TcpStream, TcpStream)> {
    let mut ends = Vec::new();
    for _ in 0..count {
        let (mut sends, mut stalls) = pair.connected_from(sender).await;
        let mut read = vec![0; proof as usize];
        let reading = within("what is read before", stalls.read_exact(&mut read));
        let (read, ()) = tokio::join!(reading, send_noise(&mut sends, 1, proof));
        read.unwrap();
        ends.push((sends, stalls));
    }
    ends
}

/// Until nobody takes any more: on a busy machine a sender may have to wait before it is stopped.
async fn stall_all(ends: &mut [(TcpStream, TcpStream)]) {
    while join_all(ends.iter_mut().map(|(sends, _)| fill(sends, 2))).await.iter().any(|sent| *sent > 0) {
    }
}
