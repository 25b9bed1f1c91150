//! A peer whose host has vanished, without FIN or reset: noticed, and told to the application.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Rig, Wire};
use crate::netns::Host;
use crate::pace::look_again;
use crate::plane::{local, soon};
use crate::process::slow;

/// Noticed when nothing is said, and when something is.
const IDLE: Duration = Duration::from_secs(30);
const IN_FLIGHT: Duration = Duration::from_secs(20);
/// Who is not told by then is not told at all.
const NEVER: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_vanished_host_is_noticed_on_a_lane() {
    if !slow("a host that vanishes at the other end of a lane: 30 s, root, network namespaces") {
        return;
    }
    let (idle, busy) = tokio::join!(
        vanish(Place::Sidecar, Wire::Lanes, false),
        vanish(Place::Sidecar, Wire::Lanes, true)
    );
    println!(
        "idle: the caller and the application were told after {idle:?}; with data in flight {busy:?}"
    );
    assert!(idle.iter().all(|took| *took <= IDLE), "{idle:?}");
    assert!(busy.iter().all(|took| *took <= IN_FLIGHT), "{busy:?}");
}

/// Of a connection that is in use nothing is promised: plain TLS has no credit, and for the kernel a
/// reader that stalls is one that has vanished.
#[tokio::test]
async fn a_vanished_host_is_noticed_in_connect_mode() {
    if !slow("a host that vanishes in Connect mode: 30 s, root, network namespaces") {
        return;
    }
    let (near, far) = tokio::join!(
        vanish(Place::Foreign, Wire::Connect, false),
        vanish(Place::Sidecar, Wire::Connect, false)
    );
    println!("idle: the caller was told after {:?}, the application after {:?}", near[0], far[1]);
    assert!(near[0] <= IDLE && far[1] <= IDLE, "{near:?} {far:?}");
}

/// Who is on the host that vanishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The accepting sidecar.
    Sidecar,
    /// The foreign proxy before it.
    Foreign,
}

/// How long it takes until the caller and the application are told; for ever, unless they are soon.
async fn vanish(place: Place, wire: Wire, in_flight: bool) -> [Duration; 2] {
    let host = Host::new();
    let (inbound, foreign) = match place {
        Place::Sidecar => (host.listen(host.there), local()),
        Place::Foreign => (local(), host.listen(host.there)),
    };
    let rig = Rig::with_listeners(wire, inbound, foreign).await;
    let (mut client, mut server) = rig.connected().await;
    // Of what nobody has acknowledged the kernel knows another deadline.
    let all_arrived = async {
        while !host.is_quiet() {
            look_again().await;
        }
    };
    soon("acknowledgement of everything", all_arrived).await;
    host.drop_packets("");
    let vanished = Instant::now();
    if in_flight {
        client.write_all(&[1; 1000]).await.unwrap();
        server.write_all(&[1; 1000]).await.unwrap();
    }
    let told = async |stream: &mut TcpStream| {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(NEVER, stream.read_to_end(&mut rest)).await;
        end.map_or(Duration::MAX, |end| {
            end.expect_err("a vanished host looked like a clean end");
            vanished.elapsed()
        })
    };
    let (caller, application) = tokio::join!(told(&mut client), told(&mut server));
    [caller, application]
}
