//! Client libraries of other languages, unchanged, against our server: `tests/clients` has what they do.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::world::World;
use crate::programs;

/// Installing takes its time, once.
const INSTALL_LIMIT: Duration = Duration::from_secs(900);
const FLOW_LIMIT: Duration = Duration::from_secs(120);

/// Steps that do not work yet, and what is missing for them. One that works fails the test.
const GAPS: &[(&str, &str)] = &[];

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

async fn output(mut command: Command, limit: Duration) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let name = format!("{command:?}");
    let output = tokio::time::timeout(limit, command.output()).await;
    output.unwrap_or_else(|_| panic!("{name} did not end")).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Where the libraries are. Installs what is missing where nothing may be left out.
async fn installed() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("clients");
    if !programs::insists() && !programs::installed(&place, "tests/clients/install") {
        return None;
    }
    let found = output(Command::new(scripts().join("install")), INSTALL_LIMIT).await;
    assert!(found.status.success(), "tests/clients/install: {}", String::from_utf8_lossy(&found.stderr));
    Some(PathBuf::from(String::from_utf8(found.stdout).unwrap().trim()))
}

/// Runs a flow, and compares its steps with the table.
async fn flow(command: Command, script: &str, steps: usize) {
    let world = World::start().await;
    world.open();
    let mut command = command;
    command.arg(scripts().join(script));
    command.args([world.http.ip().to_string(), world.http.port().to_string(), world.app.to_string()]);
    let done = output(command, FLOW_LIMIT).await;
    let (text, faults) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{script}: {text}\n{faults}");
    assert_eq!(text.lines().count(), steps, "{script}: {text}\n{faults}");
    for line in text.lines() {
        let (step, result) = line.split_once(' ').unwrap();
        let gap = GAPS.iter().find(|(name, _)| *name == step);
        match gap {
            None => assert_eq!(result, "ok", "{script}: {step}\n{text}"),
            Some((_, missing)) => {
                assert_ne!(result, "ok", "{script}: {step} works now ({missing}): take it out of GAPS");
            }
        }
    }
}

#[tokio::test]
async fn py_consul_works_unchanged() {
    let Some(place) = installed().await else { return };
    flow(Command::new(place.join("py-consul-1.8.0/bin/python")), "flow.py", 14).await;
}

#[tokio::test]
async fn python_consul_works_unchanged() {
    let Some(place) = installed().await else { return };
    flow(Command::new(place.join("python-consul-1.1.0/bin/python")), "flow.py", 14).await;
}

#[tokio::test]
async fn npm_consul_works_unchanged() {
    let Some(place) = installed().await else { return };
    let mut node = Command::new("node");
    node.env("NODE_PATH", place.join("npm-consul-2.0.1/node_modules"));
    flow(node, "flow.js", 14).await;
}
