//! The arguments of the commands that are processes: `server`, `proxy`, `run` and `dev`.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::model::{Action, NodeName, ServiceName, duration};

/// `weft server`.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Read every .hcl and .json file of this directory; repeatable
    #[arg(long, value_name = "DIR")]
    pub config_dir: Vec<PathBuf>,
    /// Read this file; repeatable
    #[arg(long, value_name = "FILE")]
    pub config_file: Vec<PathBuf>,
    /// Keep all state in this directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep all state in memory and lose it at the end
    #[arg(long, conflicts_with = "data_dir")]
    pub memory: bool,
    /// Encrypt the private keys of the certificate authority in the data directory with the key in this
    /// file: 32 random bytes in hex or base64, mode 0600. Further lines are older keys
    #[arg(long, value_name = "FILE", conflicts_with = "memory")]
    pub ca_key_file: Option<PathBuf>,
    /// Where sidecars connect, always over TLS 1.3 [default: 127.0.0.1:8503]
    #[arg(long, value_name = "IP:PORT")]
    pub grpc_addr: Option<SocketAddr>,
    /// Where names are answered, over UDP and TCP; `off` for nowhere [default: 127.0.0.1:8600]
    #[arg(long, value_name = "IP:PORT")]
    pub dns_addr: Option<DnsAddr>,
    /// Where etcd clients connect; in plain text on loopback only [default: no such port]
    #[arg(long, value_name = "IP:PORT")]
    pub etcd_addr: Option<SocketAddr>,
    /// Certificate chain of --etcd-addr, in PEM; read again on SIGHUP
    #[arg(long, value_name = "FILE", requires_all = ["etcd_addr", "etcd_key_file", "etcd_client_ca_file"])]
    pub etcd_cert_file: Option<PathBuf>,
    /// Its private key, in PEM, which nobody else may read
    #[arg(long, value_name = "FILE", requires = "etcd_cert_file")]
    pub etcd_key_file: Option<PathBuf>,
    /// Let in etcd clients that have a certificate of this authority, and nobody else
    #[arg(long, value_name = "FILE", requires = "etcd_cert_file")]
    pub etcd_client_ca_file: Option<PathBuf>,
    /// Where other trust domains read the trust bundle, over HTTPS with the server's SVID [default: nowhere]
    #[arg(long, value_name = "IP:PORT")]
    pub bundle_addr: Option<SocketAddr>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,
    /// Name of the datacenter, part of every identity [default: dc1]
    #[arg(long, value_name = "NAME")]
    pub datacenter: Option<String>,
    /// Address under which others reach this node [default: 127.0.0.1]
    #[arg(long, value_name = "IP|HOST")]
    pub advertise: Option<String>,
    /// Life of the certificates of services, 5m to 720h
    #[arg(long, value_name = "DURATION", default_value = "72h", value_parser = leaf_ttl)]
    pub leaf_ttl: Duration,
    /// What applies to connections that no intention matches [default: deny]
    #[arg(long, value_name = "ACTION")]
    pub default_policy: Option<Policy>,
    /// Host name, besides localhost and the bound addresses, by which the HTTP API may be called;
    /// repeatable
    #[arg(long, value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Where the HTTP API is served over TLS 1.3 [default: no such port]
    #[arg(long, value_name = "IP:PORT")]
    pub https_addr: Option<SocketAddr>,
    /// Certificate chain of --https-addr, in PEM; read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub https_cert_file: Option<PathBuf>,
    /// Its private key, in PEM, which nobody else may read
    #[arg(long, value_name = "FILE")]
    pub https_key_file: Option<PathBuf>,
    /// Take clients with a certificate of this authority for operators; without --require-token, every
    /// client needs one
    #[arg(long, value_name = "FILE")]
    pub https_client_ca_file: Option<PathBuf>,
    /// Who may use the UNIX socket of --http-addr, in octal; 0660 lets its group in
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = socket_mode)]
    pub http_socket_mode: u32,
    /// Refuse requests to the HTTP API that have no token with the scope they need
    #[arg(long)]
    pub require_token: bool,
    /// Holds the operator's token of the HTTP API, which may do everything; made when it is not there
    #[arg(long, value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,
    /// Write down every change made over the HTTP API, in lines that nobody can alter unnoticed
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    #[command(flatten)]
    pub log: LogArgs,
}

