//! Verbs of Weft's own, and those whose output is not Consul's.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::{Ran, weft};
use crate::http::{Api, PATIENCE};
use crate::pace::{look_again, pause, throughout};

async fn at(api: &Api, args: &[&str]) -> Ran {
    weft(&[("WEFT_HTTP_ADDR", &api.address.to_string())], args).await
}

#[tokio::test]
async fn outputs_by_table() {
    let api = Api::start().await;
    let port = api.address.port();
    for (args, code, out) in [
        (vec!["services", "register", "--name", "api", "--port", "9", "--tag", "v1", "--meta", "a=b"], 0, "Registered service: api\n".to_owned()),
        (vec!["services"], 0, "NAME  INSTANCES  PASSING  WARNING  CRITICAL  MESHED  TAGS\napi   1          1        0        0         0/1     v1\n".to_owned()),
        (vec!["members"], 0, format!("NODE  ADDRESS          STATUS  TYPE    BUILD  DC\nn1    127.0.0.1:{port}  alive   server  {}  dc1\n", env!("CARGO_PKG_VERSION"))),
        (vec!["maint", "--enable", "--service", "api"], 0, "Service maintenance is now enabled for \"api\"\n".to_owned()),
        (vec!["wait", "api", "--timeout", "50ms"], 6, String::new()),
        (vec!["maint", "--disable", "--service", "api"], 0, "Service maintenance is now disabled for \"api\"\n".to_owned()),
        (vec!["wait", "api", "--timeout", "20s"], 0, "ok api           1 passing instance\n".to_owned()),
        (vec!["wait", "api", "--passing", "2", "--timeout", "50ms"], 6, String::new()),
        (vec!["intention", "create", "--deny", "web", "api"], 0, "ok web -> api deny\n".to_owned()),
        (vec!["intention", "create", "web", "api"], 1, String::new()),
        (vec!["intention", "create", "--replace", "web", "api"], 0, "ok web -> api allow\n".to_owned()),
        (vec!["intention", "match", "api"], 0, "web => api (allow)\n".to_owned()),
        (vec!["intention", "get", "web", "none"], 5, String::new()),
        (vec!["intention", "delete", "web", "api"], 0, "ok web -> api deleted\n".to_owned()),
        (vec!["config", "read", "--kind", "service-defaults", "--name", "api"], 5, String::new()),
        (vec!["config", "read", "--kind", "bogus", "--name", "api"], 1, String::new()),
        (vec!["services", "deregister", "--id", "api"], 0, "Deregistered service: api\n".to_owned()),
    ] {
        let ran = at(&api, &args).await;
        assert_eq!((ran.code, ran.out), (code, out), "{args:?}: {}", ran.err);
    }
    let again = at(&api, &["wait", "api", "--timeout", "50ms"]).await;
    assert_eq!(
        again.err,
        "error[W0302]: `api` is not there after 50ms\n  from: 0 of 1 pass\n  try:  see why: weft instances api\n"
    );
    api.stop().await;
}

#[tokio::test]
async fn a_wait_ends_when_the_service_comes() {
    let api = Api::start().await;
    let address = api.address.to_string();
    let waiting = tokio::spawn(async move {
        weft(&[("WEFT_HTTP_ADDR", &address)], &["wait", "late", "--timeout", "20s"]).await
    });
    throughout(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "it did not wait");
    let begun = Instant::now();
    api.put("/v1/agent/service/register", r#"{"Name":"late","Port":1}"#).await;
    let ran = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(begun.elapsed() < Duration::from_secs(5));
    api.stop().await;
}

/// The server may come after the application, as in any compose file.
#[tokio::test]
async fn a_wait_outlives_a_server_that_is_not_there() {
    let ran = weft(&[("WEFT_HTTP_ADDR", "127.0.0.1:1")], &["wait", "api", "--timeout", "300ms"]).await;
    assert_eq!(ran.code, 6, "{}", ran.err);
    assert!(ran.err.contains("from: cannot reach the control plane"), "{}", ran.err);
}

#[tokio::test]
async fn a_reload_is_asked_for() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let api = Api::start_with(move |state| {
        state.operations.reload = Some(Arc::new(move || {
            let before = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Box::pin(async move { if before == 0 { Ok(()) } else { Err("web.hcl:1:1: no".to_owned()) } })
        }));
    })
    .await;
    let first = at(&api, &["reload"]).await;
    assert_eq!(
        (first.code, first.out.as_str()),
        (0, "Configuration reload triggered\n"),
        "{}",
        first.err
    );
    let second = at(&api, &["reload"]).await;
    assert_eq!(second.code, 1);
    assert!(second.err.contains("web.hcl:1:1: no"), "{}", second.err);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
    api.stop().await;
}

/// Lines arrive while the log goes on, and the end of the server is the end of the command.
#[tokio::test]
async fn a_log_is_followed() {
    let server = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..2)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string())
        .collect();
    let program = env!("CARGO_BIN_EXE_weft");
    let mut command = tokio::process::Command::new(program);
    command.args([
        "server",
        "--memory",
        "--node",
        "n1",
        "--http-addr",
        &ports[0],
        "--grpc-addr",
        &ports[1],
    ]);
    command.args(["--dns-addr", "off"]).current_dir(server.path()).kill_on_drop(true);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut server = command.spawn().unwrap();
    let env = [("WEFT_HTTP_ADDR", ports[0].as_str())];
    let ready = async {
        while weft(&env, &["info"]).await.code != 0 {
            look_again().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("the server does not start");
    let mut monitor = tokio::process::Command::new(program);
    monitor.args(["monitor", "--log-level", "info", "--log-json"]).env("WEFT_HTTP_ADDR", &ports[0]);
    let mut monitor = monitor.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    // A server without files has something to say about every reload, also to who came late.
    let pid = Pid::from_raw(i32::try_from(server.id().unwrap()).unwrap()).unwrap();
    let followed = async {
        loop {
            kill_process(pid, Signal::HUP).unwrap();
            tokio::select! {
                line = lines.next_line() => break line.unwrap(),
                () = pause(Duration::from_millis(50)) => {}
            }
        }
    };
    let line = tokio::time::timeout(PATIENCE, followed).await.expect("no line of the log comes");
    let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert!(line.to_string().contains("without configuration files"), "{line}");
    assert_eq!(weft(&env, &["leave"]).await.code, 0);
    assert!(tokio::time::timeout(PATIENCE, monitor.wait()).await.unwrap().unwrap().success());
    assert!(tokio::time::timeout(PATIENCE, server.wait()).await.unwrap().unwrap().success());
}
