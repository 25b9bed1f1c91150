//! Back-pressure: a reader that stalls stops its sender, costs what it was granted, and harms nobody.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Rig, SIDES, Wire, fill, hash_of_noise, hash_until_end, send_noise};
use crate::plane::soon;

on_both_wires!(a_stalled_reader_stops_its_sender_and_loses_nothing, stalled_readers_harm_no_neighbour);

/// Kernel buffers of the six sockets on the way, and windows; far below what an application sends
/// that nobody stops.
const MOST_IN_FLIGHT: u64 = 48 * 1024 * 1024;
/// What a reader takes that earns it a large window.
const EARNED: usize = 8 * 1024 * 1024;

async fn a_stalled_reader_stops_its_sender_and_loses_nothing(wire: Wire) {
    let rig = Rig::new(wire).await;
    for (sender, before) in SIDES.into_iter().flat_map(|side| [(side, 0), (side, EARNED)]) {
        let (mut sends, mut stalls) = rig.connected_from(sender).await;
        let mut read = vec![0; before];
        let (_, read) = tokio::join!(
            send_noise(&mut sends, 7, before as u64),
            soon("what is read before the stall", stalls.read_exact(&mut read))
        );
        read.unwrap();
        let sent = fill(&mut sends, 13).await;
        println!("{wire:?}: {sender:?} was stopped after {} KiB, {before} before", sent / 1024);
        assert!(sent < MOST_IN_FLIGHT, "the sender was stopped only after {sent} bytes");
        sends.shutdown().await.unwrap();
        assert_eq!(hash_until_end(&mut stalls).await, (sent, hash_of_noise(13, sent)));
    }
}

/// 20 stalled readers each way, and a neighbour that talks with and without them.
async fn stalled_readers_harm_no_neighbour(wire: Wire) {
    const STALLED: usize = 20;
    let rig = Rig::new(wire).await;
    let before = neighbour(&rig).await;
    let mut stalled = Vec::new();
    for side in SIDES {
        for _ in 0..STALLED / 2 {
            let (mut sends, stalls) = rig.connected_from(side).await;
            fill(&mut sends, 17).await;
            stalled.push((sends, stalls));
        }
    }
    let beside = neighbour(&rig).await;
    println!("{wire:?}: a neighbour's median {before:?} alone, {beside:?} beside {STALLED} stalled");
    assert!(beside < before * 2 + Duration::from_millis(2), "{beside:?} beside, {before:?} alone");
}

/// The median of small exchanges on a connection of their own.
async fn neighbour(rig: &Rig) -> Duration {
    const ROUNDS: usize = 301;
    let (mut client, mut server) = rig.connected().await;
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        exchange(&mut client, &mut server).await;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    took[ROUNDS / 2]
}

async fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(&[1; 100]).await.unwrap();
    soon("a neighbour's question", server.read_exact(&mut [0; 100])).await.unwrap();
    server.write_all(&[2; 100]).await.unwrap();
    soon("a neighbour's answer", client.read_exact(&mut [0; 100])).await.unwrap();
}
