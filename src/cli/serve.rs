//! `weft server`: flags win over files, files over defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::Global;
use super::args::{DnsAddr, ServerArgs};
use super::error::{CliError, Exit, Fault};
use super::failure::explain;
use super::processes::{self, listen_address, log, node};
use crate::app::server::{
    AccessSettings, DnsSettings, EtcdPort, EtcdTls, HttpPlace, Https, Settings, names,
};
use crate::app::{AppError, process};
use crate::config::{AgentKeys, Loaded, PortSetting};
use crate::model::Action;
use crate::tls::files::KeyFiles;

const HTTP_PORT: u16 = 8500;
const GRPC_PORT: u16 = 8503;
const DNS_PORT: u16 = 8600;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) fn run(args: &ServerArgs, global: &Global) -> Result<Exit, CliError> {
    let paths: Vec<PathBuf> = args.config_file.iter().chain(&args.config_dir).cloned().collect();
    let loaded = processes::load(&paths).map_err(explain)?;
    let level = loaded.agent.log_level.map_or("info", |level| level.as_str());
    log(&args.log, level)?;
    processes::warn(&loaded.diagnostics);
    process::serve(settings(args, global, loaded, paths)?).map_err(explain)?;
    Ok(Exit::Ok)
}

fn settings(
    args: &ServerArgs,
    global: &Global,
    loaded: Loaded,
    paths: Vec<PathBuf>,
) -> Result<Settings, CliError> {
    let Loaded { definitions, node_checks, agent, .. } = loaded;
    let http = match global.http_addr {
        Some(_) => http_place(global, args)?,
        None => HttpPlace::At(http_address(&agent)?),
    };
    let grpc = match args.grpc_addr {
        Some(address) => address,
        None => address(agent.grpc_address, agent.grpc_tls_port, &agent, GRPC_PORT, "grpc_tls")?,
    };
    let dns = dns_address(args.dns_addr, &agent)?;
    let names = names(&agent.dns).map_err(|fault| explain(fault.into()))?;
    let data_dir = args.data_dir.clone().or_else(|| agent.data_dir.clone()).filter(|_| !args.memory);
    if data_dir.is_none() && !args.memory {
        let usage = "say where to keep the state with --data-dir DIR (or data_dir in a file), \
                     or --memory to lose it at the end";
        return Err(explain(AppError::Usage(usage.to_owned())));
    }
    let access = AccessSettings {
        require_token: args.require_token || agent.require_token.unwrap_or(false),
        token_file: args.api_token_file.clone(),
        audit_log: args.audit_log.clone(),
    };
    let advertised = agent.advertise_addr.map(|address| address.to_string());
    Ok(Settings {
        definitions,
        node_checks,
        paths,
        data_dir,
        ca_key_file: args.ca_key_file.clone(),
        http,
        https: https(args, &agent)?,
        grpc,
        bundle: args.bundle_addr,
        dns: dns.map(|address| DnsSettings { address, names }),
        etcd: etcd(args),
        node: node(args.node.as_ref().or(agent.node_name.as_ref())).map_err(explain)?,
        node_address: args.advertise.clone().or(advertised).unwrap_or_else(|| LOOPBACK.to_string()),
        datacenter: args
            .datacenter
            .clone()
            .or(agent.datacenter.clone())
            .unwrap_or_else(|| "dc1".to_owned()),
        leaf_ttl: args.leaf_ttl,
        default_action: args
            .default_policy
            .map(Action::from)
            .or(agent.default_intention_policy)
            .unwrap_or(Action::Deny),
        agent,
        allowed_hosts: args.allowed_host.clone(),
        access,
        dev: false,
        next_free_ports: false,
    })
}

/// Where `--http-addr` says to listen: an address, or a UNIX socket.
fn http_place(global: &Global, args: &ServerArgs) -> Result<HttpPlace, CliError> {
    let text = global.http_addr.as_deref().unwrap_or_default();
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => {
            Ok(HttpPlace::Socket { path: PathBuf::from(path), mode: args.http_socket_mode })
        }
        Some(_) => {
            let what = format!("`{text}` is not the path of a socket");
            Err(CliError::new(Fault::Usage, what, "--http-addr", "use unix:///PATH, with three slashes"))
        }
        None => listen_address(global).map(HttpPlace::At),
    }
}

/// The HTTPS port, when a flag or a file gives it an address.
fn https(args: &ServerArgs, agent: &AgentKeys) -> Result<Option<Https>, CliError> {
    let address = match (args.https_addr, agent.https_port) {
        (Some(address), _) => address,
        (None, Some(PortSetting::At(port))) => {
            SocketAddr::new(agent.https_address.or(agent.client_addr).unwrap_or(LOOPBACK), port)
        }
        (None, Some(PortSetting::Off) | None) => return Ok(None),
    };
    let file = |flag: &Option<PathBuf>, key: &Option<PathBuf>| flag.as_ref().or(key.as_ref()).cloned();
    let files = (
        file(&args.https_cert_file, &agent.https.cert_file),
        file(&args.https_key_file, &agent.https.key_file),
    );
    let (Some(certificate), Some(key)) = files else {
        let usage = "HTTPS needs a certificate and its key: --https-cert-file and --https-key-file \
                     (or tls.https in a file)";
        return Err(explain(AppError::Usage(usage.to_owned())));
    };
    let from_file = agent.https.ca_file.clone().filter(|_| agent.https.verify_incoming == Some(true));
    let client_ca = args.https_client_ca_file.clone().or(from_file);
    Ok(Some(Https { address, keys: KeyFiles { certificate, key }, client_ca }))
}

/// The port for etcd clients; its three files come together or not at all.
fn etcd(args: &ServerArgs) -> Option<EtcdPort> {
    let files = (&args.etcd_cert_file, &args.etcd_key_file, &args.etcd_client_ca_file);
    let tls = match files {
        (Some(certificate), Some(key), Some(client_ca)) => Some(EtcdTls {
            keys: KeyFiles { certificate: certificate.clone(), key: key.clone() },
            client_ca: client_ca.clone(),
        }),
        _ => None,
    };
    args.etcd_addr.map(|address| EtcdPort { address, tls })
}

/// Where files say that the HTTP API listens.
pub(super) fn http_address(agent: &AgentKeys) -> Result<SocketAddr, CliError> {
    address(agent.http_address, agent.http_port, agent, HTTP_PORT, "http")
}

/// Where names are answered, if anywhere.
pub(super) fn dns_address(
    flag: Option<DnsAddr>,
    agent: &AgentKeys,
) -> Result<Option<SocketAddr>, CliError> {
    match flag {
        Some(DnsAddr::Off) => Ok(None),
        Some(DnsAddr::At(address)) => Ok(Some(address)),
        None if agent.dns_port == Some(PortSetting::Off) => Ok(None),
        None => address(agent.dns_address, agent.dns_port, agent, DNS_PORT, "dns").map(Some),
    }
}

/// Where files say to listen, or the default port on loopback.
fn address(
    own: Option<IpAddr>,
    port: Option<PortSetting>,
    agent: &AgentKeys,
    default: u16,
    key: &str,
) -> Result<SocketAddr, CliError> {
    let ip = own.or(agent.client_addr).unwrap_or(LOOPBACK);
    match port {
        Some(PortSetting::At(port)) => Ok(SocketAddr::new(ip, port)),
        None => Ok(SocketAddr::new(ip, default)),
        Some(PortSetting::Off) => {
            let usage =
                format!("`ports.{key}` turns a port off that the server needs; give it a number");
            Err(explain(AppError::Usage(usage)))
        }
    }
}
