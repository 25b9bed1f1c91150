//! Libraries of other languages, unchanged: `tests/clients` has what they do, and `.ci/run` the one in Rust.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::programs;

const STEPS: [&str; 8] = [
    "fetch_x509_context",
    "fetch_x509_bundles",
    "x509_source_follows_rotations",
    "fetch_jwt_svid",
    "the_library_checks_the_token",
    "validate_jwt_svid",
    "a_token_for_others_is_refused",
    "jwt_source",
];

/// grpcio sends the path of the socket as `:authority`, which ours would refuse without the filter.
#[tokio::test]
async fn the_library_for_python_follows_rotations_and_checks_tokens() {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(target).join("clients/spiffe-0.3.2/bin/python");
    if !programs::installed(&python, "tests/clients/install") {
        return;
    }
    let world = World::with(Duration::from_secs(10), &[]).await;
    let mut script = Command::new(python);
    script.arg(root.join("tests/clients/workload.py")).arg(world.socket());
    let ran = script.stdin(Stdio::null()).kill_on_drop(true).output();
    let ran = tokio::time::timeout(6 * DEADLINE, ran).await.expect("the script does not end").unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let wanted: String = STEPS.iter().map(|step| format!("{step} ok\n")).collect();
    assert!(ran.status.success(), "{out}\n{err}");
    assert_eq!(out, wanted, "{err}");
    world.stop().await;
}
