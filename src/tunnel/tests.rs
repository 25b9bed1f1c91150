//! Lanes over real sockets, driven by hand: what cannot be seen from outside.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::handshake::{self, Turn};
use super::pool::{Key, Pool};
use super::{Driver, Lane, Stream, Verdict, flow};
use crate::model::{Reason, ServiceName};
use crate::net::{limits, socket};
use crate::tls::testing::Forge;

const DEADLINE: Duration = Duration::from_secs(10);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what} in time"))
}

/// Both ends of a lane before either driver runs, and the streams that the accepting end takes.
struct Ends {
    lane: Lane,
    dialling: Driver,
    accepting: Driver,
    opened: mpsc::Receiver<Stream>,
}

async fn ends(framed: bool) -> Ends {
    let forge = Forge::new("11111111-2222-3333-4444-555555555555.consul");
    let (web, db) = (forge.identity("web"), forge.identity("db"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let mut config = (*web.client_config(&service()).unwrap()).clone();
    if !framed {
        config.alpn_protocols.clear();
    }
    let turn = Turn::new(1);
    let accepted = async {
        let (socket, peer) = listener.accept().await.unwrap();
        handshake::accept(socket, peer, db.server_config(), &turn).await
    };
    let (dialled, accepted) =
        tokio::join!(handshake::connect(address, Arc::new(config), DEADLINE), accepted);
    let expires = SystemTime::now() + Duration::from_secs(600);
    let (streams, opened) = mpsc::channel(1024);
    let on_open = Box::new(move |stream| assert!(streams.try_send(stream).is_ok()));
    let (lane, dialling) = Driver::new(dialled.unwrap_or_else(|e| panic!("{e}")), expires, None);
    let (_, accepting) = Driver::new(accepted.unwrap_or_else(|e| panic!("{e}")), expires, Some(on_open));
    Ends { lane, dialling, accepting, opened }
}

fn service() -> ServiceName {
    ServiceName::new("db").unwrap()
}

/// Where a pool's dials are said to go.
fn key() -> Key {
    Key { service: service(), address: "127.0.0.1:9".parse().unwrap(), generation: 1 }
}

/// The two ends of an application's connection.
async fn application() -> (TcpStream, Rc<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, Rc::new(listener.accept().await.unwrap().0))
}

#[tokio::test]
async fn streams_of_a_driver_that_is_given_up_are_told() {
    let flow = async {
        let mut ends = ends(true).await;
        let dialling = spawn_local(ends.dialling.run());
        let accepting = spawn_local(ends.accepting.run());
        let mut stream = ends.lane.open(&service(), 0).unwrap();
        soon("stream", ends.opened.recv()).await.unwrap().accept();
        assert_eq!(soon("verdict", stream.verdict()).await, Verdict::Opened);
        dialling.abort(); // as a panic in it does
        let (_client, app) = application().await;
        let end = soon("end of the stream", stream.pump(&app)).await;
        assert_eq!(end.reason, Reason::PeerReset);
        assert!(ends.lane.open(&service(), 0).is_none(), "a lane without a driver takes no streams");
        soon("end of the peer's driver", accepting).await.unwrap();
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}

#[tokio::test]
async fn an_idle_lane_and_its_streams_own_no_buffers() {
    let flow = async {
        let mut ends = ends(true).await;
        spawn_local(ends.dialling.run());
        spawn_local(ends.accepting.run());
        let mut stream = ends.lane.open(&service(), 0).unwrap();
        let mut accepted = soon("stream", ends.opened.recv()).await.unwrap();
        accepted.accept();
        let ((mut client, app), (mut server, far)) = (application().await, application().await);
        let far_lane = accepted.lane().clone();
        let near = spawn_local(async move { stream.pump(&app).await });
        spawn_local(async move { accepted.pump(&far).await });
        let payload = vec![7u8; 4 << 20];
        let mut got = vec![0; payload.len()];
        let send = async {
            client.write_all(&payload).await.unwrap();
            client.read_exact(&mut [0; 3]).await.unwrap();
        };
        let receive = async {
            server.read_exact(&mut got).await.unwrap();
            server.write_all(b"end").await.unwrap();
        };
        soon("transfer", async { tokio::join!(send, receive) }).await;
        for lane in [&ends.lane, &far_lane] {
            let held = || {
                let state = lane.0.state.borrow();
                let pending: usize = state.streams.values().map(|cell| cell.held()).sum();
                state.outgoing.capacity() + pending
            };
            let empty = async {
                while held() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            soon("return of the buffers", empty).await;
        }
        assert!(!near.is_finished());
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}

#[tokio::test]
async fn a_lane_whose_ids_are_used_up_makes_room_for_another() {
    let flow = async {
        let ends = ends(true).await;
        ends.lane.0.state.borrow_mut().last_id = u32::MAX - 1;
        let last = ends.lane.open(&service(), 0).unwrap();
        assert!(ends.lane.open(&service(), 0).is_none());
        assert!(!ends.lane.is_open(), "the pool opens another lane");
        drop(last);
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}

#[tokio::test]
async fn what_a_foreign_server_says_first_waits_for_the_stream() {
    let flow = async {
        let mut ends = ends(false).await;
        spawn_local(ends.accepting.run());
        let mut accepted = soon("stream", ends.opened.recv()).await.unwrap();
        let (mut server, far) = application().await;
        spawn_local(async move { accepted.pump(&far).await });
        server.write_all(b"220 ready").await.unwrap();
        // Driven before anybody has opened the stream, as when the dial was shared.
        spawn_local(ends.dialling.run());
        soon("first words at the lane", ends.lane.0.socket.readable()).await.unwrap();
        let mut stream = ends.lane.open(&service(), 0).unwrap();
        let (mut client, app) = application().await;
        spawn_local(async move { stream.pump(&app).await });
        let mut banner = [0; 9];
        soon("banner", client.read_exact(&mut banner)).await.unwrap();
        assert_eq!(&banner, b"220 ready");
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}

#[tokio::test]
async fn an_application_that_does_not_read_costs_one_small_window() {
    let flow = async {
        let mut ends = ends(true).await;
        spawn_local(ends.dialling.run());
        spawn_local(ends.accepting.run());
        let mut stream = ends.lane.open(&service(), 0).unwrap();
        let mut accepted = soon("stream", ends.opened.recv()).await.unwrap();
        accepted.accept();
        let ((mut client, app), (stalled, far)) = (application().await, application().await);
        socket::face_application(&far);
        let far_lane = accepted.lane().clone();
        spawn_local(async move { stream.pump(&app).await });
        spawn_local(async move { accepted.pump(&far).await });
        let flood = vec![7u8; 1 << 20];
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(300), client.write_all(&flood)).await.is_ok() {
            sent += flood.len();
        }
        let held = far_lane.find(1).unwrap().held();
        println!("the stalled stream holds {held} bytes after more than {sent}");
        assert!(held <= 2 * flow::INITIAL_WINDOW as usize, "{held} bytes");
        drop(stalled);
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}

#[tokio::test]
async fn those_who_waited_for_one_dial_do_not_overfill_its_lane() {
    let flow = async {
        let pool = Rc::new(Pool::default());
        let key = key();
        let one = || async {
            let dial = || async {
                let Ends { lane, dialling, accepting, opened } = ends(true).await;
                spawn_local(async move {
                    let _kept = opened;
                    accepting.run().await
                });
                Ok((lane, dialling))
            };
            let lane = pool.lane(&key, dial).await.unwrap_or_else(|e| panic!("{e}"));
            lane.open(&service(), 0).unwrap()
        };
        let storm = (0..2 * limits::STREAMS_PER_LANE).map(|_| one());
        let streams = soon("all streams", futures_util::future::join_all(storm)).await;
        let most = streams.iter().map(|stream| stream.lane().streams()).max();
        assert_eq!(most, Some(limits::STREAMS_PER_LANE));
        assert_eq!(pool.len(), 2);
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}

#[tokio::test]
async fn a_new_stream_keeps_away_from_bulk() {
    let flow = async {
        let pool = Rc::new(Pool::default());
        let key = key();
        // Whatever is opened at the far end is accepted, and swallowed.
        let dial = || async {
            let Ends { lane, dialling, accepting, mut opened } = ends(true).await;
            spawn_local(accepting.run());
            spawn_local(async move {
                while let Some(mut stream) = opened.recv().await {
                    let (mut sink, far) = application().await;
                    spawn_local(async move {
                        stream.accept();
                        stream.pump(&far).await
                    });
                    spawn_local(
                        async move { tokio::io::copy(&mut sink, &mut tokio::io::empty()).await },
                    );
                }
            });
            Ok((lane, dialling))
        };
        let lane = async || pool.lane(&key, dial).await.unwrap_or_else(|e| panic!("{e}"));

        let busy = lane().await;
        let mut bulk = busy.open(&service(), 0).unwrap();
        let (mut client, app) = application().await;
        spawn_local(async move { bulk.pump(&app).await });
        let flood = spawn_local(async move {
            let block = vec![7u8; 128 * 1024];
            while client.write_all(&block).await.is_ok() {}
        });
        let is_bulk = async |wanted: bool| {
            while busy.carries_bulk() != wanted {
                tokio::task::yield_now().await;
            }
        };
        soon("bulk", is_bulk(true)).await;
        let quiet = soon("another lane", lane()).await;
        assert!(!quiet.is(&busy));
        assert!(lane().await.is(&quiet), "and the next one comes there, too");

        flood.abort();
        soon("the end of it", is_bulk(false)).await;
        let _first = quiet.open(&service(), 0).unwrap();
        assert!(lane().await.is(&busy), "the lane is as good as any again");
    };
    LocalSet::new().run_until(Box::pin(flow)).await;
}
