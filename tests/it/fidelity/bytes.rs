//! What was written arrives: whole, in order, without waiting for more.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Rig, SIDES, Wire, hash_of_noise, hash_until_end, send_noise};
use crate::pace::throughout;
use crate::plane::soon;
use crate::process::slow;

on_both_wires!(
    a_server_speaks_first_without_delay,
    small_writes_leave_at_once,
    single_bytes_arrive_whole_and_in_order,
    a_full_duplex_transfer_arrives_whole,
    a_long_silence_ends_nothing,
);

/// Delayed acknowledgements cost 40 ms, and no timer that a proxy could wait for is shorter than that.
/// Medians and best tries count, so that a busy machine does not matter.
const AT_ONCE: Duration = Duration::from_millis(30);

/// As soon as where the client speaks first: nobody waits for a client's first words.
async fn a_server_speaks_first_without_delay(wire: Wire) {
    let rig = Rig::new(wire).await;
    let (mut banner, mut greeting) = (Duration::MAX, Duration::MAX);
    for _ in 0..20 {
        let started = Instant::now();
        drop(rig.connected().await);
        greeting = greeting.min(started.elapsed());

        let started = Instant::now();
        let mut client = rig.web.dial("db").await;
        let mut server = rig.accept().await;
        server.write_all(b"220 ready").await.unwrap();
        let mut got = [0; 9];
        soon("banner", client.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"220 ready");
        banner = banner.min(started.elapsed());
    }
    println!("{wire:?}: {banner:?} to a banner, {greeting:?} where the client speaks first");
    assert!(banner < greeting + AT_ONCE, "{banner:?} to a banner, {greeting:?} otherwise");
}

/// Write, write, read: what Nagle's algorithm, a cork or a lost flush would hold up.
async fn small_writes_leave_at_once(wire: Wire) {
    const ROUNDS: usize = 500;
    let rig = Rig::new(wire).await;
    for asking in SIDES {
        let (mut asks, mut answers) = rig.connected_from(asking).await;
        let mut took = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            asks.write_all(b"a").await.unwrap();
            asks.write_all(b"b").await.unwrap();
            let mut question = [0; 2];
            soon("question", answers.read_exact(&mut question)).await.unwrap();
            assert_eq!(&question, b"ab");
            answers.write_all(b"c").await.unwrap();
            soon("answer", asks.read_exact(&mut [0])).await.unwrap();
            took.push(started.elapsed());
        }
        took.sort_unstable();
        let median = took[ROUNDS / 2];
        println!("{wire:?}, {asking:?} asks: median {median:?}, p99 {:?}", took[ROUNDS * 99 / 100]);
        assert!(median < AT_ONCE, "the median of small exchanges is {median:?}");
    }
}

async fn single_bytes_arrive_whole_and_in_order(wire: Wire) {
    let bytes: u32 =
        if slow("10^6 single bytes each way instead of 10^5") { 1_000_000 } else { 100_000 };
    let rig = Rig::new(wire).await;
    let (client, server) = rig.connected().await;
    let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    let pump = async |stream: TcpStream, seed: u32| {
        let (mut reader, mut writer) = stream.into_split();
        let writing = tokio::spawn(async move {
            let mut hash = Context::new(&SHA256);
            for i in 0..bytes {
                let one = [byte(i.wrapping_add(seed))];
                hash.update(&one);
                writer.write_all(&one).await.unwrap();
            }
            writer.shutdown().await.unwrap();
            hash.finish().as_ref().to_vec()
        });
        let received = hash_until_end(&mut reader).await;
        (writing.await.unwrap(), received)
    };
    let started = Instant::now();
    let (of_client, of_server) = tokio::join!(pump(client, 1), pump(server, 2));
    println!("{wire:?}: {bytes} single bytes each way in {:?}", started.elapsed());
    let total = u64::from(bytes);
    assert_eq!((of_client.1, of_server.1), ((total, of_server.0), (total, of_client.0)));
}

async fn a_full_duplex_transfer_arrives_whole(wire: Wire) {
    const MIB: u64 = 1024 * 1024;
    let bytes = if slow("10 GiB each way instead of 128 MiB") { 10 * 1024 * MIB } else { 128 * MIB };
    let rig = Rig::new(wire).await;
    let (client, server) = rig.connected().await;
    let pump = async |stream: TcpStream, seed: u64| {
        let (mut reader, mut writer) = stream.into_split();
        let writing = tokio::spawn(async move {
            send_noise(&mut writer, seed, bytes).await;
            writer.shutdown().await.unwrap();
        });
        let received = hash_until_end(&mut reader).await;
        writing.await.unwrap();
        received
    };
    let started = Instant::now();
    let (at_client, at_server) = tokio::join!(pump(client, 1), pump(server, 2));
    let took = started.elapsed();
    println!("{wire:?}: {} MiB each way in {took:?}", bytes / MIB);
    assert_eq!(at_client, (bytes, hash_of_noise(2, bytes)));
    assert_eq!(at_server, (bytes, hash_of_noise(1, bytes)));
}

/// Longer than a lane without streams lives, than keepalive waits, than any deadline of a handshake.
async fn a_long_silence_ends_nothing(wire: Wire) {
    let silence = match slow("a silence of 100 s instead of 1 s") {
        true => Duration::from_secs(100),
        false => Duration::from_secs(1),
    };
    let rig = Rig::new(wire).await;
    let (mut client, mut server) = rig.connected().await;
    let mut half_closed = rig.connected().await;
    half_closed.0.shutdown().await.unwrap();
    throughout(silence).await;
    for (one, other) in [(&mut client, &mut server)] {
        one.write_all(b"still there?").await.unwrap();
        soon("question", other.read_exact(&mut [0; 12])).await.unwrap();
        other.write_all(b"yes").await.unwrap();
        soon("answer", one.read_exact(&mut [0; 3])).await.unwrap();
    }
    half_closed.1.write_all(b"late").await.unwrap();
    soon("late answer", half_closed.0.read_exact(&mut [0; 4])).await.unwrap();
}
