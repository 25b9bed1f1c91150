//! The run as a whole: who takes part, in which order, how often, and what was seen.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::fault::{Doing, Fault, Outcome};
use crate::measures::{Figures, Measure};
use crate::options::Options;
use crate::peers::{self, Ports};
use crate::report;
use crate::session::{Contender, Session};
use crate::usage;

/// Below the range of outgoing connections of every usual system.
const FIRST_PORT: u16 = 11_000;
/// Share of the machine that may be busy when a measure begins.
const QUIET_SHARE: f64 = 0.10;

/// One measure of one contender in one round.
pub struct Sample {
    pub peer: &'static str,
    pub round: usize,
    pub measure: &'static str,
    pub figures: Figures,
}

pub struct Failure {
    pub peer: &'static str,
    pub round: usize,
    pub why: String,
}

/// A peer that was not found here, and why not.
pub type Missing = (&'static str, String);

/// Everything that was seen.
pub struct Seen {
    pub when: String,
    pub machine: Vec<(&'static str, String)>,
    pub contenders: Vec<Contender>,
    pub missing: Vec<Missing>,
    pub samples: Vec<Sample>,
    pub failures: Vec<Failure>,
}

pub fn run(options: &Options) -> Outcome<()> {
    crate::raise_file_limit()?;
    // Logs, keys and state of the run; `bench/run` makes and removes it, however this ends.
    let work = std::env::var_os("WEFT_BENCH_WORK").map(PathBuf::from);
    let work =
        work.ok_or_else(|| Fault::new("there is no directory to work in; start this with bench/run"))?;
    let certificates = Certificates::at(work.join("certificates"));
    let openssl = peers::which("openssl");
    if let Some(openssl) = &openssl {
        certificates.make(openssl)?;
    }
    let (contenders, missing) = contenders(&options.peers, openssl.is_some())?;
    let cores = std::thread::available_parallelism().doing("count the cores")?.get();
    let machine = machine(cores);
    let when = date()?;
    let mut seen =
        Seen { when, machine, contenders, missing, samples: Vec::new(), failures: Vec::new() };
    let mut bench =
        Bench { options, work: &work, certificates: &certificates, cores, next_port: FIRST_PORT };
    for round in 1..=options.rounds {
        let count = seen.contenders.len();
        // Another one begins each round, so that nobody is always first or last.
        for turn in 0..count {
            bench.contend(&mut seen, (turn + round - 1) % count, round);
        }
    }
    write(options, &seen)
}

fn write(options: &Options, seen: &Seen) -> Outcome<()> {
    let markdown = report::markdown(options, seen);
    println!("{markdown}");
    fs::create_dir_all(&options.out).doing(options.out.display())?;
    for (name, text) in [("results.md", markdown), ("results.json", format!("{:#}\n", json(seen)))] {
        let path = options.out.join(name);
        fs::write(&path, text).doing(path.display())?;
        eprintln!("wrote {}", path.display());
    }
    if seen.failures.is_empty() { Ok(()) } else { Err(Fault::new("there were failures; see above")) }
}

/// Who takes part. A peer that was asked for by name and is not here is an error.
fn contenders(names: &[String], openssl: bool) -> Outcome<(Vec<Contender>, Vec<Missing>)> {
    let mut found = vec![Contender { peer: None, version: String::new(), program_bytes: 0 }];
    let mut missing = Vec::new();
    for peer in peers::all() {
        let (program, variable) = peer.program_name();
        let Some(path) = peers::find(peer.as_ref()) else {
            missing.push((peer.name(), format!("no `{program}` on PATH; {variable} can name one")));
            continue;
        };
        if peer.needs_certificates() && !openssl {
            missing.push((peer.name(), "no `openssl` on PATH to make its certificates".to_owned()));
            continue;
        }
        let version = peers::version(peer.as_ref(), &path)?;
        let program_bytes = fs::metadata(&path).doing(path.display())?.len();
        found.push(Contender { peer: Some((peer, path)), version, program_bytes });
    }
    for name in names {
        if let Some((_, why)) = missing.iter().find(|(peer, _)| peer == name) {
            return Err(Fault::new(format!("{name} cannot take part: {why}")));
        }
        if !found.iter().any(|contender| contender.name() == name) {
            return Err(Fault::new(format!("there is no peer {name}")));
        }
    }
    if !names.is_empty() {
        found.retain(|contender| names.iter().any(|name| name == contender.name()));
    }
    Ok((found, missing))
}

struct Bench<'a> {
    options: &'a Options,
    work: &'a Path,
    certificates: &'a Certificates,
    cores: usize,
    next_port: u16,
}

impl Bench<'_> {
    /// All measures of one contender in one round. Memory gets a pair of its own, which has done nothing.
    fn contend(&mut self, seen: &mut Seen, index: usize, round: usize) {
        let (mut idle, busy): (Vec<Measure>, Vec<Measure>) =
            self.options.measures.iter().partition(|&&measure| measure == Measure::Idle);
        if seen.contenders[index].peer.is_none() {
            idle.clear(); // there is nobody whose memory it could be
        }
        for measures in [busy, idle].iter().filter(|measures| !measures.is_empty()) {
            let contender = &seen.contenders[index];
            let peer = contender.name();
            let mut samples = Vec::new();
            if let Err(fault) = self.measure(contender, measures, |measure, figures| {
                eprintln!("round {round} {peer} {measure}: {}", brief(&figures));
                samples.push(Sample { peer, round, measure, figures });
            }) {
                eprintln!("round {round} {peer}: FAILED: {fault}");
                seen.failures.push(Failure { peer, round, why: fault.to_string() });
            }
            seen.samples.append(&mut samples);
        }
    }

    fn measure(
        &mut self,
        contender: &Contender,
        measures: &[Measure],
        mut note: impl FnMut(&'static str, Figures),
    ) -> Outcome<()> {
        let ports = Ports::block(self.next_port);
        self.next_port += Ports::BLOCK;
        let directory = self.work.join(format!("{}-{}", contender.name(), ports.backend));
        self.quiet();
        let mut session = Session::start(contender, &directory, self.certificates, ports, self.cores)
            .doing("start")?;
        if let Some(start) = session.start_up {
            let figures = [
                ("server_accept_ms", start.server_accept_ms),
                ("client_accept_ms", start.client_accept_ms),
                ("client_echo_ms", start.client_echo_ms),
            ];
            note("start", figures.map(|(name, value)| (name.to_owned(), value)).into());
        }
        for measure in measures {
            let figures = self.least_disturbed(*measure, &mut session).doing(measure.name())?;
            note(measure.name(), figures);
        }
        session.end();
        Ok(())
    }

    /// Repeats a measure while others use the machine, and keeps the best.
    fn least_disturbed(&self, measure: Measure, session: &mut Session) -> Outcome<Figures> {
        let mut best: Option<(f64, Figures)> = None;
        for tries in 1..=self.options.tries {
            self.quiet();
            let mut figures = measure.run(session, &self.options.settings)?;
            figures.insert("tries".to_owned(), tries as f64);
            // Memory does not depend on who else runs.
            let disturbed = figures.get("foreign_share").copied().unwrap_or_default();
            if best.as_ref().is_none_or(|(least, _)| disturbed < *least) {
                best = Some((disturbed, figures));
            }
            if disturbed <= self.options.max_foreign_share {
                break;
            }
        }
        best.map(|(_, figures)| figures).ok_or_else(|| Fault::new("not tried"))
    }

    fn quiet(&self) {
        usage::wait_until_quiet(QUIET_SHARE, self.cores, self.options.quiet_wait);
    }
}

fn brief(figures: &Figures) -> String {
    let shown = figures.iter().map(|(name, value)| format!("{name}={}", report::number(*value)));
    shown.collect::<Vec<_>>().join(" ")
}

/// What the figures depend on besides the contenders.
fn machine(cores: usize) -> Vec<(&'static str, String)> {
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
    };
    let private = std::env::var_os("WEFT_BENCH_PRIVATE_NETWORK").is_some();
    vec![
        ("cpu", first("/proc/cpuinfo", "model name")),
        ("cores", cores.to_string()),
        ("kernel", first("/proc/sys/kernel/osrelease", "")),
        ("tcp", first("/proc/sys/net/ipv4/tcp_congestion_control", "")),
        (
            "network",
            if private { "a namespace with only a loopback" } else { "the machine's own" }.to_owned(),
        ),
    ]
}

fn date() -> Outcome<String> {
    let (text, _) = crate::process::output(Path::new("date"), ["-u", "+%Y-%m-%d %H:%M UTC"])?;
    Ok(text.trim().to_owned())
}

fn json(seen: &Seen) -> Value {
    let contenders = seen.contenders.iter().map(|contender| {
        json!({ "name": contender.name(), "version": contender.version, "program_bytes": contender.program_bytes })
    });
    let samples = seen.samples.iter().map(|sample| {
        json!({ "peer": sample.peer, "round": sample.round, "measure": sample.measure, "figures": sample.figures })
    });
    let failures = seen
        .failures
        .iter()
        .map(|failure| json!({ "peer": failure.peer, "round": failure.round, "why": failure.why }));
    json!({
        "when": seen.when,
        "machine": seen.machine.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>(),
        "contenders": contenders.collect::<Vec<_>>(),
        "missing": seen.missing.iter().map(|(peer, why)| json!({ "name": peer, "why": why })).collect::<Vec<_>>(),
        "samples": samples.collect::<Vec<_>>(),
        "failures": failures.collect::<Vec<_>>(),
    })
}
