//! A server over a file, tokens, two sidecars from files and an intention: bytes pass, and every
//! process says how it is.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::mesh::{Mesh, Spec, get, metric};
use super::support::{local, until};
use super::traffic::{App, Conversation, ask};

#[tokio::test]
async fn bytes_pass_and_every_process_tells() {
    let (mut mesh, app) = (Mesh::start().await, App::start("db-1").await);
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let spec = Spec::new("db", "db-1", app.port());
    let inbound = spec.inbound_port;
    let mut db = mesh.sidecar(&spec).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let mut web = mesh.sidecar(&spec).await;

    let mut talk = Conversation::open(spec.door()).await.unwrap();
    assert_eq!(talk.say("hello").await.unwrap(), "db-1 hello");
    assert_eq!(talk.say("again").await.unwrap(), "db-1 again");
    talk.finish().await.unwrap();

    for address in [mesh.http, db.admin, web.admin] {
        for (path, body) in [("live", "alive"), ("ready", "ready"), ("startup", "started")] {
            let answer = get(address, &format!("/health/{path}")).await;
            assert_eq!((answer.status, answer.body), (200, format!("{{\"status\":\"{body}\"}}")));
        }
        let metrics = get(address, "/metrics").await.body;
        assert!(metrics.contains("weft_build_info{") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(metric(address, "weft_process_resident_memory_bytes").await.unwrap() > 1e6);
    }
    let ended = |direction| {
        format!(
            r#"weft_connections_closed_total{{direction="{direction}",src="web",dst="db",reason="ok"}}"#
        )
    };
    for (sidecar, direction) in [(&web, "outbound"), (&db, "inbound")] {
        until("the counter", async || sidecar.metric(&ended(direction)).await == Some(1.0)).await;
    }
    assert_eq!(web.metric("weft_control_connected").await, Some(1.0));

    let line = web.process.said("connection").await;
    let roots = mesh.get("/v1/connect/ca/roots").await.json();
    let id = |service| {
        let domain = roots["TrustDomain"].as_str().unwrap();
        format!("spiffe://{domain}/ns/default/dc/dc1/svc/{service}")
    };
    assert_eq!(
        (line["src_id"].as_str(), line["dst_id"].as_str()),
        (Some(&*id("web")), Some(&*id("db")))
    );
    assert_eq!((line["bytes_sent"].as_u64(), line["bytes_received"].as_u64()), (Some(12), Some(22)));
    assert_eq!((line["attempts"].as_u64(), line["reason"].as_str()), (Some(1), Some("ok")));
    assert!(line["duration_ms"].as_f64().unwrap() >= line["connect_ms"].as_f64().unwrap());
    assert!(line["endpoint"].as_str().unwrap().contains("db-1"), "{line}");
    let line = db.process.said("connection").await;
    assert_eq!(
        (line["direction"].as_str(), line["src_id"].as_str()),
        (Some("inbound"), Some(&*id("web")))
    );

    // A check of the port says nothing and is not worth a word; a stranger is.
    drop(TcpStream::connect(local(inbound)).await.unwrap());
    let mut stranger = TcpStream::connect(local(inbound)).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let own = stranger.local_addr().unwrap().to_string();
    db.process.logged("the stranger", |line| line["peer"] == *own).await;
    let log = db.process.log();
    let refused: Vec<_> = log.iter().filter(|line| line["message"] == "refused a peer").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");

    let table = mesh.done(&["proxies"]).await;
    assert!(table.contains("web-1") && table.contains("db-1"), "{table}");
    assert_eq!((web.stop().await, db.stop().await), (0, 0));
    assert!(mesh.passing("db").await.is_empty() && mesh.passing("web").await.is_empty());
    assert_eq!(mesh.server().stop().await, 0);
}

/// Ports that no flag names: the sidecars' range and the next free admin port.
#[tokio::test]
async fn default_ports_are_found_and_announced() {
    let (mesh, app) = (Mesh::dev("1h").await, App::start("a").await);
    let server = mesh.grpc.to_string();
    let files = ["a", "b"]
        .map(|id| (id, mesh.file(&format!("{id}.hcl"), &Spec::new("a", id, app.port()).hcl())));
    let mut seen = Vec::new();
    for (id, file) in &files {
        let file = file.to_string_lossy();
        let args = ["proxy", "--config", &file, "--server", &server, "--log-format", "json"];
        let mut process = super::support::Process::start(id, &args, &[]);
        let line = process.said("sidecar listens").await;
        let port =
            |key: &str| line[key].as_str().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        assert!((21_000..=21_255).contains(&port("inbound")) && port("admin") >= 19_000, "{line}");
        seen.push((process, port("inbound"), port("admin")));
        until("readiness", async || super::mesh::is_ready(local(seen.last().unwrap().2)).await).await;
    }
    assert!(seen[0].1 != seen[1].1 && seen[0].2 != seen[1].2);
    for (process, ..) in &mut seen {
        assert_eq!(process.stop().await, 0);
    }
    // Nobody serves it any more, and the answer says so.
    assert!(ask(local(seen[0].1), "x").await.is_err());
}
