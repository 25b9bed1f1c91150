//! Very many connections, one after the other: nothing of them is left.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mesh::{Mesh, Sidecar, Spec, get};
use super::support::{slow, until};
use super::traffic::App;

const AT_ONCE: usize = 32;
/// Before memory counts: allocators, tables and lanes have reached their size.
const WARM_UP: usize = 5_000;
/// How much resident memory may grow after that.
const DRIFT: f64 = 1.05;

#[tokio::test]
async fn a_million_connections_leave_nothing_behind() {
    let connections = if slow("10^6 connections instead of 20,000") { 1_000_000 } else { 20_000 };
    let (mesh, app) = (Mesh::dev("1h").await, App::start("db-1").await);
    let db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let web = mesh.sidecar(&spec).await;
    let sidecars = [&web, &db];

    run(&spec, WARM_UP).await;
    let before = join_all(sidecars.map(Base::of)).await;
    let started = Instant::now();
    run(&spec, connections).await;
    let took = started.elapsed();
    println!("{connections} connections in {took:?}, {:.0}/s", connections as f64 / took.as_secs_f64());
    for (sidecar, before) in sidecars.into_iter().zip(&before) {
        until("descriptors, threads and gauges at base", async || {
            let now = Base::of(sidecar).await;
            now.files <= before.files && now.threads == before.threads && now.open == 0.0
        })
        .await;
        let now = Base::of(sidecar).await;
        println!("before {before:?}\nafter  {now:?}");
        let drift = now.resident / before.resident;
        assert!(drift <= DRIFT, "resident memory grew to {drift:.3} of {} bytes", before.resident);
    }
}

/// What has to be the same before and after.
#[derive(Debug)]
struct Base {
    files: usize,
    threads: u64,
    /// Application connections, by the gauge.
    open: f64,
    #[allow(dead_code, reason = "printed: lanes that serve a load may stay")]
    lanes: f64,
    resident: f64,
}

impl Base {
    async fn of(sidecar: &Sidecar) -> Self {
        let text = get(sidecar.admin, "/metrics").await.body;
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
        };
        Self {
            files: sidecar.process.open_files().len(),
            threads: sidecar.process.threads(),
            open: sum("weft_connections_open{"),
            lanes: sum("weft_lanes_open{"),
            resident: sum("weft_process_resident_memory_bytes"),
        }
    }
}

/// So many connections in all, each with a question and its answer; every other one ends abruptly.
async fn run(spec: &Spec, connections: usize) {
    let door = spec.door();
    let client = async |number: usize| {
        for round in (number..connections).step_by(AT_ONCE) {
            let mut stream = TcpStream::connect(door).await.unwrap();
            stream.write_all(b"ping\n").await.unwrap();
            let mut answer = [0; 10];
            let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer));
            read.await.expect("no answer in time").unwrap();
            assert_eq!(&answer, b"db-1 ping\n");
            if round % 2 == 0 {
                stream.set_zero_linger().unwrap();
            }
        }
    };
    join_all((0..AT_ONCE).map(client)).await;
}
