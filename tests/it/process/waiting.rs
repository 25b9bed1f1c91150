//! Blocking queries against the real binary: how soon they wake, and what they cost while they wait.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weft::net::socket;

use super::mesh::Mesh;
use super::support::{slow, until, within};
use crate::http::send;
use crate::pace::pause;

/// Memory that one waiting query may cost the server. Futures of a build without optimisation are larger.
const MOST_BYTES: u64 = if cfg!(debug_assertions) { 64 * 1024 } else { 16 * 1024 };

/// Asks for a service and waits for a change after `index`; gives the connection to read from.
async fn wait_for(http: SocketAddr, service: &str, index: u64) -> TcpStream {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let target = format!("/v1/health/service/{service}?index={index}&wait=10m");
    let head = format!("GET {target} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The time at which the answer had come.
async fn woken(mut stream: TcpStream) -> Instant {
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    Instant::now()
}

async fn put(http: SocketAddr, target: &str, body: &str) {
    assert_eq!(send(http, "PUT", target, body).await.status, 200);
}

async fn index(http: SocketAddr, service: &str) -> u64 {
    send(http, "GET", &format!("/v1/health/service/{service}"), "").await.index()
}

#[tokio::test]
async fn a_waiting_query_wakes_right_after_the_write() {
    let rounds = if slow("1,000 wakes instead of 100") { 1000 } else { 100 };
    let mesh = Mesh::dev("1h").await;
    let http = mesh.http;
    put(http, "/v1/agent/service/register", r#"{"Name":"web","Check":{"TTL":"10m"}}"#).await;
    let mut took = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let waiting = wait_for(http, "web", index(http, "web").await).await;
        let woken = tokio::spawn(woken(waiting));
        let verdict = if round % 2 == 0 { "pass" } else { "fail" };
        let before = Instant::now();
        put(http, &format!("/v1/agent/check/{verdict}/service:web"), "").await;
        // From before the write was sent: the write itself is part of the figure.
        took.push(woken.await.unwrap().saturating_duration_since(before));
    }
    took.sort_unstable();
    let at = |share: usize| took[(rounds * share / 100).min(rounds - 1)];
    println!(
        "from a write to the answer of who waits: p50 {:?}, p99 {:?}, most {:?}",
        at(50),
        at(99),
        at(100)
    );
}

#[tokio::test]
async fn many_waiting_queries_cost_little_and_all_wake() {
    let count: usize = if slow("5,000 waiting queries instead of 500") { 5000 } else { 500 };
    let _files = socket::raise_file_limit();
    let mut mesh = Mesh::dev("1h").await;
    let http = mesh.http;
    put(http, "/v1/agent/service/register", r#"{"Name":"web","Check":{"TTL":"10m"}}"#).await;
    let index = index(http, "web").await;
    // One round first: what the server keeps once is not what a query costs.
    let first = wait_for(http, "web", index - 1).await;
    woken(first).await;
    let before = mesh.server().memory_bytes();
    let mut waiting = Vec::with_capacity(count);
    for _ in 0..count {
        waiting.push(wait_for(http, "web", index).await);
    }
    until("all connections", async || mesh.server().open_files().len() > count).await;
    // A request that is read has its handler's memory: nothing says so but the figure standing still.
    let mut last = 0;
    until("the memory to settle", async || {
        pause(Duration::from_millis(100)).await;
        let now = mesh.server().memory_bytes();
        std::mem::replace(&mut last, now).abs_diff(now) < 64 * 1024
    })
    .await;
    let each = last.saturating_sub(before) / count as u64;
    println!("{count} waiting queries: {each} bytes of the server's memory each");
    assert!(each <= MOST_BYTES, "{each} bytes for each of {count}");

    let started = Instant::now();
    let mut all = JoinSet::new();
    for stream in waiting {
        all.spawn(woken(stream));
    }
    put(http, "/v1/agent/check/pass/service:web", "").await;
    while let Some(woken) = all.join_next().await {
        woken.unwrap();
    }
    println!("all {count} woken after {:?}", started.elapsed());
}
