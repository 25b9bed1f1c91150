//! A server and sidecars, started by the program's own commands.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{DEADLINE, Process, free_port, local, until};

/// A control plane, and where its sidecars keep their files.
pub(super) struct Mesh {
    dir: TempDir,
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    server: Option<Process>,
    /// Where the server answers names, if anywhere.
    names: Option<SocketAddr>,
    /// A dev server takes sidecars without tokens.
    leaf_ttl: Option<&'static str>,
}

/// What a command came to.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

/// A sidecar to be.
#[derive(Clone)]
pub(super) struct Spec {
    pub(super) service: &'static str,
    pub(super) id: &'static str,
    pub(super) app_port: u16,
    pub(super) upstreams: Vec<(&'static str, u16)>,
    pub(super) inbound_port: u16,
    pub(super) admin_port: u16,
    pub(super) flags: Vec<&'static str>,
    /// What a shell does before it becomes the sidecar.
    pub(super) before: Option<String>,
}

/// A running sidecar.
pub(super) struct Sidecar {
    pub(super) process: Process,
    pub(super) admin: SocketAddr,
}

impl Mesh {
    /// `weft server` over a file, with tokens, denying what no intention allows.
    pub(super) async fn start() -> Self {
        Self::with(None, local(0).ip()).await
    }

    /// As [`Self::start`], with sidecars on other hosts: they reach the server at this address.
    pub(super) async fn start_at(ip: IpAddr) -> Self {
        Self::with(None, ip).await
    }

    /// `weft dev`: no tokens, allowing everything, short-lived certificates.
    pub(super) async fn dev(leaf_ttl: &'static str) -> Self {
        Self::with(Some(leaf_ttl), local(0).ip()).await
    }

    /// As [`Self::start`], and the server answers names, at the address given back.
    pub(super) async fn start_with_names() -> (Self, SocketAddr) {
        let mut mesh = Self::start().await;
        mesh.stop_server().await;
        let names = local(free_port());
        mesh.names = Some(names);
        mesh.start_server().await;
        (mesh, names)
    }

    async fn with(leaf_ttl: Option<&'static str>, ip: IpAddr) -> Self {
        let (http, grpc) = (local(free_port()), SocketAddr::new(ip, free_port()));
        let dir = tempfile::tempdir().unwrap();
        let mut mesh = Self { dir, http, grpc, server: None, names: None, leaf_ttl };
        mesh.start_server().await;
        mesh
    }

