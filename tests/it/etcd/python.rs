//! A client in Python (`aetcd`), unchanged. `.ci/run` installs it and says where.

use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::{mesh, programs};

/// Names a Python that has `aetcd`.
const VARIABLE: &str = "WEFT_ETCD_PYTHON";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/etcd/registry.py");

#[tokio::test]
async fn a_python_client_registers_discovers_and_watches() {
    let Some(python) = std::env::var_os(VARIABLE) else {
        programs::left_out(&format!("{VARIABLE} names no Python with aetcd"));
        return;
    };
    let server = mesh::server_with_etcd().await;
    let address = server.bound().etcd.unwrap();
    let run = Command::new(python)
        .args([SCRIPT, &address.ip().to_string(), &address.port().to_string()])
        .arg(server.bound().http.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(2 * DEADLINE, run).await.expect("the script does not end").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with("all done\n"), "{}", text(&output.stdout));
    server.stop().await;
}
