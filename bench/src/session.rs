//! One backend with one started pair of proxies before it (or none), and what they have used so far.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::fault::{Doing, Fault, Outcome};
use crate::load;
use crate::peers::{Peer, Place, Ports};
use crate::process::{self, Process};
use crate::usage::{self, Memory};

/// How long a proxy may take to accept, and then to let an echo through.
const START: Duration = Duration::from_secs(20);
/// Between two looks at a port: finer than any start-up that is worth telling apart.
const TICK: Duration = Duration::from_micros(500);
/// For the server side to be known to a control plane before the client side starts.
const SETTLE_SERVER: Duration = Duration::from_millis(500);
/// For connections that were closed to be closed on every hop, before CPU is read.
const SETTLE: Duration = Duration::from_millis(300);

/// A peer that was found here.
pub struct Contender {
    /// `None` for direct: no proxies.
    pub peer: Option<(Box<dyn Peer>, PathBuf)>,
    pub version: String,
    pub program_bytes: u64,
}

impl Contender {
    pub fn name(&self) -> &'static str {
        self.peer.as_ref().map_or("direct", |(peer, _)| peer.name())
    }
}

/// Milliseconds from exec.
#[derive(Clone, Copy)]
pub struct StartUp {
    pub server_accept_ms: f64,
    pub client_accept_ms: f64,
    pub client_echo_ms: f64,
}

pub struct Session {
    /// Where the load goes.
    pub port: u16,
    pub start_up: Option<StartUp>,
    cores: usize,
    backend: Process,
    helpers: Vec<Process>,
    /// Server side, client side; empty for direct.
    pair: Vec<Process>,
}

/// CPU seconds at one instant.
struct Reading {
    at: Instant,
    pair_s: f64,
    helpers_s: f64,
    backend_s: f64,
    own_s: f64,
    machine_s: f64,
    stolen_s: f64,
}

/// What a measure used.
pub struct Cost {
    /// CPU of both proxies, user and system.
    pub pair_s: f64,
    pub helpers_s: f64,
    /// CPU of everything on the machine: load and backend too.
    pub machine_s: f64,
    /// Share of the machine that work of others had meanwhile, other machines on its host included.
    pub foreign_share: f64,
}

impl Session {
    /// Starts everything in an empty directory of its own and waits until an echo comes through.
    pub fn start(
        contender: &Contender,
        directory: &Path,
        certificates: &Certificates,
        ports: Ports,
        cores: usize,
    ) -> Outcome<Self> {
        fs::create_dir_all(directory).doing(directory.display())?;
        let own = std::env::current_exe().doing("find this very program")?;
        let mut command = Command::new(own);
        command.args(["backend", &ports.backend.to_string()]);
        let mut backend = Process::start("backend", command, directory)?;
        accepts(ports.backend, &mut backend)?;
        let mut session = Self {
            port: ports.backend,
            start_up: None,
            cores,
            backend,
            helpers: Vec::new(),
            pair: Vec::new(),
        };
        if let Some((peer, program)) = &contender.peer {
            let place = Place { directory, certificates, ports, workers: cores };
            session.start_pair(peer.as_ref(), program, &place)?;
        }
        Ok(session)
    }

    fn start_pair(&mut self, peer: &dyn Peer, program: &Path, place: &Place<'_>) -> Outcome<()> {
        let name = peer.name();
        self.helpers = peer.prepare(program, place)?;
        let command = peer.server(program, place)?;
        let mut server = Process::start(&format!("{name}-server-side"), command, place.directory)?;
        let server_accept_ms = accepts(place.ports.inner, &mut server)?;
        self.pair.push(server);
        std::thread::sleep(SETTLE_SERVER);
        let command = peer.client(program, place)?;
        let mut client = Process::start(&format!("{name}-client-side"), command, place.directory)?;
        let client_accept_ms = accepts(place.ports.outer, &mut client)?;
        let client_echo_ms = echoes(place.ports.outer, &mut client)?;
        self.pair.push(client);
        self.port = place.ports.outer;
        self.start_up = Some(StartUp { server_accept_ms, client_accept_ms, client_echo_ms });
        Ok(())
    }

    /// Runs a load and says what it cost.
    pub fn cost<T>(&mut self, load: impl FnOnce(u16) -> Outcome<T>) -> Outcome<(T, Cost)> {
        let before = self.reading();
        let result = load(self.port);
        // A proxy that died says more than what the load saw of it.
        self.check()?;
        let result = result?;
        std::thread::sleep(SETTLE);
        let after = self.reading();
        let pair_s = after.pair_s - before.pair_s;
        let helpers_s = after.helpers_s - before.helpers_s;
        let machine_s = after.machine_s - before.machine_s;
        let known_s =
            pair_s + helpers_s + (after.backend_s - before.backend_s) + (after.own_s - before.own_s);
        let capacity_s = (after.at - before.at).as_secs_f64() * self.cores as f64;
        let stolen_s = after.stolen_s - before.stolen_s;
        let foreign_share = ((machine_s - known_s + stolen_s) / capacity_s).max(0.0);
        Ok((result, Cost { pair_s, helpers_s, machine_s, foreign_share }))
    }

    pub fn check(&mut self) -> Outcome<()> {
        let mut all = self.pair.iter_mut().chain(&mut self.helpers).chain([&mut self.backend]);
        all.try_for_each(Process::check)
    }

    fn reading(&self) -> Reading {
        let pids = |processes: &[Process]| processes.iter().map(Process::pid).collect::<Vec<_>>();
        Reading {
            at: Instant::now(),
            pair_s: usage::cpu_s(&self.pair_pids()),
            helpers_s: usage::cpu_s(&pids(&self.helpers)),
            backend_s: usage::cpu_s(&[self.backend.pid()]),
            own_s: usage::own_cpu_s(),
            machine_s: usage::machine_cpu_s(),
            stolen_s: usage::stolen_cpu_s(),
        }
    }

    fn pair_pids(&self) -> Vec<u32> {
        self.pair.iter().map(Process::pid).collect()
    }

    /// Memory of the server side and of the client side.
    pub fn memory(&self) -> [Memory; 2] {
        [0, 1].map(|side| self.pair.get(side).map(|p| usage::memory(&[p.pid()])).unwrap_or_default())
    }

    pub fn threads(&self) -> usize {
        usage::threads(&self.pair_pids())
    }

    /// Ends everything, the client side first.
    pub fn end(mut self) {
        self.pair.reverse();
        process::end(self.pair);
        process::end(self.helpers);
        process::end(vec![self.backend]);
    }
}

/// Waits until a port accepts; milliseconds since the process was started.
fn accepts(port: u16, process: &mut Process) -> Outcome<f64> {
    wait(process, &format!("nothing accepts on port {port}"), || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    })
}

/// Waits until the backend answers through a port; milliseconds since the process was started.
fn echoes(port: u16, process: &mut Process) -> Outcome<f64> {
    wait(process, &format!("no echo comes through port {port}"), || load::echo_once(port).is_ok())
}

fn wait(process: &mut Process, otherwise: &str, mut ready: impl FnMut() -> bool) -> Outcome<f64> {
    while !ready() {
        process.check()?;
        if process.began.elapsed() > START {
            return Err(Fault::new(format!("{otherwise} after {START:?}: {}", process.tail())));
        }
        std::thread::sleep(TICK);
    }
    Ok(process.began.elapsed().as_secs_f64() * 1000.0)
}
