//! The real `etcdctl` against the real binary.

use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::*;
use crate::pace::pause;
use crate::{mesh, programs};

async fn etcdctl(address: SocketAddr, args: &[&str]) -> Output {
    let run = command(address, args).output();
    let output = timeout(DEADLINE, run).await.expect("etcdctl does not end");
    output.expect("no etcdctl; install etcd-client, as .ci/run does")
}

fn command(address: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={address}")).args(args);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What a command prints; it must succeed.
async fn said(address: SocketAddr, args: &[&str]) -> String {
    let output = etcdctl(address, args).await;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).trim_end().to_owned()
}

#[tokio::test]
async fn etcdctl_puts_with_a_lease_that_expires_and_watches_it() {
    if !programs::present(&["etcdctl"]) {
        return;
    }
    const VALUE: &str = r#"{"address": "10.0.0.7", "port": 8080}"#;
    let server = mesh::server_with_etcd().await;
    let address = server.bound().etcd.unwrap();
    let health = etcdctl(address, &["endpoint", "health"]).await;
    assert!(health.status.success(), "{health:?}");
    let status = said(address, &["endpoint", "status", "--write-out=json"]).await;
    assert!(status.contains("\"version\":\"3."), "{status}");
    let members = said(address, &["member", "list"]).await;
    assert!(members.contains(&format!("http://{address}")), "{members}");

    let mut watch = command(address, &["watch", "--prefix", "/services/", "--prev-kv"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || within("a line of the watch", lines.next_line()).await.unwrap().unwrap();
    // The watch says nothing when it begins: keys are put until one is heard of.
    let first = async {
        loop {
            said(address, &["put", "/services/probe", "x"]).await;
            pause(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        line = next() => assert_eq!(line, "PUT"),
        () = first => {}
    }

    let granted = said(address, &["lease", "grant", "2"]).await; // lease 4a2f… granted with TTL(2s)
    let lease = granted.split(' ').nth(1).unwrap().to_owned();
    assert!(granted.ends_with("granted with TTL(2s)"), "{granted}");
    let put = said(address, &["put", "/services/cache/c1", VALUE, &format!("--lease={lease}")]).await;
    assert_eq!(put, "OK");
    let put_at = Instant::now();
    assert_eq!(said(address, &["get", "/services/cache/c1", "--print-value-only"]).await, VALUE);
    let listed = said(address, &["lease", "timetolive", &lease, "--keys"]).await;
    assert!(listed.contains("/services/cache/c1"), "{listed}");
    let catalog = server.catalog().clone();
    let cache = ServiceName::new("cache").unwrap();
    eventually("the instance", || catalog.health(&cache).len() == 1).await;
    while next().await != "/services/cache/c1" {}
    assert_eq!((next().await, next().await), (VALUE.to_owned(), "DELETE".to_owned()));
    assert!(put_at.elapsed() < Duration::from_secs(4), "{:?}", put_at.elapsed());
    eventually("its end", || catalog.health(&cache).is_empty()).await;
    assert_eq!(said(address, &["get", "/services/cache/c1"]).await, "");

    let kept = said(address, &["lease", "grant", "60"]).await;
    let lease = kept.split(' ').nth(1).unwrap().to_owned();
    let once = said(address, &["lease", "keep-alive", "--once", &lease]).await;
    assert!(once.contains("keepalived with TTL(60)"), "{once}");
    let revoked = said(address, &["lease", "revoke", &lease]).await;
    assert_eq!(revoked, format!("lease {lease} revoked"));
    let refused = etcdctl(address, &["lease", "revoke", &lease]).await;
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("etcdserver: requested lease not found"), "{refused}");
    assert_eq!(said(address, &["del", "--prefix", "/services/"]).await, "1");
    watch.kill().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn etcdctl_takes_a_lock_and_elects() {
    if !programs::present(&["etcdctl"]) {
        return;
    }
    let server = mesh::server_with_etcd().await;
    let address = server.bound().etcd.unwrap();
    // The command runs while the lock is held.
    let held = said(address, &["lock", "job", "echo", "locked"]).await;
    assert_eq!(held, "locked");
    let mut election = command(address, &["elect", "leader", "me"]);
    let mut election = election.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(election.stdout.take().unwrap()).lines();
    let key = within("the election", lines.next_line()).await.unwrap().unwrap();
    assert!(key.starts_with("leader/"), "{key}");
    assert_eq!(said(address, &["get", &key, "--print-value-only"]).await, "me");
    election.kill().await.unwrap();
    server.stop().await;
}
