//! Endpoints that fail in their several ways: who is asked next, who is left out, who comes back.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weft::model::{EjectionPolicy, Reason};

use crate::plane::{Authority, Plane, Tuning, application, soon};

const EJECTIONS: &str = r#"weft_ejections_total{dst="db"}"#;
const EJECTED: &str = r#"weft_endpoints{dst="db",state="ejected"}"#;

fn ejecting(ejection: EjectionPolicy) -> Tuning {
    let mut tuning = Tuning::default();
    tuning.upstream.ejection = ejection;
    tuning
}

/// A port that refuses.
async fn refusing() -> SocketAddr {
    application().await.1
}

/// Answers with one byte, and then echoes.
fn greet(app: TcpListener, greeting: u8) {
    tokio::spawn(async move {
        while let Ok((mut server, _)) = app.accept().await {
            tokio::spawn(async move {
                let _gone = server.write_all(&[greeting]).await;
                let (mut reader, mut writer) = server.split();
                let _broken_off = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
}

/// A `db` whose application greets with `greeting`.
async fn db(ca: &Authority, greeting: u8) -> Plane {
    let (app, address) = application().await;
    greet(app, greeting);
    let db = Plane::start(ca, "db", address, &[]);
    db.allow_all();
    db
}

/// The greeting of a server that speaks first.
async fn greeting(web: &Plane) -> io::Result<u8> {
    let mut client = TcpStream::connect(web.upstreams["db"]).await?;
    let mut one = [0];
    soon("greeting", client.read_exact(&mut one)).await?;
    Ok(one[0])
}

/// The greeting in answer to a client that speaks first.
async fn answer(web: &Plane) -> io::Result<u8> {
    let mut client = TcpStream::connect(web.upstreams["db"]).await?;
    client.write_all(b"ping").await?;
    let mut got = [0; 5];
    soon("answer", client.read_exact(&mut got)).await?;
    assert_eq!(&got[1..], b"ping");
    Ok(got[0])
}

/// A way to a sidecar that can be frozen: connections are taken, and nothing passes.
struct Way {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
}

impl Way {
    async fn to(sidecar: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let frozen = watch::Sender::new(false);
        let state = frozen.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let far = TcpStream::connect(sidecar).await.unwrap();
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    let there = carry(near_in, far_out, state.clone());
                    tokio::join!(there, carry(far_in, near_out, state));
                });
            }
        });
        Self { address, frozen }
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_ejected_and_returns() {
    let ca = Authority::new().await;
    let base_time = Duration::from_millis(200);
    let policy = EjectionPolicy { base_time, ..EjectionPolicy::default() };
    let (_gone, address) = application().await;
    let web = Plane::tuned(&ca, "web", address, &["db"], ejecting(policy));
    let well = db(&ca, 1).await;
    web.knows("db", "db-1", well.inbound);
    web.knows("db", "db-2", refusing().await);
    while web.metric(EJECTIONS) == 0.0 {
        assert_eq!(greeting(&web).await.unwrap(), 1, "a refusal is somebody else's turn");
    }
    web.shows(EJECTED, |out| out == 0.0).await;
    // It works when it returns, and is used.
    let second = db(&ca, 2).await;
    web.knows("db", "db-2", second.inbound);
    let used = async { while greeting(&web).await.unwrap() != 2 {} };
    soon("use of the one that returned", used).await;
}

#[tokio::test]
async fn the_last_endpoint_is_not_ejected() {
    let ca = Authority::new().await;
    let (app, address) = application().await;
    let mut web = Plane::start(&ca, "web", address, &["db"]);
    let refuses = refusing().await;
    web.knows("db", "db-1", refuses);
    for _ in 0..10 {
        assert!(greeting(&web).await.is_err());
        assert_eq!(web.ended().await, Reason::ConnectRefused);
    }
    assert_eq!(web.metric(EJECTIONS), 0.0);
    drop(app);
    // It is used as soon as it works.
    let well = db(&ca, 7).await;
    web.knows("db", "db-1", well.inbound);
    assert_eq!(greeting(&web).await.unwrap(), 7);
}

#[tokio::test]
async fn with_every_endpoint_out_connections_fail_at_once_unless_told_to_panic() {
    let ca = Authority::new().await;
    let base_time = Duration::from_secs(30);
    let policy = EjectionPolicy { base_time, max_percent: Some(100), ..EjectionPolicy::default() };
    let mut tuning = ejecting(policy);
    let (_app, address) = application().await;
    for panic in [false, true] {
        tuning.upstream.panic = panic;
        let mut web = Plane::tuned(&ca, "web", address, &["db"], tuning.clone());
        web.knows("db", "db-1", refusing().await);
        web.knows("db", "db-2", refusing().await);
        while web.metric(EJECTIONS) < 2.0 {
            assert!(greeting(&web).await.is_err());
            assert_eq!(web.ended().await, Reason::ConnectRefused);
        }
        let started = Instant::now();
        assert!(greeting(&web).await.is_err());
        let took = started.elapsed();
        let expected = if panic { Reason::ConnectRefused } else { Reason::NoHealthyEndpoint };
        assert_eq!(web.ended().await, expected);
        println!("all out, panic {panic}: failed after {took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn a_frozen_endpoint_costs_no_stream_whose_bytes_did_not_go_ahead() {
    let ca = Authority::new().await;
    let (_app, address) = application().await;
    let web = Plane::start(&ca, "web", address, &["db"]);
    let (well, other) = (db(&ca, 1).await, db(&ca, 2).await);
    let way = Way::to(other.inbound).await;
    web.knows("db", "db-1", well.inbound);
    web.knows("db", "db-2", way.address);
    let mut seen = [0; 3];
    while seen[1] < 5 || seen[2] < 5 {
        seen[usize::from(greeting(&web).await.unwrap())] += 1;
    }
    way.frozen.send_replace(true);
    let (mut worst, mut slow) = (Duration::ZERO, 0);
    for _ in 0..200 {
        let started = Instant::now();
        assert_eq!(greeting(&web).await.unwrap(), 1, "the frozen one cannot have answered");
        worst = worst.max(started.elapsed());
        slow += usize::from(started.elapsed() > Duration::from_millis(500));
    }
    println!("frozen, the server speaks first: {slow} of 200 waited, at most {worst:?}");
    assert!(slow < 20, "{slow} of 200 streams went to the frozen endpoint");
    // By now it has not answered for long, and first words are held back.
    for _ in 0..50 {
        assert_eq!(answer(&web).await.unwrap(), 1);
    }
    way.frozen.send_replace(false);
    let used = async { while answer(&web).await.unwrap() != 2 {} };
    soon("use of the one that has thawed", used).await;
}

#[tokio::test]
async fn retries_have_a_budget() {
    let ca = Authority::new().await;
    let policy = EjectionPolicy { enforcing_percent: 0, ..EjectionPolicy::default() };
    let (_app, address) = application().await;
    let mut web = Plane::tuned(&ca, "web", address, &["db"], ejecting(policy));
    web.knows("db", "db-1", refusing().await);
    web.knows("db", "db-2", refusing().await);
    // Two workers with a hundred free retries each and a fifth of their connections.
    for _ in 0..400 {
        assert!(greeting(&web).await.is_err());
        assert_eq!(web.ended().await, Reason::ConnectRefused);
    }
    assert!(web.reached("retry_budget") >= 50.0, "{}", web.reached("retry_budget"));
}
