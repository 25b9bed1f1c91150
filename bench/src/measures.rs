//! The measures. Each takes a started session and gives figures by name; `report` knows what they mean.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::fault::{Doing, Fault, Outcome};
use crate::load::bulk::{self, Direction};
use crate::load::{connect, http, idle, pingpong};
use crate::session::{Cost, Session};

pub type Figures = BTreeMap<String, f64>;

/// Connections of the HTTP measures.
const HTTP_CONNECTIONS: usize = 64;
/// Connections under way at once in `connect`.
const AT_ONCE: usize = 32;
/// Bulk streams of `bulk8` and beside HTTP.
const STREAMS: usize = 8;
/// After opening and closing idle connections, before memory is read: proxies give buffers back late.
const SETTLE_MEMORY: Duration = Duration::from_secs(1);
const SETTLE_CLOSED: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    PingPong,
    Connect,
    Http,
    Bulk1,
    Bulk8,
    Reverse1,
    Mixed,
    /// Needs a pair that has done nothing yet.
    Idle,
}

impl Measure {
    pub const ALL: [Self; 8] = [
        Self::PingPong,
        Self::Connect,
        Self::Http,
        Self::Bulk1,
        Self::Bulk8,
        Self::Reverse1,
        Self::Mixed,
        Self::Idle,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::PingPong => "pingpong",
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Bulk1 => "bulk1",
            Self::Bulk8 => "bulk8",
            Self::Reverse1 => "reverse1",
            Self::Mixed => "mixed",
            Self::Idle => "idle",
        }
    }

    pub fn run(self, session: &mut Session, settings: &Settings) -> Outcome<Figures> {
        let span = settings.span;
        match self {
            Self::PingPong => ping_pong(session, span),
            Self::Connect => connections(session, span),
            Self::Http => requests(session, span),
            Self::Bulk1 => bytes(session, span, &[Direction::Upload]),
            Self::Bulk8 => bytes(session, span, &[Direction::Upload; STREAMS]),
            Self::Reverse1 => bytes(session, span, &[Direction::Download]),
            Self::Mixed => mixed(session, span),
            Self::Idle => idle_connections(session, &settings.idle),
        }
    }
}

pub struct Settings {
    /// Of each load.
    pub span: Duration,
    /// Numbers of idle connections at which memory is read, growing.
    pub idle: Vec<usize>,
}

