//! Applications that know nothing of a mesh, and their clients.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::support::DEADLINE;

/// An application that answers each line with its name and the line.
pub(super) struct App {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl App {
    pub(super) async fn start(name: &str) -> Self {
        Self::over(name, TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(super) fn serve(name: &str, listener: std::net::TcpListener) -> Self {
        Self::over(name, TcpListener::from_std(listener).unwrap())
    }

    fn over(name: &str, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let (name, accepted) = (name.to_owned(), Arc::new(AtomicUsize::new(0)));
        let mut serving = JoinSet::new();
        let count = Arc::clone(&accepted);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                // A client that goes away is no fault of the application.
                let name = name.clone();
                connections.spawn(async move { drop(answer(&name, stream).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, accepted, _serving: serving }
    }

    pub(super) const fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn answer(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        writer.write_all(format!("{name} {line}\n").as_bytes()).await?;
    }
    Ok(())
}

/// One question on a connection of its own, and everything that came back until a clean end.
pub(super) async fn ask(address: SocketAddr, question: &str) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    exchange(stream, question).await
}

async fn exchange(mut stream: TcpStream, question: &str) -> io::Result<String> {
    let exchange = async {
        stream.write_all(format!("{question}\n").as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(answer.trim_end().to_owned())
    };
    timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A connection that stays open.
pub(super) struct Conversation(BufReader<TcpStream>);

impl Conversation {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    /// One line and its answer.
    pub(super) async fn say(&mut self, line: &str) -> io::Result<String> {
        let exchange = async {
            self.0.write_all(format!("{line}\n").as_bytes()).await?;
            let mut answer = String::new();
            match self.0.read_line(&mut answer).await? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(answer.trim_end().to_owned()),
            }
        };
        timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Waits for the other side to end it.
    pub(super) async fn cut(mut self) -> io::Result<usize> {
        let mut rest = Vec::new();
        timeout(DEADLINE, self.0.read_to_end(&mut rest)).await.expect("the connection stays open")
    }

    /// Ends it from this side and waits for the clean end of the other one.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.0.shutdown().await?;
        self.cut().await.map(drop)
    }
}

/// Steady new connections to one address, each with one question.
pub(super) struct Load {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
    stop: Arc<tokio::sync::Notify>,
}

/// What a load has come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Answers by the name of the application.
    pub(super) answers: BTreeMap<String, usize>,
    pub(super) failures: Vec<Failure>,
}

#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The client's end, as the access log names it.
    pub(super) client: Option<SocketAddr>,
    #[allow(dead_code, reason = "shown when a test fails")]
    pub(super) error: String,
}

impl Seen {
    pub(super) fn total(&self) -> usize {
        self.answers.values().sum()
    }

    pub(super) fn by(&self, name: &str) -> usize {
        self.answers.get(name).copied().unwrap_or(0)
    }
}

impl Load {
    pub(super) fn start(address: SocketAddr, per_second: u32) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(tokio::sync::Notify::new()));
        let (results, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            // A timer has milliseconds: above a hundred in a second, several begin at once.
            let batch = per_second.div_ceil(100);
            let mut ticks = interval(Duration::from_secs(1) * batch / per_second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut clients = JoinSet::new();
            loop {
                tokio::select! {
                    _ = ticks.tick() => for _ in 0..batch {
                        clients.spawn(client(address, Arc::clone(&results)));
                    },
                    () = stopped.notified() => break,
                };
                while clients.try_join_next().is_some() {}
            }
            clients.join_all().await;
        });
        Self { seen, task, stop }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for so many further answers, whatever fails meanwhile.
    pub(super) async fn answers(&self, further: usize) {
        let wanted = self.seen().total() + further;
        super::support::until("answers under load", async || self.seen().total() >= wanted).await;
    }

    /// Waits for so many further answers of one application, at most `limit`.
    pub(super) async fn answers_by(&self, name: &str, further: usize, limit: Duration) {
        let (wanted, started) = (self.seen().by(name) + further, Instant::now());
        while self.seen().by(name) < wanted {
            assert!(started.elapsed() < limit, "{name} does not answer: {:?}", self.seen());
            self.answers(1).await;
        }
    }

    /// Goes on for this long.
    pub(super) async fn last(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.answers(1).await;
        }
    }

    /// Ends, with every question answered or failed.
    pub(super) async fn finish(self) -> Seen {
        self.stop.notify_one();
        self.task.await.unwrap();
        self.seen.lock().unwrap().clone()
    }
}

async fn client(address: SocketAddr, results: Arc<Mutex<Seen>>) {
    let mut client = None;
    let outcome = async {
        let stream = TcpStream::connect(address).await?;
        client = stream.local_addr().ok();
        exchange(stream, "ping").await
    };
    let outcome = outcome.await;
    let mut seen = results.lock().unwrap();
    match outcome {
        Ok(answer) if answer.ends_with(" ping") => {
            let name = answer.trim_end_matches(" ping").to_owned();
            *seen.answers.entry(name).or_default() += 1;
        }
        Ok(answer) => seen.failures.push(Failure { client, error: format!("wrong answer: {answer:?}") }),
        Err(error) => seen.failures.push(Failure { client, error: error.to_string() }),
    }
}
