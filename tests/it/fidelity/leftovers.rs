//! Storms, rotations and drains lose nothing, and nothing is left behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft::model::Reason;

use crate::pace::{look_again, pause};
use crate::plane::{DEADLINE, Plane, echo, pair, soon};

async fn accept(app: &TcpListener) -> TcpStream {
    soon("connection at the application", app.accept()).await.unwrap().0
}

async fn connected(web: &Plane, app: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = web.dial("db").await;
    client.write_all(b"x").await.unwrap();
    let mut server = accept(app).await;
    let mut byte = [0];
    soon("byte", server.read_exact(&mut byte)).await.unwrap();
    (client, server)
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("end of stream", stream.read_to_end(&mut all)).await?;
    Ok(all)
}

#[tokio::test]
async fn a_storm_larger_than_one_lane_is_served() {
    const CLIENTS: usize = 3000;
    let (mut web, _db, app, _ca) = pair().await;
    let address = web.upstreams["db"];
    let servers = tokio::spawn(async move {
        let mut servers = Vec::new();
        while servers.len() < CLIENTS {
            servers.push(app.accept().await.unwrap().0);
        }
        servers
    });
    web.set_synced(false); // so that all of them want a lane at once
    let dials = (0..CLIENTS).map(|_| TcpStream::connect(address));
    let clients: Vec<_> = futures_util::future::try_join_all(dials).await.unwrap();
    web.set_synced(true);
    let servers = tokio::select! {
        servers = soon("every connection", servers) => servers.unwrap(),
        refused = web.ended() => panic!("a connection of the storm was refused: {refused}"),
    };
    drop((clients, servers));
}

#[tokio::test]
async fn rotation_loses_no_connection() {
    let (mut web, db, app, ca) = pair().await;
    echo(app);
    let identities: Vec<_> = (2..300).map(|generation| ca.identity("db", generation)).collect();
    let rotate = async {
        for identity in identities {
            db.identity.send_replace(Some(identity));
            pause(Duration::from_millis(2)).await;
        }
    };
    let address = web.upstreams["db"];
    let client = || async {
        let mut done = 0;
        let until = tokio::time::Instant::now() + Duration::from_millis(600);
        while tokio::time::Instant::now() < until {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"early words").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read_all(&mut client).await.unwrap(), b"early words");
            done += 1;
        }
        done
    };
    let all = futures_util::future::join_all((0..16).map(|_| client()));
    let (done, ()) = tokio::join!(all, rotate);
    for _ in 0..done.iter().sum::<usize>() {
        assert_eq!(web.ended().await, Reason::Ok);
    }
}

#[tokio::test]
async fn who_drains_is_not_dialled_in_vain() {
    let (web, mut db, app, _ca) = pair().await;
    let (client, server) = connected(&web, &app).await;
    let drained = tokio::spawn(db.proxy.take().unwrap().drain(Duration::from_secs(10)));
    let refused = async {
        while TcpStream::connect(db.inbound).await.is_ok() {
            look_again().await;
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(2), refused).await;
    assert!(refused.is_ok(), "connections wait in a queue that nobody serves");
    assert!(!drained.is_finished(), "the open stream has its grace");
    drop((client, server));
    soon("drain", drained).await.unwrap();
}

/// Sockets of this process that are connected to or from one of these addresses, listeners aside.
fn sockets(addresses: &[SocketAddr]) -> usize {
    let ports: BTreeSet<_> = addresses.iter().map(|a| format!("{:04X}", a.port())).collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_ours = |address: &str| ports.contains(address.rsplit(':').next().unwrap());
    // 06 is TIME_WAIT and 0A LISTEN; neither is a connection that anybody holds.
    lines.filter(|l| !["06", "0A"].contains(&l[3]) && (of_ours(l[1]) || of_ours(l[2]))).count()
}

async fn come_down_to(what: &str, most: usize, addresses: &[SocketAddr]) {
    let until = tokio::time::Instant::now() + DEADLINE;
    while sockets(addresses) > most {
        assert!(tokio::time::Instant::now() < until, "{what}: {} sockets", sockets(addresses));
        look_again().await;
    }
}

#[tokio::test]
async fn lanes_to_an_endpoint_that_left_are_given_up_once_their_streams_have_ended() {
    let (web, db, app, _ca) = pair().await;
    let (mut client, mut server) = connected(&web, &app).await;
    web.forgets("db", "db-1");
    client.write_all(b"still here").await.unwrap();
    soon("what was under way", server.read_exact(&mut [0; 10])).await.unwrap();
    drop((client, server));
    come_down_to("lanes", 0, &[db.inbound]).await;
}

#[tokio::test]
async fn connections_leave_nothing_behind() {
    let (mut web, mut db, app, _ca) = pair().await;
    let at_app = app.local_addr().unwrap();
    for round in 0..300 {
        let (client, server) = connected(&web, &app).await;
        if round % 3 == 0 {
            client.set_zero_linger().unwrap();
        } else if round % 3 == 1 {
            server.set_zero_linger().unwrap();
        }
        drop((client, server));
    }
    for _ in 0..300 {
        web.ended().await;
    }
    come_down_to("applications", 0, &[web.upstreams["db"], at_app]).await;
    // Both ends of a few lanes at most: one for each pair of workers.
    come_down_to("lanes", 8, &[db.inbound]).await;
    assert!(soon("drain", db.proxy.take().unwrap().drain(Duration::from_secs(5))).await);
    come_down_to("lanes after the drain", 0, &[db.inbound]).await;
    assert!(soon("drain", web.proxy.take().unwrap().drain(Duration::from_secs(5))).await);
}
