//! Processes under test: started, heard, signalled by their id, and gone at the end of the test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::pace::look_again;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Longest wait for anything here; most of it takes milliseconds.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// Last lines of a process's output that a failed test shows.
const SHOWN: usize = 30;
/// Most lines of output that are kept; a soak writes millions.
const KEPT: usize = 200_000;
/// Ports below those that the system hands out by itself and above those of sidecars' defaults.
const PORTS: std::ops::Range<u32> = 22_000..32_000;

/// One run of the program.
pub(super) struct Process {
    name: String,
    child: Child,
    err: Lines,
    out: Lines,
    readers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

impl Process {
    /// Starts `weft` with these arguments and no environment but these variables and `PATH`.
    pub(super) fn start(name: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn(name, Command::new(env!("CARGO_BIN_EXE_weft")), args, env)
    }

    /// Starts `weft` in the place of a shell that has run `before`, which sets limits.
    pub(super) fn start_after(name: &str, before: &str, args: &[&str]) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{before} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_weft")]);
        Self::spawn(name, shell, args, &[])
    }

    /// As [`Self::start`], in a network namespace.
    pub(super) fn start_in(namespace: &str, name: &str, args: &[&str]) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_weft")]);
        Self::spawn(name, command, args, &[])
    }

    fn spawn(name: &str, mut command: Command, args: &[&str], env: &[(&str, &str)]) -> Self {
        command.args(args).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        // For tests that count its descriptors and look at its memory, whoever runs them.
        command.env("WEFT_DEBUGGABLE", "true").envs(env.iter().copied());
        let pipes = (Stdio::null(), Stdio::piped(), Stdio::piped());
        command.stdin(pipes.0).stdout(pipes.1).stderr(pipes.2).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (out, err) = (Lines::default(), Lines::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &out),
            collect(child.stderr.take().unwrap(), &err),
        ];
        Self { name: name.to_owned(), child, err, out, readers }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    pub(super) fn id(&self) -> Pid {
        let id = self.child.id().unwrap_or_else(|| panic!("{} has ended already", self.name));
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }

    /// A file of its directory under /proc.
    pub(super) fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.id().as_raw_nonzero());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Memory that it has allocated, in bytes. The program's own pages are left out: a process's share of
    /// them changes with every other one that starts or ends.
    pub(super) fn memory_bytes(&self) -> u64 {
        field(&self.proc("smaps_rollup"), "Pss_Anon:") * 1024
    }

    pub(super) fn threads(&self) -> u64 {
        field(&self.proc("status"), "Threads:")
    }

    pub(super) fn open_files(&self) -> Vec<i32> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id().as_raw_nonzero())).unwrap();
        files.filter_map(|file| file.unwrap().file_name().to_str()?.parse().ok()).collect()
    }

    /// As a crash: nothing of the process runs any more when this returns.
    pub(super) async fn kill(mut self) -> Vec<Value> {
        self.signal(Signal::KILL);
        self.ended().await;
        self.log()
    }

    /// Waits for the end, with all output read; gives the exit code, or minus the signal.
    pub(super) async fn ended(&mut self) -> i32 {
        let status = timeout(DEADLINE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{} does not end", self.name)).unwrap();
        for reader in self.readers.drain(..) {
            timeout(DEADLINE, reader).await.expect("somebody else holds the output").unwrap();
        }
        use std::os::unix::process::ExitStatusExt;
        status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap()
    }

    /// As a crash of its own making; whether the kernel wrote its memory down.
    pub(super) async fn crash(mut self) -> bool {
        self.signal(Signal::ABORT);
        let status = timeout(DEADLINE, self.child.wait()).await.expect("it does not end").unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
        status.core_dumped()
    }

    /// SIGTERM, and the exit code.
    pub(super) async fn stop(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.ended().await
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(super) fn stderr(&self) -> String {
        self.err.lock().unwrap().join("\n")
    }

    pub(super) fn stdout(&self) -> String {
        self.out.lock().unwrap().join("\n")
    }

    /// The log so far.
    pub(super) fn log(&self) -> Vec<Value> {
        self.err.lock().unwrap().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The access log so far.
    pub(super) fn connections(&self) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["target"] == "access").collect()
    }

    /// Waits for a line of the log.
    pub(super) async fn logged(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            if let Some(line) = self.log().into_iter().find(|line| wanted(line)) {
                return line;
            }
            assert!(self.is_running(), "{} ended before it logged {what}", self.name);
            assert!(started.elapsed() < DEADLINE, "{} did not log {what} in time", self.name);
            look_again().await;
        }
    }

    /// Waits for a message of the log.
    pub(super) async fn said(&mut self, message: &str) -> Value {
        self.logged(message, |line| line["message"] == message).await
    }
}

impl Drop for Process {
    /// The child itself is killed by its own drop.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (what, lines) in [("stdout", &self.out), ("stderr", &self.err)] {
            let lines = lines.lock().unwrap();
            let from = lines.len().saturating_sub(SHOWN);
            println!("--- {} {what}, {} lines\n{}", self.name, lines.len(), lines[from..].join("\n"));
        }
    }
}

/// The number after a name in a file of /proc.
fn field(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn collect(pipe: impl AsyncRead + Unpin + Send + 'static, lines: &Lines) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    tokio::spawn(async move {
        let mut reader = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            let mut lines = lines.lock().unwrap();
            if lines.len() == KEPT {
                lines.drain(..KEPT / 2);
            }
            lines.push(line);
        }
    })
}

/// A port that nobody listens on, and that nobody else in this program is given.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Test programs that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(193);
    for _ in PORTS {
        let step = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + step % count).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("every port is taken");
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Waits until something holds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        look_again().await;
    }
}

/// Waits for a future.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Whether the long versions run; says what is left out otherwise.
pub(crate) fn slow(left_out: &str) -> bool {
    let slow = std::env::var_os("WEFT_SLOW").is_some_and(|value| value == "1");
    if !slow {
        println!("left out without WEFT_SLOW=1: {left_out}");
    }
    slow
}
