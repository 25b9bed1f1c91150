//! SIGTERM under load, again and again: no stream of a client fails, on either side.

use tokio::time::Instant;

use super::mesh::{Mesh, Spec};
use super::support::{DEADLINE, slow};
use super::traffic::{App, Load};

/// More than 500, because a loaded machine makes fewer.
const MANY: u32 = 600;

/// One of two destinations leaves and comes back. Says how many connections failed.
async fn destination_leaves(times: usize, per_second: u32) -> usize {
    let mesh = Mesh::dev("1h").await;
    let apps = [App::start("db-1").await, App::start("db-2").await];
    let _stays = mesh.sidecar(&Spec::new("db", "db-1", apps[0].port())).await;
    let leaver = Spec::new("db", "db-2", apps[1].port());
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&spec).await;
    let load = Load::start(spec.door(), per_second);
    let started = Instant::now();
    for _ in 0..times {
        let mut leaves = mesh.sidecar(&leaver).await;
        load.answers_by("db-2", 10, DEADLINE).await;
        assert_eq!(leaves.stop().await, 0);
        assert!(leaves.process.log().iter().any(|line| line["message"] == "drained"));
    }
    let elapsed = started.elapsed().as_secs_f64();
    let seen = load.finish().await;
    println!(
        "a destination left {times} times at {:.0} connections/s: {} answered {:?}, {} failed",
        seen.total() as f64 / elapsed,
        seen.total(),
        seen.answers,
        seen.failures.len(),
    );
    for failure in seen.failures.iter().take(5) {
        println!("{failure:?}");
    }
    seen.failures.len()
}

/// The only door closes: who is connected is served, whoever comes after is refused. Says how many
/// connections were taken and failed.
async fn source_leaves(times: usize, per_second: u32) -> usize {
    let (mesh, app) = (Mesh::dev("1h").await, App::start("db-1").await);
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let (mut answered, mut refused, mut failed) = (0, 0, Vec::new());
    let mut loaded = std::time::Duration::ZERO;
    for _ in 0..times {
        let mut web = mesh.sidecar(&spec).await;
        let started = Instant::now();
        let load = Load::start(spec.door(), per_second);
        load.answers(30).await;
        assert_eq!(web.stop().await, 0);
        assert!(web.process.log().iter().any(|line| line["message"] == "drained"));
        loaded += started.elapsed();
        let seen = load.finish().await;
        answered += seen.total();
        // Without an end of its own the client was never connected.
        refused += seen.failures.iter().filter(|one| one.client.is_none()).count();
        failed.extend(seen.failures.into_iter().filter(|one| one.client.is_some()));
    }
    println!(
        "a source left {times} times at {:.0} connections/s: {answered} answered, {refused} came after the \
         end, {} failed",
        (answered + refused + failed.len()) as f64 / loaded.as_secs_f64(),
        failed.len(),
    );
    for failure in failed.iter().take(5) {
        println!("{failure:?}");
    }
    failed.len()
}

#[tokio::test]
async fn a_few_times() {
    assert_eq!(destination_leaves(2, 100).await, 0);
    assert_eq!(source_leaves(3, 100).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_times_as_destination() {
    if slow("100 SIGTERM drains of a destination at 500 connections/s") {
        assert_eq!(destination_leaves(100, MANY).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_times_as_source() {
    if slow("100 SIGTERM drains of a source at 500 connections/s") {
        assert_eq!(source_leaves(100, MANY).await, 0);
    }
}