/// `weft proxy`.
#[derive(Debug, Clone, Args)]
pub struct ProxyCommand {
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Take over from the sidecar that serves at this socket, without losing a connection, and let the
    /// next one take over in turn; SIGHUP starts it. In a directory that only this user can enter
    #[arg(long, value_name = "PATH")]
    pub upgrade_socket: Option<PathBuf>,
}

/// A sidecar: `weft proxy`, and half of `weft run`.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// Read the service from this file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which service of the file, when it has several
    #[arg(long, value_name = "NAME")]
    pub service: Option<ServiceName>,
    /// gRPC address of the control plane; repeatable
    /// [default: WEFT_GRPC_ADDR, or 127.0.0.1:8503]
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    pub server: Vec<String>,
    /// Read the enrolment token from this file, `-` for stdin; or set WEFT_TOKEN
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where other sidecars connect
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Address under which other sidecars reach this one [default: that of --bind]
    #[arg(long, value_name = "IP|HOST")]
    pub advertise: Option<String>,
    /// Port for other sidecars [default: the file's, or a free one of 21000–21255]
    #[arg(long, value_name = "PORT")]
    pub inbound_port: Option<u16>,
    /// Probes and metrics; takes the next free port when this one is taken
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:19000")]
    pub admin_addr: SocketAddr,
    /// Serve the SPIFFE Workload API to the application on this UNIX socket
    #[arg(long, value_name = "PATH")]
    pub workload_socket: Option<PathBuf>,
    /// User who gets the application's identity there; repeatable [default: who runs the sidecar]
    #[arg(long, value_name = "UID", requires = "workload_socket")]
    pub workload_uid: Vec<u32>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,
    /// How long to look for the control plane before giving up at start
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub start_timeout: Duration,
    /// How long to go on accepting after the shutdown was announced
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::parse)]
    pub drain_delay: Duration,
    /// How long open connections may take to finish
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub drain_grace: Duration,
    /// Threads that move data [default: one for each core]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    #[command(flatten)]
    pub log: LogArgs,
}

/// `weft run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// Name of the application's service, when there is no file
    #[arg(long, value_name = "NAME", required_unless_present = "config")]
    pub name: Option<ServiceName>,
    /// Port the application listens on
    #[arg(long, value_name = "PORT", required_unless_present = "config")]
    pub port: Option<u16>,
    /// Reach service NAME at 127.0.0.1:PORT; repeatable
    #[arg(long, value_name = "NAME:PORT", value_parser = upstream)]
    pub upstream: Vec<UpstreamArg>,
    /// Check the application's health at this address
    #[arg(long, value_name = "URL")]
    pub check: Option<String>,
    /// The application and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `weft dev`.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Run a small live mesh in the same process
    #[arg(long)]
    pub demo: bool,
    /// Prove that the mesh works, then end: 0 when it does
    #[arg(long)]
    pub check: bool,
    /// Say what runs as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Make no traffic in the demo
    #[arg(long, requires = "demo")]
    pub no_traffic: bool,
    /// Add this to every default port
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port_offset: u16,
    /// Where sidecars connect [default: 127.0.0.1:8503 and the offset]
    #[arg(long, value_name = "IP:PORT")]
    pub grpc_addr: Option<SocketAddr>,
    /// Where names are answered, over UDP and TCP; `off` for nowhere [default: 127.0.0.1:8600 and the
    /// offset]
    #[arg(long, value_name = "IP:PORT")]
    pub dns_addr: Option<DnsAddr>,
    /// Where etcd clients connect [default: 127.0.0.1:2379 and the offset; nowhere with --fixed-ports]
    #[arg(long, value_name = "IP:PORT")]
    pub etcd_addr: Option<SocketAddr>,
    /// Life of the certificates of services, 10s to 720h
    #[arg(long, value_name = "DURATION", default_value = "72h", value_parser = dev_leaf_ttl)]
    pub leaf_ttl: Duration,
    /// What applies to connections that no intention matches [default: allow]
    #[arg(long, value_name = "ACTION")]
    pub default_policy: Option<Policy>,
    /// Read every .hcl and .json file of this directory; repeatable
    #[arg(long, value_name = "DIR")]
    pub config_dir: Vec<PathBuf>,
    /// Read this file; repeatable
    #[arg(long, value_name = "FILE")]
    pub config_file: Vec<PathBuf>,
    /// Name of this node [default: dev]
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,
    /// Name of the datacenter, part of every identity [default: dc1]
    #[arg(long, value_name = "NAME")]
    pub datacenter: Option<String>,
    /// Fail when a port is taken, instead of taking the next free one
    #[arg(long)]
    pub fixed_ports: bool,
    #[command(flatten)]
    pub log: LogArgs,
}

