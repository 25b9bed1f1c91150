//! The Workload API of a sidecar, by its socket: what applications get, and what others do not.

mod authority;
mod bundle;
mod clients;
mod hostile;
mod jwt;
mod x509;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use weft::app::server::Server;
use weft::app::sidecar::Sidecar;
use weft::pb::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;

use crate::mesh;

const DEADLINE: Duration = Duration::from_secs(20);

/// A server and the sidecar of `web`, with a Workload API.
struct World {
    server: Server,
    sidecar: Sidecar,
    dir: TempDir,
}

type Client = SpiffeWorkloadApiClient<Channel>;

impl World {
    async fn start() -> Self {
        Self::with(Duration::from_secs(3600), &[]).await
    }

    async fn with(leaf_ttl: Duration, uids: &[u32]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = mesh::server_with_leaves_of(leaf_ttl).await;
        let sidecar = mesh::sidecar_with_workload(&server, "web", &socket(&dir), uids).await;
        Self { server, sidecar, dir }
    }

    fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    async fn client(&self) -> Client {
        client(&self.socket()).await
    }

    async fn stop(self) {
        self.sidecar.finish().await;
        self.server.stop().await;
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("workload.sock")
}

async fn client(socket: &Path) -> Client {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://workload");
    SpiffeWorkloadApiClient::new(endpoint.connect_with_connector(connect).await.unwrap())
}

/// A request with the header that every call needs.
fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// The next message of a stream.
async fn next<T>(stream: &mut Streaming<T>) -> Result<T, tonic::Status> {
    let message = tokio::time::timeout(DEADLINE, stream.message()).await.expect("no message in time")?;
    Ok(message.expect("the stream ended without a status"))
}
