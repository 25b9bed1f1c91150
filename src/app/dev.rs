//! `weft dev`: a server in memory on loopback, and with `--demo` a small live mesh in the same process.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::AppError;
use super::demo::{Demo, card, story, traffic};
use super::process::{Kind, Signals, runtime};
use super::server::{self, Server};
use crate::config::AgentKeys;
use crate::model::{Action, NodeName};
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
    pub leaf_ttl: Duration,
    pub default_action: Action,
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
        let mut signals = Signals::new()?;
        let server = Server::start(server_settings(settings)?).await?;
        if settings.demo || settings.check {
            live(settings, server, &mut signals, started).await
        } else {
            plain(settings, server, &mut signals, started).await
        }
    })
}

async fn plain(
    settings: &Settings,
    mut server: Server,
    signals: &mut Signals,
    started: Instant,
) -> Result<(), AppError> {
    show(&card::server(&server, started.elapsed()), settings.json)?;
    let left = server.asked_to_leave();
    tokio::select! {
        () = signals.received() => {}
        () = left => {}
        fault = server.failed() => return Err(fault),
    }
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
    for address in [settings.http, settings.grpc] {
        if !address.ip().is_loopback() {
            return Err(AppError::Usage(format!(
                "`weft dev` needs no tokens and therefore listens on loopback only, not on {address}; \
                 use `weft server`"
            )));
        }
    }
    Ok(server::Settings {
        definitions: Vec::new(),
        node_checks: Vec::new(),
        paths: Vec::new(),
        agent: AgentKeys::default(),
        data_dir: None,
        http: settings.http,
        grpc: settings.grpc,
        node: NodeName::new("dev")?,
        node_address: IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
        datacenter: "dc1".to_owned(),
        leaf_ttl: settings.leaf_ttl,
        default_action: settings.default_action,
        allowed_hosts: Vec::new(),
        dev: true,
        next_free_ports: true,
    })
}
