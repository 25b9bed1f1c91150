//! What a service manager hears of a server (`Type=notify`). What it hears of a sidecar is in `upgrade`.

use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::timeout;

use super::mesh::is_ready;
use super::support::{Process, free_port, local};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_server_says_when_it_is_ready_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let heard = async || {
        let mut news = [0; 128];
        let length = timeout(DEADLINE, manager.recv(&mut news)).await.expect("no news").unwrap();
        String::from_utf8_lossy(&news[..length]).into_owned()
    };
    let (http, grpc) = (local(free_port()), local(free_port()).to_string());
    let (at, path) = (http.to_string(), path.to_string_lossy().into_owned());
    let args = ["server", "--memory", "--dns-addr", "off", "--http-addr", &at, "--grpc-addr", &grpc];
    let mut server = Process::start("server", &args, &[("NOTIFY_SOCKET", &path)]);
    assert_eq!(heard().await, "READY=1");
    assert!(is_ready(http).await, "it said so");
    assert_eq!(server.stop().await, 0);
    assert_eq!(heard().await, "STOPPING=1");
}
