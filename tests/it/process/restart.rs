//! What a server remembers over a restart, and what its sidecars do meanwhile.

use super::mesh::{Mesh, Sidecar, Spec, send};
use super::support::until;
use super::traffic::{App, ask};

#[tokio::test]
async fn a_server_remembers() {
    let (mut mesh, app) = (Mesh::start().await, App::start("db-1").await);
    mesh.done(&["intention", "allow", "web", "db"]).await;
    mesh.done(&["intention", "deny", "*", "billing"]).await;
    let body =
        r#"{"Name":"legacy","Port":9000,"Tags":["old"],"Check":{"TTL":"60s","Status":"passing"}}"#;
    let registered = send(mesh.http, "PUT", "/v1/agent/service/register", body).await.unwrap();
    assert_eq!(registered.status, 200, "{registered:?}");
    let unused = mesh.token("web").await;
    let db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let mut web = mesh.sidecar(&spec).await;
    ask(spec.door(), "before").await.unwrap();
    let before =
        (mesh.get("/v1/connect/ca/roots?pem=1").await.body, mesh.done(&["intention", "list"]).await);

    mesh.kill_server().await;
    ask(spec.door(), "without a server").await.unwrap();
    mesh.start_server().await;
    let after =
        (mesh.get("/v1/connect/ca/roots?pem=1").await.body, mesh.done(&["intention", "list"]).await);
    assert_eq!(before, after);
    assert_eq!(mesh.passing("legacy").await, ["legacy"]);
    until("both sidecars", async || {
        db.metric("weft_control_connected").await == Some(1.0)
            && web.metric("weft_control_connected").await == Some(1.0)
    })
    .await;
    ask(spec.door(), "after").await.unwrap();
    mesh.done(&["intention", "deny", "web", "db"]).await;
    until("the denial", async || ask(spec.door(), "denied").await.is_err()).await;
    for sidecar in [&db, &web] {
        let log = sidecar.process.log();
        let certificates = log.iter().filter(|line| line["message"] == "certificate installed").count();
        assert_eq!(certificates, 1, "nobody has to enrol again");
    }

    // The old process has to go first: an instance has one sidecar.
    assert_eq!(web.stop().await, 0);
    Sidecar::ready(mesh.launch_with(&spec, Some(&unused))).await;
    // In good order this time.
    mesh.stop_server().await;
    mesh.start_server().await;
    assert_eq!(mesh.get("/v1/connect/ca/roots?pem=1").await.body, before.0);
    assert_eq!(mesh.passing("db").await, ["db-1"]);
}
