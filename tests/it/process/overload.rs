//! Real processes with less than they need: descriptors, memory, and peers that say nothing.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use weft::net::socket;

use super::mesh::{Mesh, ONE_SECOND, Sidecar, Spec, metric};
use super::support::{Process, local, slow, until, within};
use super::traffic::{App, ask};
use crate::pace::{pause, throughout};

const CLIENTS: usize = 1000;
/// How long a crowd presses on a sidecar that is short of memory.
const PRESSURE: Duration = Duration::from_secs(5);

fn limit(name: &str) -> String {
    format!("weft_limit_reached_total{{limit=\"{name}\"}}")
}

/// A client that stays, and comes again after a second when it is refused.
async fn insist(to: SocketAddr) {
    loop {
        let stay = async {
            let mut client = TcpStream::connect(to).await?;
            client.write_all(b"hello\n").await?;
            let mut answer = [0; 64];
            while client.read(&mut answer).await? > 0 {}
            io::Result::Ok(())
        };
        let _refused = stay.await;
        pause(ONE_SECOND).await;
    }
}

/// Share of one core that a process takes for this long. Asked of the kernel: a process without
/// descriptors has no ear for us.
async fn cpu_share(process: &Process, time: Duration) -> f64 {
    let ticks = || {
        let path = format!("/proc/{}/stat", process.id().as_raw_nonzero());
        let stat = std::fs::read_to_string(path).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    };
    let (before, started) = (ticks(), Instant::now());
    throughout(time).await;
    (ticks() - before) / 100.0 / started.elapsed().as_secs_f64()
}

/// Until as many are served as can be: the process opens no further descriptor.
async fn rush_is_over(process: &Process) {
    let mut last = 0;
    until("the end of the rush", async || {
        pause(Duration::from_millis(200)).await;
        let now = process.open_files().len();
        std::mem::replace(&mut last, now) == now
    })
    .await;
}

/// Time until a question is answered; it is asked again while it is not.
async fn answered(door: SocketAddr) -> Duration {
    let started = Instant::now();
    until("an answer", async || ask(door, "still there").await.is_ok()).await;
    started.elapsed()
}

/// A crowd at the door of a sidecar that is short of descriptors, because of what a shell did `before`
/// or of what `starve` takes away after its start. The control stream lives on, and the sidecar recovers
/// when the crowd has gone. `said` is what its log says first.
async fn starved(before: Option<&str>, starve: impl AsyncFn(&Sidecar), said: &str, sign: &str) {
    let is_slow = slow("10 s of starvation instead of 2");
    let time = Duration::from_secs(if is_slow { 10 } else { 2 });
    let _files = socket::raise_file_limit();
    let mut mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let app = App::start("db-1").await;
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let mut door = Spec::new("web", "web-1", 1).upstream("db");
    door.before = before.map(str::to_owned);
    let mut web = mesh.sidecar(&door).await;
    assert_eq!(ask(door.door(), "well").await.unwrap(), "db-1 well");
    starve(&web).await;

    let mut crowd = JoinSet::new();
    for _ in 0..CLIENTS {
        crowd.spawn(insist(door.door()));
    }
    web.process.said(said).await;
    rush_is_over(&web.process).await;
    let cpu = cpu_share(&web.process, time).await;
    assert_eq!(metric(mesh.http, "weft_proxies_connected").await, Some(2.0));

    crowd.shutdown().await;
    let recovery = answered(door.door()).await;
    println!("{sign}: {:.1} % of a core while starved, recovered after {recovery:?}", cpu * 100.0);
    assert!(web.metric(&limit(sign)).await.unwrap() > 0.0);
    let lost =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("control plane"));
    let since_ready = web.process.log().into_iter().skip_while(|line| line["message"] != "ready");
    assert_eq!(since_ready.filter(lost).count(), 0, "{}", web.process.stderr());
    if is_slow {
        assert!(cpu <= 0.05, "{:.1} % of a core while starved", cpu * 100.0);
        assert!(recovery <= ONE_SECOND, "recovered after {recovery:?}");
    }
    mesh.stop_server().await;
}

