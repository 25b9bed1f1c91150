//! `weft run`: the application starts after its sidecar is ready and ends before it goes.
//!
//! What serves is in this program; what `weft run` starts is a small shell script beside it.

use std::path::Path;

use rustix::process::Signal;

use super::mesh::{Mesh, Spec};
use super::support::{Process, free_port, local, until};
use super::traffic::{App, Conversation, ask};

/// `weft run` for the service `db`.
fn run(mesh: &Mesh, token: &Path, port: u16, flags: &[&str], command: &[&str]) -> Process {
    let (server, token, port) = (mesh.grpc.to_string(), token.to_string_lossy(), port.to_string());
    let (admin, inbound) = (local(free_port()).to_string(), free_port().to_string());
    let mut args = vec!["run", "--name", "db", "--port", &port, "--server", &server];
    args.extend(["--token-file", &token, "--node", "edge", "--admin-addr", &admin]);
    args.extend(["--inbound-port", &inbound, "--drain-delay", "300ms", "--log-format", "json"]);
    args.extend(flags);
    args.push("--");
    args.extend(command);
    Process::start("run", &args, &[])
}

#[tokio::test]
async fn the_application_starts_second_and_ends_first() {
    let mut mesh = Mesh::start().await;
    let (app, cache) = (App::start("db-1").await, App::start("cache-1").await);
    mesh.done(&["intention", "allow", "*", "*"]).await;
    let _cache = mesh.sidecar(&Spec::new("cache", "cache-1", cache.port())).await;
    let client = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&client).await;
    let token = mesh.token("db").await;
    mesh.kill_server().await;

    let door = free_port();
    let upstream = format!("cache:{door}");
    // Asks its upstream when it starts, and again when it is told to end.
    let script = r#"
        ask() { exec 3<>/dev/tcp/127.0.0.1/$0; echo "$1" >&3; read -r line <&3; exec 3>&-; echo "$line"; }
        trap 'ask farewell; exit 7' TERM
        ask hello
        while :; do sleep 0.05; done"#;
    let command = ["bash", "-c", script, &door.to_string()];
    let mut run =
        run(&mesh, &token, app.port(), &["--upstream", &upstream, "--log-level", "info"], &command);
    run.said("sidecar listens").await;
    // It is there and waits, longer than an application that were started would need.
    run.logged("trouble", |line| line["level"] == "WARN").await;
    assert_eq!(run.stdout(), "", "the application runs without its sidecar");

    mesh.start_server().await;
    until("the application", async || run.stdout() == "cache-1 hello").await;
    assert_eq!(mesh.passing("db").await, ["db"]);
    until("the way to it", async || ask(client.door(), "x").await.is_ok()).await;
    let mut talk = Conversation::open(client.door()).await.unwrap();
    talk.say("hello").await.unwrap();

    run.signal(Signal::TERM);
    until("the withdrawal", async || mesh.passing("db").await.is_empty()).await;
    until("the closed port", async || ask(client.door(), "new").await.is_err()).await;
    assert_eq!(talk.say("still there").await.unwrap(), "db-1 still there");
    assert_eq!(run.stdout(), "cache-1 hello", "told to end before its callers had finished");
    talk.finish().await.unwrap();
    assert_eq!(run.ended().await, 7, "the exit code is the application's");
    assert_eq!(run.stdout(), "cache-1 hello\ncache-1 farewell");
    assert_eq!(mesh.cli(&["instances", "db"]).await.code, 5, "it is still registered");
}

#[tokio::test]
async fn exit_codes_are_passed_on() {
    let (mesh, app) = (Mesh::start().await, App::start("db-1").await);
    for (command, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 137)] {
        let token = mesh.token("db").await;
        let mut run = run(&mesh, &token, app.port(), &[], &["sh", "-c", command]);
        assert_eq!(run.ended().await, code, "{command}: {}", run.stderr());
        assert_eq!(mesh.cli(&["instances", "db"]).await.code, 5, "{command}: it is still registered");
    }
}

#[tokio::test]
async fn an_application_that_cannot_start_leaves_nothing_behind() {
    let (mesh, app) = (Mesh::start().await, App::start("db-1").await);
    let token = mesh.token("db").await;
    let mut run = run(&mesh, &token, app.port(), &[], &["/no/such/program"]);
    assert_eq!(run.ended().await, 1);
    assert!(run.stderr().contains("cannot start /no/such/program"), "{}", run.stderr());
    assert_eq!(mesh.cli(&["instances", "db"]).await.code, 5, "it is still registered");
}

/// The token is the sidecar's, and nobody else's business.
#[tokio::test]
async fn the_application_does_not_inherit_the_token() {
    let mesh = Mesh::start().await;
    let token = mesh.done(&["token", "create", "--service", "db"]).await;
    let (server, admin) = (mesh.grpc.to_string(), local(free_port()).to_string());
    let mut args = vec!["run", "--name", "db", "--port", "1", "--server", &server];
    args.extend(["--admin-addr", &admin, "--", "sh", "-c", "echo ${WEFT_TOKEN-none}"]);
    let mut run = Process::start("run", &args, &[("WEFT_TOKEN", token.trim())]);
    assert_eq!((run.ended().await, run.stdout().as_str()), (0, "none"), "{}", run.stderr());
}
