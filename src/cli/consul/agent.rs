//! `consul agent`: `-dev` is `weft dev`, all else `weft server`.
//!
//! Flags that Consul knows and that have no effect here are named with the reason.

use std::ffi::OsString;
use std::net::IpAddr;

use super::flags::{Takes, parse};
use super::{FAILURE, Order, Wish};
use crate::cli::access::Flags;

const HTTP_PORT: u16 = 8500;
const DNS_PORT: u16 = 8600;
const GRPC_PORT: u16 = 8503;
const LOOPBACK: &str = "127.0.0.1";

/// The flags that have an effect.
const KNOWN: &[(&str, Takes)] = &[
    ("advertise", Takes::Value),
    ("bind", Takes::Value),
    ("client", Takes::Value),
    ("config-dir", Takes::Value),
    ("config-file", Takes::Value),
    ("data-dir", Takes::Value),
    ("datacenter", Takes::Value),
    ("dev", Takes::Nothing),
    ("dns-port", Takes::Value),
    ("grpc-tls-port", Takes::Value),
    ("http-port", Takes::Value),
    ("log-json", Takes::Nothing),
    ("log-level", Takes::Value),
    ("node", Takes::Value),
];

const GOSSIP: &str = "there is no gossip and no Raft; servers meet in the store";
const FILES: &str = "set it in a file";
const LOG: &str = "set it where the log is collected";

/// The flags that have none, and why.
const WITHOUT_EFFECT: &[(&str, Takes, &str)] = &[
    ("advertise-wan", Takes::Value, GOSSIP),
    ("allow-write-http-from", Takes::Value, "bind the API to an address that only they can reach"),
    ("alt-domain", Takes::Value, FILES),
    ("auto-reload-config", Takes::Nothing, "reload with SIGHUP or `consul reload`"),
    ("bootstrap", Takes::Nothing, GOSSIP),
    ("bootstrap-expect", Takes::Value, GOSSIP),
    ("check_output_max_size", Takes::Value, "the output of each check has a limit of its own"),
    ("config-format", Takes::Value, "a file's name ends in .hcl or .json"),
    ("default-query-time", Takes::Value, "it is 5 minutes"),
    ("disable-host-node-id", Takes::Nothing, "ids of nodes are made from their names"),
    ("disable-keyring-file", Takes::Nothing, GOSSIP),
    ("domain", Takes::Value, FILES),
    ("enable-local-script-checks", Takes::Nothing, FILES),
    ("enable-script-checks", Takes::Nothing, FILES),
    ("encrypt", Takes::Value, GOSSIP),
    ("grpc-port", Takes::Value, "gRPC is always TLS; use -grpc-tls-port"),
    ("hcl", Takes::Value, "write it to a file"),
    ("https-port", Takes::Value, "set `ports.https` and `tls.https` in a file"),
    ("join", Takes::Value, GOSSIP),
    ("join-wan", Takes::Value, GOSSIP),
    ("log-file", Takes::Value, LOG),
    ("log-rotate-bytes", Takes::Value, LOG),
    ("log-rotate-duration", Takes::Value, LOG),
    ("log-rotate-max-files", Takes::Value, LOG),
    ("max-query-time", Takes::Value, "it is 10 minutes"),
    ("node-id", Takes::Value, "ids of nodes are made from their names"),
    ("node-meta", Takes::Value, "nodes of servers have no metadata"),
    ("non-voting-server", Takes::Nothing, GOSSIP),
    ("pid-file", Takes::Value, "let the supervisor keep it"),
    ("primary-gateway", Takes::Value, "there is one datacenter"),
    ("protocol", Takes::Value, GOSSIP),
    ("raft-protocol", Takes::Value, GOSSIP),
    ("read-replica", Takes::Nothing, GOSSIP),
    ("recursor", Takes::Value, FILES),
    ("rejoin", Takes::Nothing, GOSSIP),
    ("retry-interval", Takes::Value, GOSSIP),
    ("retry-interval-wan", Takes::Value, GOSSIP),
    ("retry-join", Takes::Value, GOSSIP),
    ("retry-join-wan", Takes::Value, GOSSIP),
    ("retry-max", Takes::Value, GOSSIP),
    ("retry-max-wan", Takes::Value, GOSSIP),
    ("segment", Takes::Value, "there are no network segments"),
    ("serf-lan-allowed-cidrs", Takes::Value, GOSSIP),
    ("serf-lan-bind", Takes::Value, GOSSIP),
    ("serf-lan-port", Takes::Value, GOSSIP),
    ("serf-wan-allowed-cidrs", Takes::Value, GOSSIP),
    ("serf-wan-bind", Takes::Value, GOSSIP),
    ("serf-wan-port", Takes::Value, GOSSIP),
    ("server", Takes::Nothing, "every agent is a server"),
    ("server-port", Takes::Value, GOSSIP),
    ("syslog", Takes::Nothing, LOG),
    ("ui", Takes::Nothing, "there is no user interface"),
    ("ui-content-path", Takes::Value, "there is no user interface"),
    ("ui-dir", Takes::Value, "there is no user interface"),
];