#[tokio::test]
async fn few_descriptors_are_shared_out_before_they_run_out() {
    let said = "a limit is reached: refusing what is beyond it; docs/limits.md says more";
    starved(Some("ulimit -n 256"), async |_| {}, said, "connections").await;
}

#[tokio::test]
async fn without_descriptors_it_waits_and_recovers() {
    let take_away = async |web: &Sidecar| {
        let open = format!("/proc/{}/fd", web.process.id().as_raw_nonzero());
        let few = Some(std::fs::read_dir(open).unwrap().count() as u64 + 16);
        let limit = Rlimit { current: few, maximum: few };
        prlimit(Some(web.process.id()), Resource::Nofile, limit).unwrap();
    };
    starved(None, take_away, "cannot accept connections", "accept").await;
}

#[tokio::test]
async fn silent_peers_do_not_slow_the_others_down() {
    let is_slow = slow("400 samples instead of 50");
    let samples = if is_slow { 400 } else { 50 };
    let _files = socket::raise_file_limit();
    let mut mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let app = App::start("db-1").await;
    let spec = Spec::new("db", "db-1", app.port());
    let db = mesh.sidecar(&spec).await;
    let inbound = local(spec.inbound_port);
    let door = Spec::new("web", "web-1", 1).upstream("db");
    let _web = mesh.sidecar(&door).await;
    let alone = p99(door.door(), samples).await;

    let mut silent = Vec::new();
    let started = Instant::now();
    for number in 0..2000u32 {
        let mut client = within("a connection", TcpStream::connect(inbound)).await.unwrap();
        if number.is_multiple_of(2) {
            client.write_all(&[0x16]).await.unwrap(); // the first byte of a handshake, and no more
        }
        silent.push(client);
    }
    let arrived = started.elapsed();
    let beside = p99(door.door(), samples).await;
    for client in &mut silent {
        let read = within("the end of a silent client", client.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let reaped = started.elapsed().saturating_sub(arrived);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!("2,000 silent peers: p99 {alone:?} alone, {beside:?} beside them, {ratio:.2} times");
    println!("they came within {arrived:?} and were gone {reaped:?} later");
    if is_slow {
        assert!(ratio <= 2.0, "p99 is {ratio:.2} times what it was");
        assert!(reaped <= Duration::from_secs(6), "{reaped:?}");
    }
    assert_eq!(db.metric(&limit("inbound_tls")).await, Some(0.0));
    mesh.stop_server().await;
}

/// The time under which 99 of 100 questions are answered.
async fn p99(door: SocketAddr, samples: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..samples {
        let started = Instant::now();
        ask(door, "how long").await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    times[(samples * 99 / 100).min(samples - 1)]
}

/// A control group with little memory, gone at the end.
struct Group(PathBuf);

impl Group {
    /// `None` where none can be made, which is said.
    fn new(name: &str, bytes: u64) -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/weft-{}-{name}", std::process::id()));
        let made = std::fs::create_dir(&path)
            .and_then(|()| std::fs::write(path.join("memory.limit_in_bytes"), bytes.to_string()));
        match made {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!(
                    "NOT TESTED: no memory control group (version 1, as root) can be made: {error}"
                );
                None
            }
        }
    }

    fn enter(&self) -> String {
        format!("echo $$ > {}", self.0.join("cgroup.procs").display())
    }

    fn number(&self, file: &str) -> u64 {
        std::fs::read_to_string(self.0.join(file)).unwrap().trim().parse().unwrap()
    }

    fn kills(&self) -> String {
        std::fs::read_to_string(self.0.join("memory.oom_control")).unwrap_or_default()
    }
}

impl Drop for Group {
    /// It is empty once its processes have ended.
    fn drop(&mut self) {
        let _busy = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn little_memory_sheds_load_and_is_never_killed() {
    const MEMORY: u64 = 128 << 20;
    let crowd_size = if slow("4,200 connections instead of 1,500") { 4200 } else { 1500 };
    let (Some(of_web), Some(of_db)) = (Group::new("web", MEMORY), Group::new("db", MEMORY)) else {
        return;
    };
    let _files = socket::raise_file_limit();
    let mut mesh = Mesh::start().await;
    mesh.done(&["intention", "allow", "web", "db"]).await;
    let app = Sink::start().await;
    let mut spec = Spec::new("db", "db-1", app.port());
    spec.before = Some(of_db.enter());
    let mut db = mesh.sidecar(&spec).await;
    let mut door = Spec::new("web", "web-1", 1).upstream("db");
    door.before = Some(of_web.enter());
    let mut web = mesh.sidecar(&door).await;

    let mut crowd = JoinSet::new();
    for _ in 0..crowd_size {
        crowd.spawn(press(door.door()));
    }
    until("shedding", async || web.metric(&limit("connections")).await.is_some_and(|n| n > 0.0)).await;
    throughout(PRESSURE).await;
    let open = r#"weft_connections_open{direction="outbound"}"#;
    let held = web.metric(open).await.unwrap();
    crowd.shutdown().await;
    for (name, group, sidecar) in [("web", &of_web, &mut web), ("db", &of_db, &mut db)] {
        let most = group.number("memory.max_usage_in_bytes") >> 20;
        let rss =
            sidecar.metric("weft_process_resident_memory_bytes").await.unwrap() / f64::from(1 << 20);
        println!(
            "{name}: {held} of {crowd_size} served, most {most} MiB with cache, {rss:.0} MiB resident at the end, {}",
            group.kills().replace('\n', " ")
        );
        assert!(sidecar.process.is_running(), "{name} was killed");
    }
    until("the end of the crowd", async || web.metric(open).await == Some(0.0)).await;
    // Of two in a row, one is echoed.
    until("service after the crowd", async || {
        let echoed = async {
            let mut client = TcpStream::connect(door.door()).await?;
            client.set_zero_linger()?;
            client.write_all(b"ping").await?;
            client.read_exact(&mut [0; 4]).await
        };
        matches!(timeout(ONE_SECOND, echoed).await, Ok(Ok(_)))
    })
    .await;
    drop(app);
    assert_eq!((web.stop().await, db.stop().await), (0, 0));
    mesh.stop_server().await;
}

/// Sends as much as is taken, and reads what comes back slowly.
async fn press(to: SocketAddr) {
    let pressing = async {
        let client = TcpStream::connect(to).await?;
        client.set_zero_linger()?; // it leaves with a reset
        let (mut reader, mut writer) = client.into_split();
        let send = async {
            loop {
                writer.write_all(&[7; 64 * 1024]).await?;
            }
        };
        let receive = async {
            let mut buffer = vec![0; 16 * 1024];
            while reader.read(&mut buffer).await? > 0 {
                pause(Duration::from_millis(200)).await;
            }
            io::Result::Ok(())
        };
        tokio::select! {
            sent = send => sent,
            received = receive => received,
        }
    };
    let _refused: io::Result<()> = pressing.await;
    std::future::pending::<()>().await;
}

/// An application that echoes to every other connection, and reads a megabyte of the rest and no more.
struct Sink(SocketAddr, #[allow(dead_code, reason = "ends with its owner")] JoinSet<()>);

impl Sink {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            let mut number = 0u64;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                number += 1;
                connections.spawn(async move {
                    if number.is_multiple_of(2) {
                        let (mut reader, mut writer) = stream.split();
                        let _gone = tokio::io::copy(&mut reader, &mut writer).await;
                    } else {
                        let mut megabyte = vec![0; 1 << 20];
                        let _gone = stream.read_exact(&mut megabyte).await;
                        std::future::pending::<()>().await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self(address, serving)
    }

    const fn port(&self) -> u16 {
        self.0.port()
    }
}
