//! Whoever holds a lease and dies leaves everything that showed it: the catalog, the names, and what each
//! sidecar knows. Nobody leaves because a server died.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use weft::pb;
use weft::pb::registry_client::RegistryClient;

use super::mesh::{Mesh, ONE_SECOND, Sidecar, Spec};
use super::registry::channel;
use super::support::until;
use super::traffic::App;
use crate::dns::question;
use crate::pace::{pause, throughout};

/// Of a tool: the shortest there is.
const TOOL_TTL: Duration = Duration::from_secs(5);
/// Of every sidecar.
const SIDECAR_TTL: Duration = Duration::from_secs(15);

/// The places where an instance of `db` shows.
struct Places {
    mesh: Mesh,
    names: SocketAddr,
    web: Sidecar,
}

/// How many instances of `db` show in the catalog, in DNS, and to the sidecar of `web`.
type Shown = (usize, usize, usize);

impl Places {
    /// With an instance that has a sidecar, `db-1`, and one that a tool registers.
    async fn start() -> (Self, Sidecar) {
        let (mesh, names) = Mesh::start_with_names().await;
        let app = App::start("db-1").await;
        let holder = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
        let web = mesh.sidecar(&Spec::new("web", "web-1", 1).upstream("db")).await;
        let places = Self { mesh, names, web };
        places.hold().await;
        until("both instances everywhere", async || places.shown().await == (2, 2, 2)).await;
        (places, holder)
    }

    /// Registers an instance that takes connections by itself, under a lease that nobody keeps; when
    /// this was.
    async fn hold(&self) -> Instant {
        let mut client = RegistryClient::new(channel(&self.mesh).await);
        let ttl_s = u32::try_from(TOOL_TTL.as_secs()).unwrap();
        let lease = client.grant_lease(pb::GrantLeaseRequest { ttl_s }).await.unwrap().into_inner().id;
        let instance = pb::Instance {
            name: "db".to_owned(),
            id: "db-2".to_owned(),
            address: "127.0.0.2".to_owned(),
            port: 5432,
            native: true,
            ..Default::default()
        };
        let request = pb::RegisterRequest { instance: Some(instance), checks: Vec::new(), lease };
        client.register(request).await.unwrap();
        Instant::now()
    }

    async fn shown(&self) -> Shown {
        let catalog = self.mesh.passing("db").await.len();
        let named = self.named().await;
        let endpoints = self.web.metric(r#"weft_endpoints{dst="db",state="healthy"}"#).await;
        (catalog, named, endpoints.unwrap_or_default() as usize)
    }

    /// SRV records, of which each instance has its own.
    async fn named(&self) -> usize {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.names).await.unwrap();
        let asked = question("db.service.consul.", RecordType::SRV, Some(1232)).to_vec().unwrap();
        socket.send(&asked).await.unwrap();
        let mut answer = [0; 2048];
        let length = timeout(ONE_SECOND, socket.recv(&mut answer)).await.expect("no answer").unwrap();
        Message::from_vec(&answer[..length]).unwrap().answers.len()
    }

    /// Waits until so many are left everywhere; how long after `from` each place was there.
    async fn left(&self, wanted: usize, from: Instant) -> [Duration; 3] {
        let mut took = [None; 3];
        until("the end everywhere", async || {
            let (catalog, named, endpoints) = self.shown().await;
            for (took, left) in took.iter_mut().zip([catalog, named, endpoints]) {
                if left <= wanted {
                    took.get_or_insert_with(|| from.elapsed());
                }
            }
            took.iter().all(Option::is_some)
        })
        .await;
        took.map(Option::unwrap)
    }
}

#[tokio::test]
async fn a_dead_holder_leaves_catalog_names_and_sidecars_within_its_ttl_and_a_second() {
    let (places, holder) = Places::start().await;
    let held = places.hold().await; // the same again, with a period that begins now
    let took = places.left(1, held).await;
    println!("a tool's instance left the catalog, DNS and the sidecar after {took:?}");
    let late = took.iter().max().unwrap();
    assert!(*late <= TOOL_TTL + ONE_SECOND && took[0] + ONE_SECOND > TOOL_TTL, "{took:?}");
    let died = Instant::now();
    holder.kill().await;
    let took = places.left(0, died).await;
    println!("a killed sidecar's instance left them after {took:?}");
    assert!(*took.iter().max().unwrap() <= SIDECAR_TTL + ONE_SECOND, "{took:?}");
}

#[tokio::test]
async fn a_server_that_was_killed_deregisters_nobody_when_it_returns() {
    let (mut places, _holder) = Places::start().await;
    places.hold().await;
    throughout(TOOL_TTL - ONE_SECOND).await; // most of the period is over
    assert_eq!(places.shown().await, (2, 2, 2));
    places.mesh.kill_server().await;
    places.mesh.start_server().await;
    let back = Instant::now();
    while back.elapsed() < TOOL_TTL - ONE_SECOND {
        assert_eq!(places.shown().await, (2, 2, 2), "{:?} after the return", back.elapsed());
        pause(Duration::from_millis(20)).await;
    }
    // The tool's lease, which nobody keeps, got one full period and no more; the sidecar is back.
    let took = places.left(1, back).await;
    assert!(*took.iter().max().unwrap() <= TOOL_TTL + ONE_SECOND, "{took:?}");
    assert_eq!(places.mesh.passing("db").await, ["db-1"]);
}