fn figures<const N: usize>(pairs: [(&str, f64); N]) -> Figures {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// CPU for so much work, of both proxies, of their control plane and of the machine.
fn shares(cost: &Cost, work: f64) -> Figures {
    figures([
        ("cpu_s", cost.pair_s / work),
        ("helpers_cpu_s", cost.helpers_s / work),
        ("machine_cpu_s", cost.machine_s / work),
        ("foreign_share", cost.foreign_share),
    ])
}

fn ping_pong(session: &mut Session, span: Duration) -> Outcome<Figures> {
    let (latencies, cost) = session.cost(|port| pingpong::run(port, span))?;
    let mut seen = shares(&cost, latencies.count() as f64 / 1e5);
    let [p50_us, p99_us] = latencies.quantiles_us([0.5, 0.99]);
    seen.extend(figures([("p50_us", p50_us), ("p99_us", p99_us)]));
    Ok(seen)
}

fn connections(session: &mut Session, span: Duration) -> Outcome<Figures> {
    let (run, cost) = session.cost(|port| connect::run(port, AT_ONCE, span))?;
    let count = run.latencies.count() as f64;
    if count == 0.0 {
        return Err(Fault::new(format!("no connection succeeded, {} failed", run.failures)));
    }
    let mut seen = shares(&cost, count / 1e3);
    let [p50_us, p99_us] = run.latencies.quantiles_us([0.5, 0.99]);
    let rate = count / run.seconds;
    let failures = run.failures as f64;
    seen.extend(figures([
        ("rate", rate),
        ("p50_us", p50_us),
        ("p99_us", p99_us),
        ("failures", failures),
    ]));
    Ok(seen)
}

fn requests(session: &mut Session, span: Duration) -> Outcome<Figures> {
    let (run, cost) = session.cost(|port| http::run(port, HTTP_CONNECTIONS, span))?;
    // The warm-up costs, too, and is not in the count.
    let counted =
        run.latencies.count() as f64 / run.seconds * (run.seconds + http::WARM_UP.as_secs_f64());
    let mut seen = shares(&cost, counted / 1e5);
    seen.extend(latency_and_rate(run));
    Ok(seen)
}

fn latency_and_rate(run: http::Requests) -> Figures {
    let rate = run.latencies.count() as f64 / run.seconds;
    let [p50_us, p99_us] = run.latencies.quantiles_us([0.5, 0.99]);
    figures([("rate", rate), ("p50_us", p50_us), ("p99_us", p99_us)])
}

fn bytes(session: &mut Session, span: Duration, streams: &[Direction]) -> Outcome<Figures> {
    let (moved, cost) = session.cost(|port| bulk::run(port, streams, span))?;
    let mut seen = shares(&cost, moved.gigabytes());
    seen.extend(figures([("gbit_s", moved.gbit_s())]));
    Ok(seen)
}

/// HTTP alone, beside a reader that stalls, beside bulk streams, and beside both.
fn mixed(session: &mut Session, span: Duration) -> Outcome<Figures> {
    let mut seen = Figures::new();
    let mut foreign_share = 0.0_f64;
    for (phase, with_stalled, with_bulk) in
        [("alone", false, false), ("bulk", false, true), ("stalled", true, false), ("both", true, true)]
    {
        let stalled = with_stalled.then(|| bulk::stalled_reader(session.port)).transpose()?;
        let ((run, gbit_s), cost) = session.cost(|port| {
            if with_bulk {
                beside_bulk(port, span)
            } else {
                Ok((http::run(port, HTTP_CONNECTIONS, span)?, 0.0))
            }
        })?;
        drop(stalled);
        foreign_share = foreign_share.max(cost.foreign_share);
        let mut phase_figures = latency_and_rate(run);
        phase_figures.insert("gbit_s".to_owned(), gbit_s);
        seen.extend(phase_figures.into_iter().map(|(name, value)| (format!("{phase}_{name}"), value)));
    }
    seen.insert("foreign_share".to_owned(), foreign_share);
    Ok(seen)
}

/// HTTP while bulk streams run, half of them in each direction; their throughput with it.
fn beside_bulk(port: u16, span: Duration) -> Outcome<(http::Requests, f64)> {
    let mut streams = [Direction::Upload; STREAMS];
    streams[STREAMS / 2..].fill(Direction::Download);
    thread::scope(|scope| {
        let bulk = scope.spawn(move || bulk::run(port, &streams, span + http::WARM_UP));
        let requests = http::run(port, HTTP_CONNECTIONS, span);
        let moved = bulk.join().unwrap_or_else(|_| Err(Fault::new("the bulk load panicked")));
        Ok((requests.doing("HTTP beside bulk")?, moved.doing("bulk beside HTTP")?.gbit_s()))
    })
}

/// Memory at the start, with each number of idle connections, and after they are closed.
fn idle_connections(session: &mut Session, stages: &[usize]) -> Outcome<Figures> {
    let mut seen = Figures::new();
    let note = |seen: &mut Figures, session: &Session, label: &str| {
        for (side, memory) in ["server", "client"].iter().zip(session.memory()) {
            seen.insert(format!("{label}_{side}_rss_mib"), memory.rss_kib / 1024.0);
            seen.insert(format!("{label}_{side}_pss_mib"), memory.pss_kib / 1024.0);
        }
        session.memory().iter().map(|memory| memory.pss_kib).sum::<f64>()
    };
    thread::sleep(SETTLE_MEMORY);
    let start_kib = note(&mut seen, session, "start");
    seen.insert("threads".to_owned(), session.threads() as f64);
    let mut held = idle::Held::default();
    for &count in stages {
        held.grow(session.port, count)?;
        thread::sleep(SETTLE_MEMORY);
        session.check()?;
        let kib = note(&mut seen, session, &count.to_string());
        seen.insert(format!("{count}_kib_each"), (kib - start_kib) / count as f64);
    }
    drop(held);
    thread::sleep(SETTLE_CLOSED);
    session.check()?;
    note(&mut seen, session, "closed");
    Ok(seen)
}