/// How to log.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// error, warn, info, debug or trace; per module: info,weft::proxy=debug
    /// [default: info; warn for `run` and `dev`]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// [default: text on a terminal, otherwise json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// An action as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    Allow,
    Deny,
    /// Allow, and log what would be denied
    Audit,
}

impl From<Policy> for Action {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Allow => Self::Allow,
            Policy::Deny => Self::Deny,
            Policy::Audit => Self::Audit,
        }
    }
}

/// Where DNS is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsAddr {
    Off,
    At(SocketAddr),
}

impl FromStr for DnsAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| "write it as IP:PORT, or `off`"),
        }
    }
}

/// A service and the local port that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamArg {
    pub service: ServiceName,
    pub port: u16,
}

/// Shortest and longest life of a leaf: shorter ones would renew without pause, longer ones outlive
/// any reason to trust them.
const LEAF_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5 * 60)..=Duration::from_secs(30 * 24 * 60 * 60);

/// In development, short ones show the renewal at work.
const SHORTEST_DEV_LEAF_TTL: Duration = Duration::from_secs(10);

fn leaf_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration::parse(text).map_err(|fault| fault.to_string())?;
    if LEAF_TTL.contains(&ttl) { Ok(ttl) } else { Err("it must be between 5m and 720h".to_owned()) }
}

fn dev_leaf_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration::parse(text).map_err(|fault| fault.to_string())?;
    let allowed = SHORTEST_DEV_LEAF_TTL..=*LEAF_TTL.end();
    if allowed.contains(&ttl) { Ok(ttl) } else { Err("it must be between 10s and 720h".to_owned()) }
}

fn socket_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("write it in octal, such as 0600 or 0660".to_owned()),
    }
}

fn upstream(text: &str) -> Result<UpstreamArg, String> {
    let (service, port) = text.rsplit_once(':').ok_or("write it as NAME:PORT")?;
    let service = ServiceName::new(service).map_err(|fault| fault.to_string())?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or("the port must be a number between 1 and 65535")?;
    Ok(UpstreamArg { service, port })
}

pub(super) fn host_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("write it as HOST:PORT")?;
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_ipv6 {
        return Err("write it as HOST:PORT, or [ADDRESS]:PORT for IPv6".to_owned());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err("the port must be a number between 1 and 65535".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_table() {
        assert_eq!(
            upstream("db:5432").unwrap(),
            UpstreamArg { service: ServiceName::new("db").unwrap(), port: 5432 }
        );
        for bad in ["db", "db:0", "db:x", ":1", "a b:1"] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
        for good in ["h:1", "127.0.0.1:8503", "[::1]:8503"] {
            assert_eq!(host_port(good).as_deref(), Ok(good));
        }
        for bad in ["h", "h:", ":1", "::1:1", "h:0", "h:70000"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        assert_eq!("off".parse(), Ok(DnsAddr::Off));
        assert_eq!("[::1]:53".parse(), Ok(DnsAddr::At(([0, 0, 0, 0, 0, 0, 0, 1], 53).into())));
        assert!("8600".parse::<DnsAddr>().is_err());
        assert!(leaf_ttl("5m").is_ok() && leaf_ttl("720h").is_ok());
        assert!(leaf_ttl("4m59s").is_err() && leaf_ttl("721h").is_err() && leaf_ttl("72").is_err());
    }
}
