//! The commands that run for long: their arguments become settings, `app` does the work, and what
//! went wrong becomes three lines.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::variable;
use super::args::{DevArgs, LogArgs, LogFormat, ProxyArgs, ProxyCommand, RunArgs, host_port};
use super::error::{CliError, Exit, Fault};
use super::failure::explain;
use super::{Global, Output, serve};
use crate::app::run::TOKEN_VARIABLE;
use crate::app::upgrade::Predecessor;
use crate::app::{AppError, dev as app_dev, proxy as app_proxy, run as app_run, sidecar};
use crate::config::{self, Diagnostic, Loaded};
use crate::model::service::{DEFAULT_CHECK_TIMEOUT, Upstream};
use crate::model::{Action, CheckDefinition, CheckKind, CheckStatus, Definition, NodeName, ServiceName};
use crate::telemetry::logging::{self, Format};
use crate::workload;

const DEFAULT_HTTP_PORT: u16 = 8500;
const DEFAULT_GRPC_PORT: u16 = 8503;
const DEFAULT_DNS_PORT: u16 = 8600;
const DEFAULT_ETCD_PORT: u16 = 2379;
const DEV_NODE: &str = "dev";
const DC: &str = "dc1";
/// Longest token file that is read; a token has about 150 bytes.
const MAX_TOKEN_BYTES: u64 = 4096;
/// How often `weft run --check` looks at the application.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// `weft proxy`.
pub(super) fn proxy(command: &ProxyCommand, _global: &Global) -> Result<Exit, CliError> {
    let args = &command.proxy;
    log(&args.log, "info")?;
    let Some(file) = &args.config else {
        let usage = "`weft proxy` needs the service it stands for: --config FILE".to_owned();
        return Err(explain(AppError::Usage(usage)));
    };
    let definition = choose(file, args.service.as_ref()).map_err(explain)?;
    let found = command.upgrade_socket.as_deref().map(Predecessor::find).transpose();
    let predecessor = found.map_err(|fault| explain(fault.into()))?.flatten();
    // A successor has its predecessor's certificate; the token was good once.
    let token = match predecessor {
        Some(_) => None,
        None => token(args.token_file.as_deref()).map_err(explain)?,
    };
    let settings = app_proxy::Settings {
        sidecar: sidecar_settings(args, definition, token)?,
        start_timeout: args.start_timeout,
        upgrade_socket: command.upgrade_socket.clone(),
        predecessor,
    };
    app_proxy::run(settings).map_err(explain)?;
    Ok(Exit::Ok)
}

/// `weft run`: the exit code is the application's.
pub(super) fn run(args: &RunArgs) -> Result<u8, CliError> {
    log(&args.proxy.log, "warn")?;
    let mut definition = match (&args.proxy.config, &args.name, args.port) {
        (Some(file), _, _) => choose(file, args.proxy.service.as_ref()).map_err(explain)?,
        (None, Some(name), Some(port)) => named(name, port).map_err(explain)?,
        (None, _, _) => {
            let usage = "`weft run` needs --config FILE, or --name and --port".to_owned();
            return Err(explain(AppError::Usage(usage)));
        }
    };
    add_to(&mut definition, args);
    let token = token(args.proxy.token_file.as_deref()).map_err(explain)?;
    let settings = sidecar_settings(&args.proxy, definition, token)?;
    app_run::run(settings, args.proxy.start_timeout, &args.command).map_err(explain)
}

