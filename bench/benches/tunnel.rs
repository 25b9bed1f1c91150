//! The pure parts of the data path, one call at a time: `cd bench; cargo bench --features micro`.
//!
//! They tell a slower codec from a slower machine; what users feel is measured by `bench/run`.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weft::tunnel::codec::{self, Decoder, Event, MAX_DATA_BYTES};
use weft::tunnel::flow::{INITIAL_WINDOW, MAX_WINDOW, ReceiveWindow, SendCredit};

/// The balancer is the proxy's own business, so its file is taken as it is; this is where it finds the
/// generator it uses.
mod net {
    pub use weft::net::rng;
}
#[allow(dead_code, reason = "what only its own tests use")]
#[path = "../../src/proxy/balance.rs"]
mod balance;

/// Plaintext that one read of a TLS record gives.
const RECORD_BYTES: usize = 16 * 1024;
/// Small messages of many streams that leave in one write.
const SMALL_FRAMES: u32 = 64;
const SMALL_BYTES: usize = 128;

fn wire(frames: u32, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for stream in 1..=frames {
        codec::put(&mut wire, &Event::Data { stream, bytes: payload });
    }
    wire
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::new();
    let large = vec![7; MAX_DATA_BYTES];
    group.throughput(Throughput::Bytes(MAX_DATA_BYTES as u64));
    group.bench_function("one longest frame", |bencher| {
        bencher.iter(|| {
            out.clear();
            codec::put(&mut out, &Event::Data { stream: 1, bytes: black_box(&large) });
        });
    });
    let small = [7; SMALL_BYTES];
    group.throughput(Throughput::Elements(SMALL_FRAMES.into()));
    group.bench_function("64 frames of 128 bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            for stream in 1..=SMALL_FRAMES {
                codec::put(&mut out, &Event::Data { stream, bytes: black_box(&small) });
            }
        });
    });
    group.finish();
}

fn decode_all(decoder: &mut Decoder, wire: &[u8], piece_bytes: usize) -> usize {
    let mut bytes = 0;
    for mut piece in wire.chunks(piece_bytes) {
        while let Ok(Some(event)) = decoder.next(&mut piece) {
            if let Event::Data { bytes: data, .. } = event {
                bytes += black_box(data).len();
            }
        }
    }
    bytes
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let large = wire(1, &vec![7; MAX_DATA_BYTES]);
    group.throughput(Throughput::Bytes(MAX_DATA_BYTES as u64));
    group.bench_function("one longest frame, a record at a time", |bencher| {
        let mut decoder = Decoder::default();
        bencher.iter(|| assert_eq!(decode_all(&mut decoder, &large, RECORD_BYTES), MAX_DATA_BYTES));
    });
    let small = wire(SMALL_FRAMES, &[7; SMALL_BYTES]);
    group.throughput(Throughput::Elements(SMALL_FRAMES.into()));
    group.bench_function("64 frames of 128 bytes", |bencher| {
        let mut decoder = Decoder::default();
        bencher.iter(|| {
            assert_eq!(
                decode_all(&mut decoder, &small, RECORD_BYTES),
                SMALL_FRAMES as usize * SMALL_BYTES
            );
        });
    });
    group.finish();
}

fn credit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("credit");
    group.throughput(Throughput::Bytes(INITIAL_WINDOW.into()));
    group.bench_function("a window sent, taken and granted, a record at a time", |bencher| {
        let (mut credit, mut window) = (SendCredit::new(), ReceiveWindow::new());
        bencher.iter(|| {
            for _ in 0..INITIAL_WINDOW as usize / RECORD_BYTES {
                credit.spend(black_box(RECORD_BYTES));
                assert!(window.received(RECORD_BYTES).is_ok());
                // With a backlog, so that the window stays as it is.
                assert!(credit.grant(window.taken(RECORD_BYTES, false, MAX_WINDOW)).is_ok());
            }
        });
    });
    group.finish();
}

fn balancer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balancer");
    for count in [2, 10, 100] {
        let candidate = |index: u32| balance::Candidate {
            weight: 1 + index % 3,
            in_flight: index % 7,
            dial_s: 0.001,
            consecutive_failures: 0,
            quiet: false,
            ejected_until: None,
            tried: false,
        };
        let candidates: Vec<_> = (0..count).map(candidate).collect();
        let mut rng = net::rng::Rng::from_seed(1);
        group.bench_function(format!("one of {count}"), |bencher| {
            bencher.iter(|| balance::choose(black_box(&candidates), false, &mut rng));
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode, credit, balancer);
criterion_main!(benches);
