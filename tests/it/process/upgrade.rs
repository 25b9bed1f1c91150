//! Upgrade in place: a sidecar is replaced under load, and nobody notices.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::mesh::{Mesh, Sidecar, Spec, get, is_ready, send};
use super::support::{Process, free_port, local, slow, until, within};
use super::traffic::{App, Conversation, Load, Seen, ask};
use crate::pace::look_again;

/// With an upgrade socket of its own.
fn upgradable(mesh: &Mesh, spec: Spec) -> Spec {
    let directory = mesh.dir().join("upgrade");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).unwrap();
    let path = directory.join(spec.id);
    spec.flags(&["--upgrade-socket", path.to_string_lossy().into_owned().leak()])
}

/// A whole upgrade: the successor serves, the old process has ended in good order.
async fn upgrade(mesh: &Mesh, spec: &Spec, old: &mut Sidecar) {
    let new = Sidecar::ready(mesh.launch_with(spec, None)).await;
    let mut old = std::mem::replace(old, new);
    assert_eq!(old.process.ended().await, 0);
    for message in ["the successor has taken over", "drained"] {
        let said = old.process.log().iter().any(|line| line["message"] == message);
        assert!(said, "{} has not said {message:?}", spec.id);
    }
}

/// What the catalog says of a service, all the time.
struct Witness {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<usize>,
}

impl Witness {
    /// From now on nothing may change: neither health nor any index.
    async fn start(mesh: &Mesh, service: &str) -> Self {
        let (http, path) = (mesh.http, format!("/v1/health/service/{service}?passing=1"));
        let first = mesh.get(&path).await.json();
        assert_eq!(first.as_array().unwrap().len(), 1, "{first}");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watching = tokio::spawn(async move {
            let mut looks = 0;
            // Once more after the stop: a change that came and went has moved an index.
            let mut last = false;
            while !last {
                last = stopped.load(Ordering::Relaxed);
                assert_eq!(get(http, &path).await.json(), first, "after {looks} looks");
                looks += 1;
                look_again().await;
            }
            looks
        });
        Self { stop, watching }
    }

    async fn looks(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.await.expect("the catalog has changed")
    }
}

/// The probes' view: ready at every moment.
async fn is_always_ready(admin: std::net::SocketAddr, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        let answer = send(admin, "GET", "/health/ready", "").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        count.fetch_add(1, Ordering::Relaxed);
        look_again().await;
    }
}

