//! Every impostor against the gRPC port: no call of any is heard, and an honest member's is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic_health::server::HealthReporter;

use super::accept::Port;
use super::{Settings, limits, routes};
use crate::ca::{self, Ca};
use crate::catalog::{self, Catalog};
use crate::control::edges::Edges;
use crate::control::rates::Rates;
use crate::control::sessions::Sessions;
use crate::control::sync::Context;
use crate::model::{Action, NodeName};
use crate::pb;
use crate::pb::mesh_client::MeshClient;
use crate::store::{MemoryStore, Store};
use crate::tls::impostors::{CASES, Want, World, world};
use crate::tls::testing::Presented;
use crate::tls::{self, ALPN_H2, BanList, no_server_name};

/// The real port and services, under a certificate of the forge.
async fn serve(world: &World) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let settings = catalog::Settings {
        datacenter: "dc1".to_owned(),
        node: NodeName::new("server").unwrap(),
        node_address: "127.0.0.1".to_owned(),
        default_action: Action::Allow,
    };
    let catalog = Catalog::open(Arc::clone(&store), settings).await.unwrap();
    let settings = ca::Settings {
        datacenter: "dc1".to_owned(),
        server_id: "s1".to_owned(),
        leaf_ttl: Duration::from_secs(3600),
    };
    let ca = Ca::open(store, settings).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let (sessions, bans) = (Sessions::new(catalog.clone()), catalog.bans());
    let context =
        Context { catalog, ca, sessions, settings: Settings::default(), stop: stopped.clone() };
    let rates = Arc::new(Rates::new(tokio::time::Instant::now()));
    let told = (&rates, &crate::control::ledger::Ledger::default());
    let routes = routes(&Arc::new(context), &Edges::default(), &HealthReporter::new(), told).unwrap();
    let Presented { chain, key } = world.mesh.server();
    let (bundle, now) = (world.mesh.bundle(), SystemTime::now());
    let list = BanList::default();
    let config = tls::grpc_server_config(chain, &key.serialize_der(), &bundle, &list, now).unwrap();
    let (sink, tls) = watch::channel(config);
    let max_connections = limits::MAX_CONNECTIONS;
    let port = Port { tls, routes, stop: stopped, max_connections, bans, tell: None, refused: None };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        port.run(listener).await;
        drop(sink);
    });
    (address, stop)
}

async fn dial(
    address: std::net::SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_| {
        let connector = TlsConnector::from(Arc::clone(&config));
        async move {
            let tcp = TcpStream::connect(address).await?;
            connector.connect(no_server_name(), tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://control").connect_with_connector(connector).await
}

/// Whether the caller is taken for a service of the mesh: that it has no stream yet is said to those only.
async fn is_heard(address: std::net::SocketAddr, presented: &Presented) -> bool {
    let mut config = Arc::unwrap_or_clone(presented.careless_client());
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    let Ok(channel) = dial(address, Arc::new(config)).await else { return false };
    let report =
        pb::ReportRequest { node: "n1".to_owned(), instance: "db-1".to_owned(), ..Default::default() };
    let mut client = MeshClient::new(channel);
    let report = client.report(report);
    let report = tokio::time::timeout(Duration::from_secs(20), report).await.expect("an answer");
    report.is_err_and(|status| status.code() == tonic::Code::FailedPrecondition)
}

#[tokio::test]
async fn no_call_of_an_impostor_is_heard() {
    let world = world();
    let (address, stop) = serve(&world).await;
    for case in CASES {
        let heard = is_heard(address, &(case.make)(&world)).await;
        match case.dialling {
            Want::Refused(_) => assert!(!heard, "{} was heard", case.name),
            Want::PassesAs(_) => assert!(heard, "{} is no impostor here", case.name),
        }
    }
    assert!(is_heard(address, &world.mesh.sign(&world.mesh.params("db"))).await, "the honest one");
    stop.send_replace(true);
}
