//! `weft dev`: a server in memory on loopback, and with `--demo` a small live mesh in the same process.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;

use super::AppError;
use super::demo::{Demo, card, story, traffic};
use super::process::{Kind, Signals, hangups, runtime, until_told};
use super::server::{self, DnsSettings, EtcdPort, Server};
use crate::config::AgentKeys;
use crate::model::{Action, CheckDefinition, Definition, NodeName};
use crate::net::socket;

/// What `weft dev` is told.
#[derive(Debug, Clone)]
pub struct Settings {
    pub demo: bool,
    /// Play the story once and end.
    pub check: bool,
    pub json: bool,
    pub traffic: bool,
    pub port_offset: u16,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub dns: Option<SocketAddr>,
    pub etcd: Option<SocketAddr>,
    pub node: NodeName,
    pub datacenter: String,
    pub leaf_ttl: Duration,
    pub default_action: Action,
    /// Ports that are taken move to the next free one.
    pub next_free_ports: bool,
    /// What files declare.
    pub files: Files,
}

/// Files to start with, and what they say.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub paths: Vec<PathBuf>,
    pub definitions: Vec<Definition>,
    pub node_checks: Vec<CheckDefinition>,
    pub agent: AgentKeys,
}

/// Runs until a signal, or until the story is told.
///
/// # Errors
/// When it cannot start, or the story fails.
pub fn run(settings: &Settings) -> Result<(), AppError> {
    let started = Instant::now();
    // Every connection of the demo has four ends in this one process.
    let files = socket::raise_file_limit();
    tracing::debug!(files, "limit of open files");
    runtime(Kind::Server)?.block_on(async {
        // Before the start: a SIGHUP that comes early must not end the process.
        let (mut signals, hangups) = (Signals::new()?, hangups()?);
        let server = Server::start(server_settings(settings)?).await?;
        if settings.demo || settings.check {
            // A mesh in one future is a large one.
            Box::pin(live(settings, server, &mut signals, started)).await
        } else {
            plain(settings, server, &mut signals, hangups, started).await
        }
    })
}

async fn plain(
    settings: &Settings,
    mut server: Server,
    signals: &mut Signals,
    mut hangups: Signal,
    started: Instant,
) -> Result<(), AppError> {
    show(&card::server(&server, started.elapsed()), settings.json)?;
    until_told(&mut server, signals, &mut hangups).await?;
    server.stop().await;
    Ok(())
}

async fn live(
    settings: &Settings,
    mut server: Server,
    signals: &mut Signals,
    started: Instant,
) -> Result<(), AppError> {
    let mut demo = Demo::start(server.bound(), settings.port_offset).await?;
    show(&card::demo(&server, &demo, started.elapsed()), settings.json)?;
    if settings.check {
        let mut out = std::io::stdout();
        let told = tokio::select! {
            told = story::tell(&server, &mut demo, &mut out) => told,
            () = signals.received() => Err(AppError::Story("interrupted".to_owned())),
        };
        demo.stop().await;
        server.stop().await;
        return told;
    }
    let show_live = std::io::stdout().is_terminal() && !settings.json;
    let source = traffic::Source::new(demo.api_address(), settings.traffic, show_live);
    tokio::select! {
        () = source.run() => {}
        () = signals.received() => {}
        fault = server.failed() => return Err(fault),
    }
    demo.stop().await;
    server.stop().await;
    Ok(())
}

fn show(card: &card::Card, json: bool) -> Result<(), AppError> {
    let text = if json { card.json() } else { card.text() };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|source| AppError::Start { what: "the output".to_owned(), source })
}

fn server_settings(settings: &Settings) -> Result<server::Settings, AppError> {
    let asked = [Some(settings.http), Some(settings.grpc), settings.etcd, settings.dns];
    for address in asked.into_iter().flatten() {
        if !address.ip().is_loopback() {
            return Err(AppError::Usage(format!(
                "`weft dev` needs no tokens and therefore listens on loopback only, not on {address}; \
                 use `weft server`"
            )));
        }
    }
    if settings.files.agent.require_token == Some(true) {
        tracing::warn!("`weft dev` asks nobody for a token; what `acl` says counts for `weft server`");
    }
    let names = server::names(&settings.files.agent.dns)?;
    Ok(server::Settings {
        definitions: settings.files.definitions.clone(),
        node_checks: settings.files.node_checks.clone(),
        paths: settings.files.paths.clone(),
        agent: settings.files.agent.clone(),
        data_dir: None,
        ca_key_file: None,
        http: settings.http.into(),
        https: None,
        grpc: settings.grpc,
        bundle: None,
        dns: settings.dns.map(|address| DnsSettings { address, names }),
        etcd: settings.etcd.map(EtcdPort::from),
        node: settings.node.clone(),
        node_address: IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
        datacenter: settings.datacenter.clone(),
        leaf_ttl: settings.leaf_ttl,
        default_action: settings.default_action,
        allowed_hosts: Vec::new(),
        access: server::AccessSettings::default(),
        dev: true,
        next_free_ports: settings.next_free_ports,
    })
}