/// Both sides of a loaded connection are upgraded again and again.
async fn rounds(upgrades: usize, per_second: u32) -> Seen {
    let (mesh, app) = (Mesh::dev("1h").await, App::start("db-1").await);
    let db_spec = upgradable(&mesh, Spec::new("db", "db-1", app.port()));
    let web_spec = upgradable(&mesh, Spec::new("web", "web-1", 1).upstream("db"));
    let mut db = mesh.sidecar(&db_spec).await;
    let mut web = mesh.sidecar(&web_spec).await;
    let load = Load::start(web_spec.door(), per_second);
    load.answers(20).await;
    let witnesses = [Witness::start(&mesh, "db").await, Witness::start(&mesh, "web").await];
    let (stop, probes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let probing = tokio::spawn(is_always_ready(web.admin, Arc::clone(&stop), Arc::clone(&probes)));
    let (started, before) = (Instant::now(), load.seen().total());
    for round in 0..upgrades {
        match round % 2 {
            0 => upgrade(&mesh, &web_spec, &mut web).await,
            _ => upgrade(&mesh, &db_spec, &mut db).await,
        }
        load.answers(10).await;
    }
    let rate = (load.seen().total() - before) as f64 / started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    within("the last probe", probing).await.expect("the sidecar was not ready all the time");
    let mut looks = 0;
    for witness in witnesses {
        looks += witness.looks().await;
    }
    let seen = load.finish().await;
    println!(
        "{upgrades} upgrades in {:.1} s at {rate:.0} connections/s: {} answered, {} failed; {looks} looks at \
         the catalog and {} probes, all as before",
        started.elapsed().as_secs_f64(),
        seen.total(),
        seen.failures.len(),
        probes.load(Ordering::Relaxed),
    );
    for mut sidecar in [web, db] {
        assert_eq!(sidecar.stop().await, 0);
    }
    assert!(mesh.passing("db").await.is_empty(), "the last of them deregisters the instance");
    assert!(!mesh.dir().join("upgrade/web-1").exists(), "nobody listens there any more");
    seen
}

#[tokio::test]
async fn a_few_upgrades_under_load() {
    let seen = rounds(4, 100).await;
    assert!(seen.failures.is_empty(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_upgrades_under_load() {
    if slow("50 upgrades in place at 500 connections/s") {
        let seen = rounds(50, 600).await; // of which the machine makes some 500
        assert!(seen.failures.is_empty(), "{seen:?}");
    }
}

/// Streams from before the upgrade finish where they began, and policy still rules them.
#[tokio::test]
async fn old_streams_stay_with_the_old_process() {
    let (mesh, app) = (Mesh::start().await, App::start("db-1").await);
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let db_spec = upgradable(&mesh, Spec::new("db", "db-1", app.port()));
    let web_spec = upgradable(&mesh, Spec::new("web", "web-1", 1).upstream("db"));
    let mut db_old = mesh.sidecar(&db_spec).await;
    let mut web_old = mesh.sidecar(&web_spec).await;
    let door = web_spec.door();
    let mut talks = Vec::new();
    for _ in 0..2 {
        talks.push(Conversation::open(door).await.unwrap());
    }
    for talk in &mut talks {
        talk.say("before").await.unwrap();
    }
    // No token: the certificate is handed over.
    let mut db_new = Sidecar::ready(mesh.launch_with(&db_spec, None)).await;
    let mut web_new = Sidecar::ready(mesh.launch_with(&web_spec, None)).await;
    web_old.process.said("the successor has taken over").await;
    db_old.process.said("the successor has taken over").await;
    for talk in &mut talks {
        assert_eq!(talk.say("after").await.unwrap(), "db-1 after");
    }
    assert_eq!(ask(door, "new").await.unwrap(), "db-1 new");
    until("the line", async || web_new.process.connections().len() == 1).await;
    assert!(web_old.process.connections().is_empty());
    talks.pop().unwrap().finish().await.unwrap();
    assert!(web_old.process.is_running() && db_old.process.is_running(), "one stream is open yet");

    let cut = Instant::now();
    mesh.done(&["intention", "deny", "web", "db"]).await;
    assert!(talks.pop().unwrap().cut().await.is_err(), "a cut is no clean end");
    println!("a stream of the old process was cut {:?} after the denial began", cut.elapsed());
    for old in [&mut web_old, &mut db_old] {
        assert_eq!(old.process.ended().await, 0);
    }
    let line = db_old.process.connections().pop().unwrap();
    assert_eq!(line["reason"], "denied", "{line}");
    assert!(is_ready(web_new.admin).await && is_ready(db_new.admin).await);
    assert_eq!(mesh.passing("db").await, ["db-1"], "the old process has taken nothing with it");
    for new in [&mut web_new, &mut db_new] {
        assert_eq!(new.stop().await, 0);
    }
    let secrets = [&web_old, &web_new].map(|one| one.process.stderr()).concat();
    assert!(!secrets.contains("\"key\"") && !secrets.contains("PRIVATE"), "{secrets}");
}

/// Whatever a successor dies of, the old one serves on and a better one succeeds.
#[tokio::test]
async fn a_successor_that_fails_changes_nothing() {
    let (mesh, app) = (Mesh::dev("1h").await, App::start("db-1").await);
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db").flags(&["--start-timeout", "2s"]);
    let spec = upgradable(&mesh, spec);
    let mut web = mesh.sidecar(&spec).await;
    let load = Load::start(spec.door(), 100);
    load.answers(10).await;
    let witness = Witness::start(&mesh, "web").await;

    // Another port for the control plane: never ready.
    let socket = spec.flags[3];
    let path = mesh.dir().join("web-1.hcl");
    let config = path.to_str().unwrap();
    let admin = local(free_port()).to_string();
    let args = |server: &'static str, limit: &'static str, node: &'static str| {
        let mut args = vec!["proxy", "--config", config, "--upgrade-socket", socket, "--server", server];
        args.extend(["--start-timeout", limit, "--node", node, "--log-format", "json"]);
        args.extend(["--admin-addr", &admin]);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let start = |args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Process::start("successor", &args, &[])
    };
    let failures = |web: &Sidecar| {
        let log = web.process.log();
        log.iter()
            .filter(|line| line["message"] == "the upgrade failed; this process goes on serving")
            .count()
    };

    let mut impatient = start(args("127.0.0.1:1", "200ms", "edge"));
    assert_ne!(impatient.ended().await, 0);
    until("the first failure", async || failures(&web) == 1).await;

    let mut killed = start(args("127.0.0.1:1", "60s", "edge"));
    killed.said("taking over from the running sidecar").await;
    killed.kill().await;
    until("the second failure", async || failures(&web) == 2).await;

    let mut slow = start(args("127.0.0.1:1", "60s", "edge"));
    assert_ne!(slow.ended().await, 0, "the old one's patience ends after 2 s");
    assert_eq!(failures(&web), 3);

    let mut stranger = start(args("127.0.0.1:1", "60s", "elsewhere"));
    assert_ne!(stranger.ended().await, 0);
    assert!(stranger.stderr().contains("instance web-1 of web on node edge"), "{}", stranger.stderr());
    until("the fourth failure", async || failures(&web) == 4).await;

    let broken = mesh.file("broken.hcl", "service { name = ");
    let mut args = args("127.0.0.1:1", "60s", "edge");
    args[2] = broken.to_str().unwrap().to_owned();
    assert_ne!(start(args).ended().await, 0);
    assert_eq!(failures(&web), 4, "it never came so far");

    load.answers(20).await;
    upgrade(&mesh, &spec, &mut web).await;
    load.answers(20).await;
    println!("{} looks at the catalog, all as before", witness.looks().await);
    let seen = load.finish().await;
    assert!(seen.failures.is_empty(), "{seen:?}");
}

/// A process that is not ours to wait for; killed when a test fails.
struct Stray(Pid);

impl Drop for Stray {
    fn drop(&mut self) {
        let _gone = kill_process(self.0, Signal::KILL);
    }
}

/// SIGHUP starts the successor, and the service manager hears who it is.
#[tokio::test]
async fn the_service_manager_follows() {
    let mesh = Mesh::dev("1h").await;
    let spec = upgradable(&mesh, Spec::new("web", "web-1", 1));
    let path = mesh.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let hear = async || {
        let mut text = [0; 256];
        let mut length = None;
        until("news for the service manager", async || {
            length = manager.recv(&mut text).ok();
            length.is_some()
        })
        .await;
        String::from_utf8(text[..length.unwrap()].to_vec()).unwrap()
    };
    let mut web = mesh.launch_in(&spec, None, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(hear().await, "READY=1");
    web.signal(Signal::HUP);
    let news = hear().await;
    let pid = news.strip_prefix("MAINPID=").unwrap_or_else(|| panic!("{news}"));
    let successor = Stray(Pid::from_raw(pid.parse().unwrap()).unwrap());
    assert_eq!(hear().await, "READY=1", "the successor says it");
    until("the end of the old process", async || !web.is_running()).await;
    assert!(is_ready(local(spec.admin_port)).await);
    kill_process(successor.0, Signal::TERM).unwrap();
    assert_eq!(hear().await, "STOPPING=1");
    // It has inherited the output, and closes it last.
    assert_eq!(web.ended().await, 0);
}

/// Sockets that a service manager holds: given by name, and checked.
#[tokio::test]
async fn sockets_are_given_by_a_service_manager() {
    let (mesh, app) = (Mesh::dev("1h").await, App::start("db-1").await);
    let db = Spec::new("db", "db-1", app.port());
    let _db = mesh.sidecar(&db).await;
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let config = mesh.file("web.hcl", &spec.hcl());
    let listen = |port| std::net::TcpListener::bind(local(port)).unwrap();
    let start = |names: &str, sockets: [&std::net::TcpListener; 2]| {
        let [inbound, upstream] =
            sockets.map(|one| Stdio::from(OwnedFd::from(one.try_clone().unwrap())));
        let mut shell = Command::new("/bin/sh");
        // The shell keeps its process number, and puts the sockets where the program looks for them.
        let script = "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_weft"), "proxy", "--config"]).arg(&config);
        shell.args(["--node", "edge", "--server", &mesh.grpc.to_string(), "--drain-delay", "0s"]);
        shell.args(["--admin-addr", &local(spec.admin_port).to_string()]);
        shell.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
        shell.stdin(inbound).stdout(upstream).stderr(Stdio::piped());
        shell.kill_on_drop(true).spawn().unwrap()
    };
    let kept = [listen(spec.inbound_port), listen(spec.door().port())];
    let mut late: Option<Conversation> = None;
    for run in ["first", "second"] {
        let mut sidecar = start("inbound:upstream-db", kept.each_ref());
        until("the sidecar", async || is_ready(local(spec.admin_port)).await).await;
        assert_eq!(ask(spec.door(), run).await.unwrap(), format!("db-1 {run}"));
        if let Some(mut late) = late.take() {
            assert_eq!(late.say("late").await.unwrap(), "db-1 late", "it has waited for the second");
        }
        let registered = mesh.get("/v1/catalog/service/web-sidecar-proxy").await.json();
        assert_eq!(registered[0]["ServicePort"], spec.inbound_port);
        let pid = Pid::from_raw(i32::try_from(sidecar.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(within("the end", sidecar.wait()).await.unwrap().code(), Some(0));
        late = Some(within("a place in the queue", Conversation::open(spec.door())).await.unwrap());
    }
    drop((late, kept));

    for (names, inbound, complaint) in [
        ("inbound:upstream-cache", free_port(), "`upstream-cache` that was given"),
        ("inbound:web.socket", free_port(), "`web.socket` that was given"),
    ] {
        let sockets = [listen(inbound), listen(spec.door().port())];
        let bad = start(names, sockets.each_ref()).wait_with_output();
        let bad = within("the refusal", bad).await.unwrap();
        let text = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert!(!bad.status.success() && text.contains(complaint), "{text}");
    }
}