/// Flags whose meaning is so much what happens anyway that a note would be noise.
const QUIET: [&str; 3] = ["server", "bootstrap", "bootstrap-expect"];

pub(super) fn help() -> String {
    let line = |(name, takes): &(&str, Takes)| match takes {
        Takes::Nothing => format!("  -{name}\n"),
        Takes::Value => format!("  -{name}=<value>\n"),
    };
    let options: String = KNOWN.iter().map(line).collect();
    format!(
        "Usage: consul agent [options]\n\n  Runs a server until it is told to end.\n\n{options}\n  \
         All other flags of Consul are accepted and have no effect."
    )
}

/// What the flags that have an effect say.
#[derive(Default)]
struct Agent {
    dev: bool,
    client: Option<String>,
    bind: Option<String>,
    http_port: Option<String>,
    dns_port: Option<String>,
    grpc_port: Option<String>,
    advertise: Option<String>,
    data_dir: Option<String>,
    /// Taken over as they are.
    others: Vec<OsString>,
    notes: Vec<String>,
}

pub(super) fn translate(args: &[OsString]) -> Wish {
    match order(args) {
        Ok(order) => Wish::Run(Box::new(order)),
        Err(fault) => Wish::Say { text: fault, exit: FAILURE },
    }
}

fn order(args: &[OsString]) -> Result<Order, String> {
    let known = |name: &str| {
        let effective = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, takes)| *takes);
        let without = || WITHOUT_EFFECT.iter().find(|(known, ..)| *known == name);
        effective.or_else(|| without().map(|(_, takes, _)| *takes))
    };
    let parsed = parse(args, &known)?;
    if let Some(unexpected) = parsed.rest.first() {
        return Err(format!("Unexpected extra arguments: {}", unexpected.to_string_lossy()));
    }
    let mut agent = Agent::default();
    for (name, value) in parsed.flags {
        agent.take(name, value);
    }
    agent.order()
}

impl Agent {
    fn take(&mut self, name: &str, value: &str) {
        let given = || Some(value.to_owned());
        let other = |flag: &str| OsString::from(format!("--{flag}={value}"));
        match name {
            "dev" => self.dev = value == "true",
            "client" => self.client = given(),
            "bind" => self.bind = given(),
            "http-port" => self.http_port = given(),
            "dns-port" => self.dns_port = given(),
            "grpc-tls-port" => self.grpc_port = given(),
            "advertise" => self.advertise = given(),
            "data-dir" => self.data_dir = given(),
            "config-dir" | "config-file" | "datacenter" | "node" => self.others.push(other(name)),
            "log-json" if value == "true" => self.others.push("--log-format=json".into()),
            "log-json" => {}
            "log-level" => {
                let level = value.to_ascii_lowercase();
                let level = if level == "err" { "error" } else { &level };
                self.others.push(format!("--log-level={level}").into());
            }
            _ => {
                let without = WITHOUT_EFFECT.iter().find(|(known, ..)| *known == name);
                if let Some((name, _, reason)) = without.filter(|(name, ..)| !QUIET.contains(name)) {
                    self.notes.push(format!("note: -{name} has no effect: {reason}"));
                }
            }
        }
    }

