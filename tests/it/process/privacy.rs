//! What is in the memory of a server stays there when it crashes.

use super::mesh::is_ready;
use super::support::{Process, free_port, local, until};

/// Whether a server leaves a core file behind, in the environment that `before` makes.
async fn leaves_a_core(before: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (http, grpc) = (local(free_port()), local(free_port()).to_string());
    let before = format!("cd '{}' && ulimit -c unlimited && {before}", dir.path().display());
    let at = http.to_string();
    let args = ["server", "--memory", "--dns-addr", "off", "--http-addr", &at, "--grpc-addr", &grpc];
    let server = Process::start_after("server", &before, &args);
    until("the server's readiness", async || is_ready(http).await).await;
    server.crash().await
}

#[tokio::test]
async fn a_crash_writes_no_key_to_a_core_file() {
    assert!(!leaves_a_core("unset WEFT_DEBUGGABLE").await);
    assert!(!leaves_a_core("export WEFT_DEBUGGABLE=1").await, "it is `true` or nothing");
    if !leaves_a_core("export WEFT_DEBUGGABLE=true").await {
        println!("LEFT OUT: core files are off on this machine, so the two above prove nothing");
    }
}
