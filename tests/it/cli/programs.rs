//! `watch` and `lock`: programs that run when something changes, or while something is held.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Consul;
use crate::http::{Api, PATIENCE};
use crate::pace::look_again;

fn start(consul: &Consul, args: &[&str]) -> Child {
    let mut command = Command::from(consul.command());
    command.args(args).env("CONSUL_HTTP_ADDR", &consul.address).env("SHELL", "/bin/sh");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            look_again().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn terminate(child: &mut Child) -> i32 {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code().unwrap()
}

#[tokio::test]
async fn a_watch_runs_its_program_for_every_change_and_for_no_other_reason() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let seen = consul.dir.path().join("seen");
    api.put("/v1/kv/app/a", "1").await;
    let program = "echo $CONSUL_INDEX >> indexes; cat >> seen";
    let mut watch = start(&consul, &["watch", "-type=keyprefix", "-prefix=app/", program]);
    until("the first view", async || lines(&seen).len() == 1).await;
    // Neither of these changes the view.
    api.put("/v1/kv/other", "1").await;
    api.put("/v1/kv/app/a", "1").await;
    api.put("/v1/kv/app/b", "2").await;
    until("the second view", async || lines(&seen).len() == 2).await;
    let views: Vec<serde_json::Value> =
        lines(&seen).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((views[0].as_array().unwrap().len(), views[1].as_array().unwrap().len()), (1, 2));
    assert_eq!(views[1][1]["Value"], "Mg==");
    let indexes: Vec<u64> =
        lines(&consul.dir.path().join("indexes")).iter().map(|line| line.parse().unwrap()).collect();
    assert!(indexes[0] > 0 && indexes[1] > indexes[0], "{indexes:?}");
    assert_eq!(terminate(&mut watch).await, 0);
    api.stop().await;
}

#[tokio::test]
async fn a_watch_ends_with_the_failure_of_its_program() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let failed = consul.line("watch -type=nodes exit 3").await;
    assert_eq!(failed.code, 1);
    assert!(failed.err.starts_with("Error executing handler: exit status: 3"), "{}", failed.err);
    let missing = consul.line("watch -type=nodes -shell=false /nonexistent/program x").await;
    assert_eq!(missing.code, 1);
    assert!(missing.err.starts_with("Error starting handler: "), "{}", missing.err);
    let direct = consul.run(&["watch", "-type=nodes", "-shell=false", "sh", "-c", "exit 7"]).await;
    assert_eq!(direct.code, 1, "{}", direct.err);
    let lost = super::ran(
        consul.command(),
        &[("CONSUL_HTTP_ADDR", "127.0.0.1:1")],
        &["watch", "-type=nodes", "cat"],
    );
    let lost = lost.await;
    assert_eq!(lost.code, 1);
    assert!(lost.err.starts_with("Error querying Consul agent: "), "{}", lost.err);
    api.stop().await;
}

#[tokio::test]
async fn a_lock_excludes_and_passes_on() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let held = consul.dir.path().join("held");
    let script = "echo $CONSUL_LOCK_HELD > held; while [ ! -e go ]; do sleep 0.02; done; exit 3";
    let mut first = start(&consul, &["lock", "-child-exit-code", "app/leader", script]);
    until("the first holder", async || lines(&held).len() == 1).await; // the shell makes it before it writes
    assert_eq!(lines(&held), ["true"]);
    let late = consul.line("lock -timeout=200ms app/leader touch late").await;
    assert_eq!(late.code, 1);
    assert_eq!(late.err, "Shutdown triggered or timeout during lock acquisition\n");
    let weft = [("WEFT_HTTP_ADDR", consul.address.as_str())];
    let timed = super::weft(&weft, &["lock", "--timeout", "100ms", "app/leader", "true"]).await;
    assert_eq!(timed.code, 6, "{}", timed.err);
    let key = api.get("/v1/kv/app/leader/.lock").await.json();
    assert_eq!(key[0]["Flags"], 0x2ddc_cbc0_58a5_0c18_u64);
    assert!(key[0]["Session"].as_str().is_some_and(|session| session.len() == 36));
    let mut second = start(&consul, &["lock", "app/leader", "touch second"]);
    std::fs::write(consul.dir.path().join("go"), "").unwrap();
    let code = tokio::time::timeout(PATIENCE, first.wait()).await.unwrap().unwrap().code();
    assert_eq!(code, Some(2), "the program's failure shows");
    assert!(tokio::time::timeout(PATIENCE, second.wait()).await.unwrap().unwrap().success());
    assert!(consul.dir.path().join("second").exists() && !consul.dir.path().join("late").exists());
    // Nothing is left behind: neither the key nor a session.
    assert_eq!(api.get("/v1/kv/app/?recurse").await.status, 404);
    assert_eq!(api.get("/v1/session/list").await.body.trim(), "[]");
    api.stop().await;
}

#[tokio::test]
async fn a_lost_lock_ends_the_program() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let pid = consul.dir.path().join("pid");
    let mut lock = start(&consul, &["lock", "app/leader", "echo $$ > pid; exec sleep 60"]);
    until("the holder", async || !lines(&pid).is_empty()).await;
    let key = api.get("/v1/kv/app/leader/.lock").await.json();
    let session = key[0]["Session"].as_str().unwrap();
    api.put(&format!("/v1/session/destroy/{session}"), "").await;
    let code = tokio::time::timeout(PATIENCE, lock.wait()).await.unwrap().unwrap().code();
    assert_eq!(code, Some(1));
    let process = format!("/proc/{}", lines(&pid)[0]);
    until("the end of the program", async || !Path::new(&process).exists()).await;
    api.stop().await;
}

#[tokio::test]
async fn a_semaphore_has_as_many_slots_as_it_says() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let script = |name: &str| format!("touch {name}; while [ ! -e go ]; do sleep 0.02; done");
    let mut holders: Vec<Child> =
        ["a", "b"].map(|name| start(&consul, &["lock", "-n=2", "app/slots", &script(name)])).into();
    let exists = |name: &str| consul.dir.path().join(name).exists();
    until("both holders", async || exists("a") && exists("b")).await;
    let third = consul.line("lock -n=2 -timeout=300ms app/slots touch c").await;
    assert_eq!((third.code, exists("c")), (1, false), "{}", third.err);
    let other = consul.line("lock -n=3 -timeout=5s app/slots touch c").await;
    assert_eq!(other.code, 1);
    assert_eq!(other.err, "Lock acquisition failed: semaphore limit conflict (lock: 2, local: 3)\n");
    std::fs::write(consul.dir.path().join("go"), "").unwrap();
    for holder in &mut holders {
        assert!(tokio::time::timeout(PATIENCE, holder.wait()).await.unwrap().unwrap().success());
    }
    let fourth = consul.line("lock -n=2 -timeout=10s app/slots touch d").await;
    assert_eq!((fourth.code, exists("d")), (0, true), "{}", fourth.err);
    assert_eq!(api.get("/v1/kv/app/?recurse").await.status, 404);
    api.stop().await;
}
