//! A frozen endpoint whose service speaks first, and one behind a bad network: no stream fails that could
//! go elsewhere, and who is merely slow is not left out. `frozen` has clients that speak first.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::mesh::{Mesh, Sidecar, Spec};
use super::support::{DEADLINE, local, slow};
use super::traffic::{App, Load};
use crate::netns::Host;

const PER_SECOND: u32 = 100;
/// In this time a share of the load, however small, reaches an endpoint that is far away.
const RETURN: Duration = Duration::from_secs(90);

/// A server that speaks first has seen no byte of a stream: every one can go elsewhere.
#[tokio::test]
async fn a_frozen_endpoint_of_a_server_that_speaks_first() {
    if !slow("connections without a first word to a service with a frozen endpoint: 20 s") {
        return;
    }
    let mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let (well_app, frozen_app) = (greeter().await, greeter().await);
    let _well = mesh.sidecar(&Spec::new("db", "db-1", well_app)).await;
    let frozen = mesh.sidecar(&Spec::new("db", "db-2", frozen_app)).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&spec).await;
    for _ in 0..50 {
        greeted(spec.door()).await.unwrap();
    }
    frozen.process.signal(Signal::STOP);
    let clients: JoinSet<_> = (0..100).map(|_| greeted(spec.door())).collect();
    let results = clients.join_all().await;
    let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let longest = results.iter().filter_map(|result| result.as_ref().ok()).max();
    println!(
        "{} of {} were not greeted; the longest wait was {longest:?}",
        failures.len(),
        results.len()
    );
    assert!(failures.is_empty(), "{failures:?}");
    frozen.process.signal(Signal::CONT);
}

/// One endpoint is on another host, 50 ms away over a link that loses 5 % each way.
#[tokio::test]
async fn one_endpoint_behind_a_bad_network() {
    if !slow("an endpoint behind loss and delay: a minute, root, network namespaces") {
        return;
    }
    let host = Host::new();
    let mesh = Mesh::start_at(host.here.into()).await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let apps = [App::start("db-1").await, App::start("db-2").await];
    let _one = mesh.sidecar(&Spec::new("db", "db-1", apps[0].port())).await;
    let _two = mesh.sidecar(&Spec::new("db", "db-2", apps[1].port())).await;

    // There, everything is on loopback but the relay, which delays what it passes on.
    let app = App::serve("db-3", host.listen(Ipv4Addr::LOCALHOST));
    let far = Spec::new("db", "db-3", app.port());
    let outside = SocketAddr::new(host.there.into(), far.inbound_port);
    delaying_relay(&host, outside, local(far.inbound_port), Duration::from_millis(50));
    let there = host.there.to_string();
    let far = mesh.launch_there(&far, &host.name, &["--advertise", &there]).await;
    let _far = Sidecar::ready(far).await;

    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let web = mesh.sidecar(&spec).await;
    let load = Load::start(spec.door(), PER_SECOND);
    load.answers_by("db-3", 1, RETURN).await;
    host.drop_packets("meta l4proto tcp numgen random mod 100 < 5");
    load.last(Duration::from_secs(40)).await;
    load.answers_by("db-3", 1, RETURN).await;
    let seen = load.finish().await;
    println!("a bad network: {} failed, answers {:?}", seen.failures.len(), seen.answers);
    assert!(seen.failures.is_empty(), "{seen:?}");
    let ejections = web.metric(r#"weft_ejections_total{dst="db"}"#).await.unwrap_or(0.0);
    assert!(ejections == 0.0, "an endpoint that was merely slow was ejected {ejections} times");
}

/// An application that greets and then listens; its port.
async fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"hello").await?;
                stream.read_to_end(&mut Vec::new()).await
            });
        }
    });
    port
}

/// How long it takes to be greeted.
async fn greeted(door: SocketAddr) -> io::Result<Duration> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(door).await?;
    timeout(DEADLINE, stream.read_exact(&mut [0; 5])).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(started.elapsed())
}

/// Relays connections on `host`, from a thread and a runtime there, and delays every piece each way.
/// It ends with the test program.
fn delaying_relay(host: &Host, at: SocketAddr, to: SocketAddr, delay: Duration) {
    host.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind(at).await.unwrap();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(to).await else { continue };
                tokio::spawn(async move {
                    let ((near_reads, near_writes), (far_reads, far_writes)) =
                        (near.into_split(), far.into_split());
                    tokio::spawn(late(near_reads, far_writes, delay));
                    late(far_reads, near_writes, delay).await;
                });
            }
        });
    });
}

/// Passes pieces on, each `delay` after it came.
async fn late(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let (pieces, mut due) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(64);
    tokio::spawn(async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if pieces.send((Instant::now() + delay, bytes[..count].to_vec())).await.is_err() {
            break;
        }
    }
}
