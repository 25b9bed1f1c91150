//! A server whose files change under it.

use std::path::Path;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::mesh::is_ready;
use super::support::{Process, free_port, local, until, within};
use crate::dns::tools::dig;
use crate::http::{Answer, send};

struct Server {
    http: std::net::SocketAddr,
    dns: std::net::SocketAddr,
    files: tempfile::TempDir,
    process: Process,
}

impl Server {
    async fn start(config: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("services.hcl"), config).unwrap();
        let (http, grpc) = (local(free_port()), local(free_port()).to_string());
        let (address, directory) = (http.to_string(), files.path().to_string_lossy().into_owned());
        let args = ["server", "--memory", "--node", "n1", "--config-dir", &directory, "--http-addr"];
        let dns = local(free_port());
        let names = dns.to_string();
        let more = [&address, "--grpc-addr", &grpc, "--dns-addr", &names, "--log-format", "json"];
        let args: Vec<&str> = args.into_iter().chain(more).collect();
        let process = Process::start("server", &args, &[]);
        until("the server's readiness", async || is_ready(http).await).await;
        Self { http, dns, files, process }
    }

    fn write(&self, config: &str) {
        std::fs::write(self.files.path().join("services.hcl"), config).unwrap();
    }

    async fn put(&self, target: &str, body: &str) -> Answer {
        send(self.http, "PUT", target, body).await
    }

    async fn get(&self, target: &str) -> Answer {
        send(self.http, "GET", target, "").await
    }

    /// Ids of all instances, with the state of each by the agent's verdict.
    async fn services(&self) -> Vec<String> {
        let services = self.get("/v1/agent/services").await.json();
        let mut found = Vec::new();
        for id in services.as_object().unwrap().keys() {
            let state = self.get(&format!("/v1/agent/health/service/id/{id}?format=text")).await;
            found.push(format!("{id} {}", state.body));
        }
        found
    }

    fn said(&self, text: &str) -> bool {
        self.process.log().iter().any(|line| line["message"].as_str().is_some_and(|m| m.contains(text)))
    }
}

const TWO: &str = r#"
services {
  name = "web"
  check { ttl = "10m" }
}
services { name = "old" }
check {
  name = "memory"
  ttl  = "10m"
}
"#;

#[tokio::test]
async fn a_reload_takes_what_is_new_and_flips_nothing() {
    let mut server = Server::start(TWO).await;
    for check in ["service:web", "memory"] {
        assert_eq!(server.put(&format!("/v1/agent/check/pass/{check}"), "").await.status, 200);
    }
    let by_api = r#"{"Name":"api","Check":{"TTL":"10m"}}"#;
    assert_eq!(server.put("/v1/agent/service/register", by_api).await.status, 200);
    server.put("/v1/agent/check/warn/service:api", "").await;
    assert_eq!(server.services().await, ["api warning", "old passing", "web passing"]);

    let new = TWO.replace(r#"services { name = "old" }"#, r#"services { name = "new" }"#);
    server.write(&new);
    assert_eq!(server.put("/v1/agent/reload", "").await.status, 200);
    assert_eq!(server.services().await, ["api warning", "new passing", "web passing"]);

    server.write(&new.replace("ttl  =", "tttl ="));
    let refused = server.put("/v1/agent/reload", "").await;
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("the old configuration goes on"), "{}", refused.body);
    assert!(refused.body.contains("services.hcl:9:3"), "the fault has a place: {}", refused.body);
    server.process.signal(Signal::HUP);
    until("the fault in the log", async || server.said("the old configuration goes on")).await;
    assert_eq!(server.services().await, ["api warning", "new passing", "web passing"]);

    // Without the check of the node, and with a setting that has to wait.
    let fewer = "datacenter = \"dc2\"\nservices {\n  name = \"web\"\n  check { ttl = \"10m\" }\n}\n";
    server.write(fewer);
    server.process.signal(Signal::HUP);
    until("the reload", async || server.services().await == ["api warning", "web passing"]).await;
    until("the warning", async || server.said("count after a restart")).await;
    let checks = server.get("/v1/agent/checks").await.json();
    let ids: Vec<_> = checks.as_object().unwrap().keys().collect();
    assert_eq!(ids, ["service:api", "service:web"]);

    assert_eq!(server.put("/v1/agent/leave", "").await.status, 200);
    assert_eq!(server.process.ended().await, 0);
}