    pub(super) async fn start_server(&mut self) {
        let (http, grpc) = (self.http.to_string(), self.grpc.to_string());
        let mut args = match self.leaf_ttl {
            Some(ttl) => vec!["dev", "--json", "--leaf-ttl", ttl],
            None => vec!["server", "--node", "central", "--data-dir"],
        };
        let data = self.data_dir().to_string_lossy().into_owned();
        if self.leaf_ttl.is_none() {
            args.push(&data);
        }
        let names = self.names.map_or_else(|| "off".to_owned(), |names| names.to_string());
        args.extend(["--http-addr", &http, "--grpc-addr", &grpc, "--dns-addr", &names]);
        args.extend(["--log-format", "json"]);
        self.server = Some(Process::start("server", &args, &[]));
        let http = self.http;
        until("the server's readiness", async || is_ready(http).await).await;
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn server(&mut self) -> &mut Process {
        self.server.as_mut().unwrap()
    }

    /// The running server, to be killed while the mesh is in use; [`Self::start_server`] starts the next.
    pub(super) fn take_server(&mut self) -> Process {
        self.server.take().unwrap()
    }

    pub(super) async fn kill_server(&mut self) {
        self.server.take().unwrap().kill().await;
    }

    /// Ends the server in good order.
    pub(super) async fn stop_server(&mut self) {
        let mut server = self.server.take().unwrap();
        assert_eq!(server.stop().await, 0);
    }

    /// A client command.
    pub(super) async fn cli(&self, args: &[&str]) -> Ran {
        let http = self.http.to_string();
        ran(args, &[("WEFT_HTTP_ADDR", &http)]).await
    }

    /// A client command that must succeed; its output.
    pub(super) async fn done(&self, args: &[&str]) -> String {
        let ran = self.cli(args).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        ran.out
    }

    /// A file with a fresh token for a service.
    pub(super) async fn token(&self, service: &str) -> PathBuf {
        let token = self.done(&["token", "create", "--service", service]).await;
        self.file(&format!("{}.token", free_port()), &token)
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a sidecar with a token of its own, without waiting for it.
    pub(super) async fn launch(&self, spec: &Spec) -> Process {
        let token = match self.leaf_ttl {
            Some(_) => None,
            None => Some(self.token(spec.service).await),
        };
        self.launch_with(spec, token.as_deref())
    }

    pub(super) fn launch_with(&self, spec: &Spec, token: Option<&Path>) -> Process {
        self.launch_in(spec, token, &[])
    }

    /// As [`Self::launch_with`], with these variables in its environment.
    pub(super) fn launch_in(&self, spec: &Spec, token: Option<&Path>, env: &[(&str, &str)]) -> Process {
        let args = self.arguments(spec, token);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        match &spec.before {
            Some(before) => Process::start_after(spec.id, before, &args),
            None => Process::start(spec.id, &args, env),
        }
    }

    /// Starts a sidecar with a token of its own in a network namespace, without waiting for it.
    pub(super) async fn launch_there(&self, spec: &Spec, namespace: &str, flags: &[&str]) -> Process {
        let token = self.token(spec.service).await;
        let args = self.arguments(spec, Some(&token));
        let args: Vec<_> = args.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Process::start_in(namespace, spec.id, &args)
    }

    fn arguments(&self, spec: &Spec, token: Option<&Path>) -> Vec<String> {
        let config = self.file(&format!("{}.hcl", spec.id), &spec.hcl());
        let (config, server) = (config.to_string_lossy(), self.grpc.to_string());
        let (admin, inbound) = (local(spec.admin_port).to_string(), spec.inbound_port.to_string());
        let token = token.map(|path| path.to_string_lossy().into_owned());
        let mut args = vec!["proxy", "--config", &config, "--server", &server, "--node", "edge"];
        args.extend(["--admin-addr", &admin, "--inbound-port", &inbound, "--log-format", "json"]);
        args.extend(["--workers", "2", "--drain-delay", "300ms"]);
        if let Some(token) = &token {
            args.extend(["--token-file", token]);
        }
        args.extend(&spec.flags);
        args.into_iter().map(str::to_owned).collect()
    }

    /// Starts a sidecar with a token of its own and waits until it is ready.
    pub(super) async fn sidecar(&self, spec: &Spec) -> Sidecar {
        Sidecar::ready(self.launch(spec).await).await
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        get(self.http, path).await
    }

    /// Ids of the instances of a service that are passing.
    pub(super) async fn passing(&self, service: &str) -> Vec<String> {
        let answer = self.get(&format!("/v1/health/service/{service}?passing=1")).await;
        let mut ids: Vec<String> = answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["Service"]["ID"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    }
}

impl Spec {
    pub(super) fn new(service: &'static str, id: &'static str, app_port: u16) -> Self {
        Self {
            service,
            id,
            app_port,
            upstreams: Vec::new(),
            inbound_port: free_port(),
            admin_port: free_port(),
            flags: Vec::new(),
            before: None,
        }
    }

    /// With an upstream at a free port.
    pub(super) fn upstream(mut self, service: &'static str) -> Self {
        self.upstreams.push((service, free_port()));
        self
    }

    pub(super) fn flags(mut self, flags: &[&'static str]) -> Self {
        self.flags.extend(flags);
        self
    }

    /// Where the application reaches its first upstream.
    pub(super) fn door(&self) -> SocketAddr {
        local(self.upstreams[0].1)
    }

    pub(super) fn hcl(&self) -> String {
        let upstream = |(name, port): &(&str, u16)| {
            format!(
                "        upstreams {{\n          destination_name = \"{name}\"\n          local_bind_port = {port}\n        }}\n"
            )
        };
        let upstreams: String = self.upstreams.iter().map(upstream).collect();
        format!(
            "service {{\n  name = \"{}\"\n  id = \"{}\"\n  port = {}\n  connect {{\n    sidecar_service {{\n      proxy {{\n{upstreams}      }}\n    }}\n  }}\n}}\n",
            self.service, self.id, self.app_port
        )
    }
}

impl Sidecar {
    /// Waits until a sidecar is ready.
    pub(super) async fn ready(mut process: Process) -> Self {
        let line = process.said("sidecar listens").await;
        let admin = line["admin"].as_str().unwrap().parse().unwrap();
        process.said("sidecar is ready").await;
        Self { process, admin }
    }

    /// A sample of the metrics: its name and labels as they stand in the text.
    pub(super) async fn metric(&self, sample: &str) -> Option<f64> {
        metric(self.admin, sample).await
    }

    pub(super) async fn kill(self) -> Vec<Value> {
        self.process.kill().await
    }

    /// SIGTERM, and the exit code.
    pub(super) async fn stop(&mut self) -> i32 {
        self.process.signal(Signal::TERM);
        self.process.ended().await
    }
}

/// A command that ends by itself.
pub(super) async fn ran(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut process = Process::start("command", args, env);
    let code = process.ended().await;
    let mut out = process.stdout();
    if !out.is_empty() {
        out.push('\n');
    }
    Ran { code, out, err: process.stderr() }
}

/// An answer over plain HTTP.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Response {
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(super) async fn get(address: SocketAddr, path: &str) -> Response {
    send(address, "GET", path, "").await.unwrap()
}

/// One request on a connection of its own.
pub(super) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Response { status, body: body.to_owned() })
    };
    timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

pub(super) async fn is_ready(address: SocketAddr) -> bool {
    send(address, "GET", "/health/ready", "").await.is_ok_and(|answer| answer.status == 200)
}

/// A sample of the metrics at `address`.
pub(super) async fn metric(address: SocketAddr, sample: &str) -> Option<f64> {
    let text = get(address, "/metrics").await.body;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

/// A second, for what the project promises within one.
pub(super) const ONE_SECOND: Duration = Duration::from_secs(1);
