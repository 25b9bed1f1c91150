//! Programs that people point at the DNS port: HAProxy's `server-template`, nginx's `resolver`, `dig`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use weft::app::server::Server;
use weft::catalog::{Owner, Unlisted};
use weft::model::{Definition, ServiceName};

use super::port::server;
use crate::pace::look_again;
use crate::{mesh, programs};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `dig` and gives what it prints.
pub(crate) async fn dig(dns: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", dns.ip())).arg("-p").arg(dns.port().to_string()).args(args);
    let ran = tokio::time::timeout(PATIENCE, command.output()).await.expect("dig does not end");
    let output = ran.unwrap_or_else(|error| panic!("dig, of bind9-dnsutils: {error}"));
    String::from_utf8(output.stdout).unwrap()
}

/// An application that says its name over HTTP.
pub(super) async fn app(address: SocketAddr, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let _read = stream.read(&mut asked).await;
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
                let answer = format!("{head}{}\r\n\r\n{name}", name.len());
                let _written = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// A port that nobody has at this moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(program: &str, args: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.kill_on_drop(true).spawn();
    child.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// The body of an answer, or the status without one; `None` when nobody listens.
async fn get(front: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(front).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.starts_with("HTTP/1.1 200") {
        Some(body.to_owned())
    } else {
        head.get(9..12).map(str::to_owned)
    }
}

/// Waits until exactly these bodies come, each at least once in twenty requests.
async fn until_served(front: SocketAddr, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let started = Instant::now();
    loop {
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            seen.extend(get(front).await);
        }
        if seen == wanted {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{seen:?} instead of {wanted:?}");
        look_again().await;
    }
}

async fn register(server: &Server, service: &str, id: &str, at: SocketAddr) {
    let mut definition = Definition::new(ServiceName::new(service).unwrap(), at.port()).unwrap();
    definition.id = id.parse().unwrap();
    definition.address = at.ip().to_string();
    let records = definition.expand(&mesh::node(), 0).unwrap();
    server.catalog().register(records, Owner::Permanent, Unlisted::Remove).await.unwrap();
}

async fn deregister(server: &Server, id: &str) {
    server.catalog().deregister(&mesh::node(), &id.parse().unwrap()).await.unwrap();
}

fn write(dir: &Path, file: &str, text: &str) -> String {
    let path = dir.join(file);
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[tokio::test]
async fn haproxy_server_template_follows_srv_records() {
    if !programs::present(&["haproxy"]) {
        return;
    }
    let (server, dns) = server().await;
    let any = "127.0.0.1:0".parse().unwrap();
    for (id, name) in [("a", "first"), ("b", "second"), ("c", "third")] {
        register(&server, "web", id, app(any, name).await).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let front: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let config = format!(
        "resolvers weft\n  nameserver weft {dns}\n  accepted_payload_size 8192\n  \
         timeout resolve 100ms\n  timeout retry 100ms\n  hold valid 100ms\n  hold nx 100ms\n  hold obsolete 0s\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\n\
         frontend front\n  bind {front}\n  default_backend web\n\
         backend web\n  balance roundrobin\n  \
         server-template web 5 _web._tcp.service.consul resolvers weft resolve-prefer ipv4 init-addr none\n"
    );
    let _haproxy = start("haproxy", &["-db", "-f", &write(dir.path(), "haproxy.cfg", &config)]);
    until_served(front, &["first", "second", "third"]).await;
    deregister(&server, "b").await;
    until_served(front, &["first", "third"]).await;
    register(&server, "web", "d", app(any, "fourth").await).await;
    until_served(front, &["first", "third", "fourth"]).await;
    for id in ["a", "c", "d"] {
        deregister(&server, id).await;
    }
    until_served(front, &["503"]).await;
    server.stop().await;
}

#[tokio::test]
async fn nginx_resolver_follows_addresses() {
    if !programs::present(&["nginx"]) {
        return;
    }
    let (server, dns) = server().await;
    let first = app("127.0.0.2:0".parse().unwrap(), "first").await;
    let second = app(SocketAddr::new("127.0.0.3".parse().unwrap(), first.port()), "second").await;
    register(&server, "web", "a", first).await;
    register(&server, "web", "b", second).await;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let front: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let port = first.port();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {place}/{kind};\n"))
        .collect();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {place}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n\
         {temporary}  access_log off;\n  resolver {dns} ipv6=off;\n  server {{\n    listen {front};\n    \
         location / {{\n      set $web web.service.consul;\n      proxy_pass http://$web:{port};\n    \
         }}\n  }}\n}}\n"
    );
    let file = write(dir.path(), "nginx.conf", &config);
    let _nginx = start("nginx", &["-p", &place.to_string(), "-e", "stderr", "-c", &file]);
    until_served(front, &["first", "second"]).await;
    deregister(&server, "a").await;
    until_served(front, &["second"]).await;
    deregister(&server, "b").await;
    until_served(front, &["502"]).await;
    server.stop().await;
}

#[tokio::test]
async fn dig_falls_back_to_tcp_when_told_that_there_is_more() {
    if !programs::present(&["dig"]) {
        return;
    }
    let (server, dns) = server().await;
    for number in 1..=20u8 {
        register(&server, "web", &format!("web-{number}"), ([10, 1, 0, number], 80).into()).await;
    }
    let whole = dig(dns, &["web.service.consul", "+noedns", "+short"]).await;
    assert_eq!(whole.lines().filter(|line| line.starts_with("10.1.0.")).count(), 20, "{whole}");
    let cut = dig(dns, &["web.service.consul", "+noedns", "+ignore"]).await;
    assert!(cut.contains("flags: qr aa tc rd;") && cut.contains("ANSWER: 3,"), "{cut}");
    let reverse = dig(dns, &["-x", "10.1.0.7", "+short"]).await;
    assert_eq!(reverse, "web.service.dc1.consul.\n");
    let chaos = dig(dns, &["web.service.consul", "CH", "A"]).await;
    assert!(chaos.contains("status: REFUSED"), "{chaos}");
    let notify = dig(dns, &["web.service.consul", "+opcode=notify"]).await;
    assert!(notify.contains("status: NOTIMP"), "{notify}");
    let secure = dig(dns, &["web.service.consul", "+bufsize=4096", "+dnssec"]).await;
    assert!(secure.contains("EDNS: version: 0, flags:; udp: 4096"), "{secure}");
    server.stop().await;
}