    fn order(mut self) -> Result<Order, String> {
        let client = self.client_address()?;
        let mut argv: Vec<OsString> = vec!["weft".into()];
        argv.push(if self.dev { "dev" } else { "server" }.into());
        if self.client.is_some() || self.http_port.is_some() {
            let port = port("http-port", self.http_port.as_deref(), HTTP_PORT)?
                .ok_or("-http-port cannot turn the HTTP API off; give it a number")?;
            argv.push(format!("--http-addr={}", join(&client, port)).into());
        }
        if self.client.is_some() || self.dns_port.is_some() {
            argv.push(match port("dns-port", self.dns_port.as_deref(), DNS_PORT)? {
                Some(port) => format!("--dns-addr={}", join(&client, port)).into(),
                None => "--dns-addr=off".into(),
            });
        }
        if self.bind.is_some() || self.grpc_port.is_some() {
            let bind = address("bind", self.bind.as_deref().unwrap_or(LOOPBACK))?;
            let port = port("grpc-tls-port", self.grpc_port.as_deref(), GRPC_PORT)?
                .ok_or("-grpc-tls-port cannot turn gRPC off; sidecars need it")?;
            argv.push(format!("--grpc-addr={}", join(&bind, port)).into());
            let is_one = bind.parse().is_ok_and(|ip: IpAddr| !ip.is_unspecified());
            self.advertise = self.advertise.or(Some(bind).filter(|_| is_one));
        }
        argv.append(&mut self.others);
        if self.dev {
            argv.push("--fixed-ports".into());
            if self.data_dir.is_some() {
                let note = "note: -data-dir has no effect: with -dev all state is in memory";
                self.notes.push(note.to_owned());
            }
        } else {
            let [data_dir, advertise] = [("data-dir", self.data_dir), ("advertise", self.advertise)]
                .map(|(name, value)| value.map(|value| OsString::from(format!("--{name}={value}"))));
            argv.extend(data_dir.into_iter().chain(advertise));
        }
        let flags = Flags::default();
        Ok(Order { argv, flags, notes: self.notes, failure: FAILURE, help: help() })
    }

    /// Consul takes several, separated by spaces.
    fn client_address(&mut self) -> Result<String, String> {
        let Some(client) = &self.client else { return Ok(LOOPBACK.to_owned()) };
        let mut all = client.split_whitespace();
        let first = address("client", all.next().unwrap_or_default())?;
        if let Some(second) = all.next() {
            self.notes.push(format!("note: -client listens on {first} alone, not on {second} as well"));
        }
        Ok(first)
    }
}

fn address(flag: &str, text: &str) -> Result<String, String> {
    match text {
        "localhost" => Ok(LOOPBACK.to_owned()),
        _ => match text.parse::<IpAddr>() {
            Ok(ip) => Ok(ip.to_string()),
            Err(_) => Err(format!("-{flag}: {text:?} is not an IP address (templates are not read)")),
        },
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The port, or `None` when it is turned off.
fn port(flag: &str, text: Option<&str>, default: u16) -> Result<Option<u16>, String> {
    match text {
        None => Ok(Some(default)),
        Some("-1") => Ok(None),
        Some(text) => {
            let port = text.parse().map(Some);
            port.map_err(|_| format!("invalid value {text:?} for flag -{flag}: not a port"))
        }
    }
}