#[tokio::test]
async fn a_reload_changes_how_names_are_answered() {
    let web = "services { name = \"web\" }\n";
    let mut server = Server::start(web).await;
    let lives = async |server: &Server, name: &str| dig(server.dns, &[name, "+noall", "+answer"]).await;
    let said = lives(&server, "web.service.consul").await;
    assert!(said.starts_with("web.service.consul.\t0\tIN\tA\t127.0.0.1"), "{said}");

    server.write(&format!(
        "{web}domain = \"mesh\"\ndns_config {{ service_ttl = {{ \"*\" = \"7s\" }} }}\n"
    ));
    assert_eq!(server.put("/v1/agent/reload", "").await.status, 200);
    let said = lives(&server, "web.service.mesh").await;
    assert!(said.starts_with("web.service.mesh.\t7\tIN\tA\t127.0.0.1"), "{said}");
    assert_eq!(lives(&server, "web.service.consul").await, "");

    // Settings that would ask itself for ever are refused, and the old ones go on.
    server.write(&format!("{web}recursors = [\"{}\"]\n", server.dns));
    let refused = server.put("/v1/agent/reload", "").await;
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("this DNS server itself"), "{}", refused.body);
    let said = lives(&server, "web.service.mesh").await;
    assert!(said.starts_with("web.service.mesh.\t7\t"), "{said}");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.ended().await, 0);
}

#[tokio::test]
async fn scripts_run_only_where_a_file_allows_them() {
    let marker = tempfile::NamedTempFile::new().unwrap();
    let script = |path: &Path| {
        format!(
            "services {{\n  name = \"web\"\n  check {{\n    args = [\"/usr/bin/test\", \"-s\", {:?}]\n    \
             interval = \"1s\"\n  }}\n}}\n",
            path.display().to_string()
        )
    };
    let allowed = format!("enable_local_script_checks = true\n{}", script(marker.path()));
    let mut server = Server::start(&allowed).await;
    // `test -s` exits with 1 for an empty file.
    until("the first run", async || server.services().await == ["web warning"]).await;
    std::fs::write(marker.path(), "something").unwrap();
    until("another run", async || server.services().await == ["web passing"]).await;

    let over_api = r#"{"Name":"evil","Check":{"Args":["/bin/true"],"Interval":"10s"}}"#;
    let refused = server.put("/v1/agent/service/register", over_api).await;
    assert_eq!((refused.status, refused.body.starts_with("Scripts are disabled")), (500, true));
    server.write(&script(marker.path()));
    let refused = server.put("/v1/agent/reload", "").await;
    assert!(
        refused.body.contains("this check runs a program, which is not allowed"),
        "{}",
        refused.body
    );
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.ended().await, 0);
}

#[tokio::test]
async fn the_log_can_be_watched() {
    let server = Server::start("services { name = \"web\" }\n").await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let head = format!("GET /v1/agent/monitor?loglevel=info HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    // The head of the answer says that the watching has begun.
    assert_eq!(within("an answer", lines.next_line()).await.unwrap().unwrap(), "HTTP/1.1 200 OK");
    server.put("/v1/agent/reload", "").await;
    let wanted = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("[INFO]") && line.contains("configuration reloaded: services=1") {
                return;
            }
        }
        panic!("the log ended");
    };
    within("the line of the reload", wanted).await;
    let refused = server.get("/v1/agent/monitor?loglevel=bogus").await;
    assert_eq!((refused.status, refused.body.as_str()), (400, "Bad request: Unknown log level: bogus"));
}