/// `weft dev`: `--http-addr` is where the HTTP API listens; flags win over files.
pub(super) fn dev(args: &DevArgs, global: &Global) -> Result<Exit, CliError> {
    let paths: Vec<PathBuf> = args.config_file.iter().chain(&args.config_dir).cloned().collect();
    let Loaded { definitions, node_checks, agent, diagnostics } = load(&paths).map_err(explain)?;
    // The terminal belongs to the card and its live line.
    log(&args.log, "warn,access=warn")?;
    warn(&diagnostics);
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port.saturating_add(args.port_offset)));
    let http = match (&global.http_addr, agent.http_port.is_some() || agent.client_addr.is_some()) {
        (Some(_), _) => listen_address(global)?,
        (None, true) => serve::http_address(&agent)?,
        (None, false) => loopback(DEFAULT_HTTP_PORT),
    };
    let files_place_dns = agent.dns_port.is_some() || agent.dns_address.is_some();
    let dns = match (args.dns_addr, files_place_dns || agent.client_addr.is_some()) {
        (None, false) => Some(loopback(DEFAULT_DNS_PORT)),
        (flag, _) => serve::dns_address(flag, &agent)?,
    };
    // Who wants certain ports wants no others.
    let etcd = || (!args.fixed_ports).then(|| loopback(DEFAULT_ETCD_PORT));
    let etcd = args.etcd_addr.or_else(etcd);
    let name = args.node.as_ref().or(agent.node_name.as_ref()).cloned();
    let node = name.map_or_else(|| NodeName::new(DEV_NODE), Ok);
    let action = args.default_policy.map(Action::from).or(agent.default_intention_policy);
    let settings = app_dev::Settings {
        demo: args.demo,
        check: args.check,
        json: args.json,
        traffic: !args.no_traffic,
        port_offset: args.port_offset,
        http,
        grpc: args.grpc_addr.unwrap_or_else(|| loopback(DEFAULT_GRPC_PORT)),
        dns,
        etcd,
        node: node.map_err(|fault| explain(fault.into()))?,
        datacenter: args
            .datacenter
            .clone()
            .or(agent.datacenter.clone())
            .unwrap_or_else(|| DC.to_owned()),
        leaf_ttl: args.leaf_ttl,
        default_action: action.unwrap_or(Action::Allow),
        next_free_ports: !args.fixed_ports,
        files: app_dev::Files { paths, definitions, node_checks, agent },
    };
    app_dev::run(&settings).map_err(explain)?;
    Ok(Exit::Ok)
}

/// `weft validate`.
pub(super) fn validate(
    paths: &[PathBuf],
    output: Output,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    super::validate::run(paths, output == Output::Json, out, err)
}

pub(super) fn log(args: &LogArgs, default: &str) -> Result<(), CliError> {
    let format = match args.log_format {
        Some(LogFormat::Text) => Format::Text,
        Some(LogFormat::Json) => Format::Json,
        None if std::io::stderr().is_terminal() => Format::Text,
        None => Format::Json,
    };
    logging::init(args.log_level.as_deref().unwrap_or(default), format).map_err(|fault| {
        let next = "use error, warn, info, debug or trace, or module=level pairs";
        CliError::new(Fault::Usage, "the log level cannot be used", fault.to_string(), next)
    })
}

/// Where `--http-addr` says to listen.
pub(super) fn listen_address(global: &Global) -> Result<SocketAddr, CliError> {
    let text = global.http_addr.as_deref().unwrap_or_default();
    text.parse().map_err(|_| {
        let what = format!("`{text}` is not an address to listen on");
        CliError::new(
            Fault::Usage,
            what,
            "--http-addr",
            "use IP:PORT, such as 127.0.0.1:8500; a server also takes unix:///PATH",
        )
    })
}

pub(super) fn node(given: Option<&NodeName>) -> Result<NodeName, AppError> {
    match given {
        Some(name) => Ok(name.clone()),
        None => Ok(NodeName::new(rustix::system::uname().nodename().to_string_lossy())?),
    }
}

/// What files say, or every fault in them.
pub(super) fn load(paths: &[PathBuf]) -> Result<Loaded, AppError> {
    if paths.is_empty() {
        return Ok(Loaded::default());
    }
    let loaded = config::load(paths);
    if loaded.is_valid() { Ok(loaded) } else { Err(AppError::Config(loaded.diagnostics)) }
}

pub(super) fn warn(diagnostics: &[Diagnostic]) {
    for warning in diagnostics {
        tracing::warn!(file = %warning.file, line = warning.line, "{}", warning.message);
    }
}

