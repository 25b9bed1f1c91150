//! Two sidecars as processes, with an application of the test's own behind them, over either wire.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use weft::agent::{self, Agent};
use weft::model::{Definition, InstanceId, NodeName};

use super::mesh::{Mesh, Sidecar, Spec};
use super::support::{local, until, within};
use crate::fidelity::foreign;
use crate::fidelity::rig::{Side, Wire};
use crate::plane::{self, name};

/// Small, so that a stalled connection holds little in the test's own sockets.
const SOCKET_BYTES: u32 = 64 * 1024;

/// See the module. In Connect mode a foreign gateway stands between the two.
pub(super) struct Pair {
    pub(super) web: Sidecar,
    pub(super) db: Sidecar,
    pub(super) door: SocketAddr,
    app: TcpListener,
    _gate: Option<Agent>,
    _mesh: Mesh,
}

impl Pair {
    pub(super) async fn start(wire: Wire) -> Self {
        let mesh = Mesh::dev("1h").await;
        let app = listener();
        let db = Spec::new("db", "db-1", app.local_addr().unwrap().port());
        let inbound = local(db.inbound_port);
        let db = mesh.sidecar(&db).await;
        let (destination, gate) = match wire {
            Wire::Lanes => ("db", None),
            Wire::Connect => ("gate", Some(gateway(&mesh, inbound).await)),
        };
        let spec = Spec::new("web", "web-1", 1).upstream(destination);
        let web = mesh.sidecar(&spec).await;
        let sample = format!(r#"weft_endpoints{{dst="{destination}",state="healthy"}}"#);
        until("the endpoint", async || web.metric(&sample).await == Some(1.0)).await;
        Self { web, db, door: spec.door(), app, _gate: gate, _mesh: mesh }
    }

    pub(super) fn sidecars(&self) -> [(&'static str, &Sidecar); 2] {
        [("web", &self.web), ("db", &self.db)]
    }

    /// A connection that has carried a byte each way: the client's end and the server's.
    pub(super) async fn connected(&self) -> (TcpStream, TcpStream) {
        let socket = small_socket();
        let mut client = within("connection", socket.connect(self.door)).await.unwrap();
        client.set_nodelay(true).unwrap();
        client.write_all(b"x").await.unwrap();
        let (mut server, _) = within("connection", self.app.accept()).await.unwrap();
        server.set_nodelay(true).unwrap();
        within("byte", server.read_exact(&mut [0])).await.unwrap();
        server.write_all(b"y").await.unwrap();
        within("byte", client.read_exact(&mut [0])).await.unwrap();
        (client, server)
    }

    /// As [`Self::connected`], with the ends in the order (who sends, who reads).
    pub(super) async fn connected_from(&self, sender: Side) -> (TcpStream, TcpStream) {
        let (client, server) = self.connected().await;
        match sender {
            Side::Client => (client, server),
            Side::Server => (server, client),
        }
    }
}

fn small_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SOCKET_BYTES).unwrap();
    socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
    socket
}

fn listener() -> TcpListener {
    let socket = small_socket();
    socket.bind(local(0)).unwrap();
    socket.listen(1024).unwrap()
}

/// A foreign proxy that is registered as `gate` and leads on to `db`.
async fn gateway(mesh: &Mesh, db: SocketAddr) -> Agent {
    let node = NodeName::new("foreign").unwrap();
    let mut definition = Definition::new(name("gate"), 80).unwrap();
    definition.id = InstanceId::new("gate-1").unwrap();
    definition.sidecar = Some(weft::model::Sidecar::default());
    // Its port is known only when there is an identity to listen with.
    let register = |port| {
        let mut registrations = definition.expand(&node, port).unwrap();
        for registration in &mut registrations {
            registration.checks.clear();
        }
        agent::Settings {
            servers: vec![mesh.grpc.to_string()],
            token: None,
            service: name("gate"),
            registrations,
            upstreams: vec![name("db")],
            serves_workload: false,
        }
    };
    let first = Agent::start(register(1));
    let identity = within("identity", identity(&first)).await;
    drop(first);
    let address = foreign::bridge(plane::local(), &identity, &identity, "db", db);
    let agent = Agent::start(register(address.port()));
    until("the gateway's registration", async || agent.handle.status.borrow().registered).await;
    agent
}

async fn identity(agent: &Agent) -> std::sync::Arc<weft::tls::Identity> {
    let mut identity = agent.handle.identity.clone();
    let issued = identity.wait_for(Option::is_some).await.unwrap().clone();
    issued.unwrap()
}

/// How long small exchanges on one connection take: the median and the 99th percentile.
pub(super) async fn exchange_times(ends: &mut (TcpStream, TcpStream), rounds: usize) -> [Duration; 2] {
    let (client, server) = ends;
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = std::time::Instant::now();
        client.write_all(&[1; 100]).await.unwrap();
        within("question", server.read_exact(&mut [0; 100])).await.unwrap();
        server.write_all(&[2; 100]).await.unwrap();
        within("answer", client.read_exact(&mut [0; 100])).await.unwrap();
        took.push(started.elapsed());
    }
    took.sort_unstable();
    [took[rounds / 2], took[rounds * 99 / 100]]
}
