//! The program itself, against a real server: output, exit codes, and what goes where.

mod consul;
mod docs;
mod environment;
mod keys;
mod programs;
mod replay;
mod verbs;

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::http::Api;

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the program with no environment but these variables.
pub(crate) async fn weft(env: &[(&str, &str)], args: &[&str]) -> Ran {
    ran(Command::new(env!("CARGO_BIN_EXE_weft")), env, args).await
}

async fn ran(mut command: Command, env: &[(&str, &str)], args: &[&str]) -> Ran {
    command.args(args).env_clear().stdin(Stdio::null());
    for (name, value) in env {
        command.env(name, value);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The program under Consul's name, in a directory of its own, which is where it runs.
struct Consul {
    dir: tempfile::TempDir,
    address: String,
}

impl Consul {
    fn of(api: &Api) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), dir.path().join("consul")).unwrap();
        Self { dir, address: api.address.to_string() }
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.dir.path().join("consul"));
        command.current_dir(self.dir.path());
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(), &[("CONSUL_HTTP_ADDR", &self.address)], args).await
    }

    /// The words of a line.
    async fn line(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>()).await
    }
}

#[tokio::test]
async fn commands_by_table() {
    let api = Api::start().await;
    let address = api.address.to_string();
    let server = [("WEFT_HTTP_ADDR", address.as_str())];
    api.put("/v1/agent/service/register", r#"{"Name":"web","Port":80,"Tags":["v1"]}"#).await;

    for (args, code, out) in [
        (vec!["version"], 0, concat!("weft ", env!("CARGO_PKG_VERSION"), "\n")),
        (
            vec!["services"],
            0,
            "NAME  INSTANCES  PASSING  WARNING  CRITICAL  MESHED  TAGS\nweb   1          1        0        0         0/1     v1\n",
        ),
        (
            vec!["instances", "web"],
            0,
            "INSTANCE  NODE  ADDRESS       STATUS   TAGS  FAILING\nweb       n1    127.0.0.1:80  passing  v1\n",
        ),
        (vec!["intention", "check", "web", "db"], 0, "ok allowed: web -> db by default policy allow\n"),
        (vec!["intention", "deny", "web", "db"], 0, "ok web -> db deny\n"),
        (
            vec!["intention", "check", "web", "db"],
            1,
            "x denied: web -> db by intention web -> db deny (precedence 9)\n",
        ),
        (
            vec!["intention", "list"],
            0,
            "SOURCE  DESTINATION  ACTION  PRECEDENCE  DESCRIPTION\nweb     db           deny    9\n",
        ),
        (vec!["intention", "delete", "web", "db"], 0, "ok web -> db deleted\n"),
        (vec!["intention", "delete", "web", "db"], 5, ""),
        (vec!["instances", "wbe"], 5, ""),
        (vec!["proxies"], 0, "SERVICE  INSTANCE  NODE  VERSION  STATE  REVISION  CERT LEFT  REFUSED\n"),
        (vec!["no-such-command"], 2, ""),
        (vec!["instances", "a/b"], 2, ""),
        (vec!["--http-addr", "ftp://x", "services"], 2, ""),
        (vec!["--http-addr", "127.0.0.1:1", "services"], 3, ""),
    ] {
        let ran = weft(&server, &args).await;
        assert_eq!((ran.code, ran.out.as_str()), (code, out), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains('\u{1b}'));
    }
    let wrong = weft(&server, &["instances", "wbe"]).await;
    assert_eq!(
        wrong.err,
        "error[W0305]: there is no service `wbe`\n  from: 1 service registered\n  \
         try:  did you mean `web`? weft instances web\n"
    );
    let lost = weft(&[("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")], &["status"]).await;
    assert_eq!(lost.code, 3);
    assert!(lost.err.starts_with(
        "error[W0301]: cannot reach the control plane at http://127.0.0.1:1 (connection refused)\n  \
         from: CONSUL_HTTP_ADDR\n  try:  "
    ));
    api.stop().await;
}

#[tokio::test]
async fn json_is_all_that_goes_to_stdout() {
    let api = Api::start().await;
    let address = api.address.to_string();
    let server = [("CONSUL_HTTP_ADDR", address.as_str()), ("CONSUL_HTTP_TOKEN", "ignored")];
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs").to_string_lossy().into_owned();
    for args in [
        vec!["version"],
        vec!["status"],
        vec!["services"],
        vec!["proxies"],
        vec!["intention", "allow", "web", "*"],
        vec!["intention", "list"],
        vec!["intention", "check", "web", "db"],
        vec!["intention", "delete", "web", "*"],
        vec!["token", "create", "--service", "web"],
        vec!["ca", "dev", "--dir", &certs, "--service", "web", "api"],
    ] {
        let mut with_output = args.clone();
        with_output.extend(["-o", "json"]);
        let ran = weft(&server, &with_output).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        let value: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args:?} {e}: {}", ran.out));
        assert!(value.is_object() || value.is_array(), "{args:?}");
    }
    let rule = weft(&server, &["-o", "json", "intention", "deny", "*", "db"]).await;
    let rule: Value = serde_json::from_str(&rule.out).unwrap();
    assert_eq!(rule, json!({"source": "*", "destination": "db", "action": "deny"}));
    assert_eq!(std::fs::read_dir(&certs).unwrap().count(), 5);
    api.stop().await;
}

#[tokio::test]
async fn a_token_goes_to_stdout_alone() {
    let api = Api::start().await;
    let address = api.address.to_string();
    let ran =
        weft(&[], &["--http-addr", &address, "token", "create", "--service", "web", "--ttl", "5m"])
            .await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let token = ran.out.strip_suffix('\n').unwrap();
    assert!(token.starts_with("wt1.") && !token.contains(char::is_whitespace));
    assert!(!ran.err.contains(token) && ran.err.contains("5m0s"));
    api.stop().await;
}

/// What other servers say leads to the documented exit codes.
#[tokio::test]
async fn strange_answers_by_table() {
    for (answer, code) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 4),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", 4),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nshort", 3),
        ("SSH-2.0-OpenSSH_9.9\r\n", 1),
        ("", 3),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _request = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let ran = weft(&[], &["--http-addr", &address, "services"]).await;
        serving.await.unwrap();
        assert_eq!(ran.code, code, "{answer:?}: {}", ran.err);
        assert!(ran.err.starts_with("error[W03"), "{}", ran.err);
        assert_eq!(ran.err.lines().count(), 3, "{}", ran.err);
    }
}

#[tokio::test]
async fn help_names_exit_codes_and_environment() {
    let help = weft(&[], &["--help"]).await;
    assert_eq!(help.code, 0);
    for word in [
        "Exit codes:",
        "control plane unreachable",
        "Environment:",
        "WEFT_HTTP_ADDR",
        "CONSUL_HTTP_ADDR",
    ] {
        assert!(help.out.contains(word), "{word}");
    }
    let usage = weft(&[], &[]).await;
    assert_eq!((usage.code, usage.out.as_str()), (2, ""));
}