/// The one service of a file, or the named one.
fn choose(file: &Path, name: Option<&ServiceName>) -> Result<Definition, AppError> {
    let loaded = load(&[file.to_owned()])?;
    warn(&loaded.diagnostics);
    let mut definitions = loaded.definitions;
    if let Some(name) = name {
        definitions.retain(|definition| definition.name == *name);
    }
    let names: Vec<&str> = definitions.iter().map(|definition| definition.name.as_str()).collect();
    let (file, known) = (file.display(), names.join(", "));
    match (definitions.len(), name) {
        (1, _) => Ok(definitions.swap_remove(0)),
        (0, None) => Err(AppError::Usage(format!("{file} declares no service"))),
        (0, Some(name)) => Err(AppError::Usage(format!("{file} declares no service {name}"))),
        (_, Some(name)) => Err(AppError::Usage(format!("{file} declares several instances of {name}"))),
        (_, None) => Err(AppError::Usage(format!("{file} declares {known}; choose one with --service"))),
    }
}

fn named(name: &ServiceName, port: u16) -> Result<Definition, AppError> {
    Definition::new(name.clone(), port).map_err(AppError::Name)
}

/// What the flags of `weft run` add to a definition.
fn add_to(definition: &mut Definition, args: &RunArgs) {
    if let Some(url) = &args.check {
        definition.checks.push(http_check(definition, url));
    }
    let sidecar = definition.sidecar.get_or_insert_default();
    for upstream in &args.upstream {
        sidecar.upstreams.push(Upstream {
            destination: upstream.service.clone(),
            local_bind_address: String::new(),
            local_bind_port: upstream.port,
            datacenter: String::new(),
            config: BTreeMap::new(),
        });
    }
}

fn http_check(definition: &Definition, url: &str) -> CheckDefinition {
    // Consul's ids: bare for a single check, numbered when there are several.
    let id = match definition.checks.len() {
        0 => format!("service:{}", definition.id),
        others => format!("service:{}:{}", definition.id, others + 1),
    };
    CheckDefinition {
        id,
        name: format!("Service '{}' check", definition.name),
        notes: String::new(),
        kind: CheckKind::Http {
            url: url.to_owned(),
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
            tls_skip_verify: false,
        },
        interval: CHECK_INTERVAL,
        timeout: DEFAULT_CHECK_TIMEOUT,
        initial: CheckStatus::Critical,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }
}

fn sidecar_settings(
    args: &ProxyArgs,
    definition: Definition,
    token: Option<String>,
) -> Result<sidecar::Settings, CliError> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(sidecar::Settings {
        definition,
        servers: servers(&args.server)?,
        token,
        node: node(args.node.as_ref()).map_err(explain)?,
        bind: args.bind,
        advertise: args.advertise.clone(),
        inbound_port: args.inbound_port,
        admin: Some(args.admin_addr),
        workload: args
            .workload_socket
            .clone()
            .map(|path| workload::Settings { path, uids: args.workload_uid.clone() }),
        workers: args.workers.map_or_else(cores, std::num::NonZero::get),
        next_free_ports: false,
        drain_delay: args.drain_delay,
        drain_grace: args.drain_grace,
    })
}

/// Where the control plane is: flags, else the environment, else this machine.
fn servers(given: &[String]) -> Result<Vec<String>, CliError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let env = |name: &str| std::env::var(name).ok();
    let Some((text, name)) = variable(&env, "GRPC_ADDR") else {
        return Ok(vec![format!("127.0.0.1:{DEFAULT_GRPC_PORT}")]);
    };
    let address = text.strip_prefix("https://").unwrap_or(&text);
    host_port(address).map(|address| vec![address]).map_err(|why| {
        let next = "name the gRPC port of a weft server, which always speaks TLS: HOST:PORT";
        CliError::new(Fault::Usage, format!("`{text}` is not its address: {why}"), name, next)
    })
}

/// The enrolment token: from a file, stdin or the environment, never from the command line, which
/// every user of the machine can read.
fn token(file: Option<&Path>) -> Result<Option<String>, AppError> {
    let text = match file {
        None => match std::env::var(TOKEN_VARIABLE) {
            Ok(token) => token,
            Err(_unset) => return Ok(None),
        },
        Some(path) => read_token(path).map_err(|source| AppError::File {
            action: "read the token file",
            path: path.to_owned(),
            source,
        })?,
    };
    let token = text.trim();
    if token.is_empty() {
        let place = file.map_or_else(|| TOKEN_VARIABLE.to_owned(), |path| path.display().to_string());
        return Err(AppError::Usage(format!("{place} holds no token")));
    }
    Ok(Some(token.to_owned()))
}

fn read_token(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}
