//! `weft dev --demo --check`: plays what the card suggests, once, through the same doors a user has,
//! and says of each step whether it held.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Demo, http};
use crate::app::AppError;
use crate::app::server::Server;

/// A change of policy must have taken effect by then.
const EFFECT: Duration = Duration::from_secs(1);
/// Requests after an instance was killed, none of which may fail.
const AFTER_KILL: usize = 50;

/// Plays the story.
pub(in crate::app) async fn tell(
    server: &Server,
    demo: &mut Demo,
    out: &mut impl Write,
) -> Result<(), AppError> {
    let mut teller = Teller { out };
    let (api, http_api) = (demo.api_address(), server.bound().http);

    teller.step("a request passes from web to api to db", hello(api).await)?;
    let mut open = teller.keep("a connection stays open", keep_open(api).await)?;

    teller.step("web → api is denied", intend(http_api, "deny").await)?;
    teller.step("the open connection is cut within a second", is_cut(&mut open).await)?;
    teller.step("new connections are refused", is_refused(api).await)?;
    teller.step("the source side names the reason", reason_is_named(demo).await)?;
    teller.step("the rule that decides is named", rule_is_named(http_api).await)?;

    teller.step("web → api is allowed", intend(http_api, "allow").await)?;
    teller.step("requests pass again within a second", passes_again(api).await)?;

    if let Some(victim) = demo.apis.pop() {
        victim.kill().await;
    }
    teller.step("one api is killed: requests still pass", still_passes(api).await)
}

struct Teller<'a, W: Write> {
    out: &'a mut W,
}

impl<W: Write> Teller<'_, W> {
    fn step(&mut self, what: &str, result: Result<(), String>) -> Result<(), AppError> {
        self.keep(what, result)
    }

    fn keep<T>(&mut self, what: &str, result: Result<T, String>) -> Result<T, AppError> {
        let mark = if result.is_ok() { "ok    " } else { "FAILED" };
        writeln!(self.out, "  {mark}  {what}")
            .map_err(|source| AppError::Start { what: "the output".to_owned(), source })?;
        result.map_err(|cause| AppError::Story(format!("{what}: {cause}")))
    }
}

async fn hello(api: SocketAddr) -> Result<(), String> {
    match http::get(api, "/hello").await {
        Ok((200, body)) if body.contains("row ") => Ok(()),
        Ok((status, body)) => Err(format!("answered {status}: {body}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A connection that has carried a request and stays.
async fn keep_open(api: SocketAddr) -> Result<TcpStream, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(api).await?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: api\r\n\r\n").await?;
        let mut first = [0; 15];
        stream.read_exact(&mut first).await?;
        Ok::<_, io::Error>((stream, first))
    };
    match exchange.await {
        Ok((stream, first)) if first.starts_with(b"HTTP/1.1 200") => Ok(stream),
        Ok((_, first)) => Err(format!("answered {}", String::from_utf8_lossy(&first))),
        Err(error) => Err(error.to_string()),
    }
}

async fn intend(http_api: SocketAddr, action: &str) -> Result<(), String> {
    let path = "/v1/connect/intentions/exact?source=web&destination=api";
    let body = format!(r#"{{"Action":"{action}"}}"#);
    match http::request(Method::PUT, http_api, path, body).await {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => Err(format!("the API answered {status}: {body}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn is_cut(open: &mut TcpStream) -> Result<(), String> {
    let mut rest = Vec::new();
    match tokio::time::timeout(EFFECT, open.read_to_end(&mut rest)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Ok(end) => Err(format!("it ended otherwise: {end:?}")),
        Err(_elapsed) => Err("it is still open".to_owned()),
    }
}

async fn is_refused(api: SocketAddr) -> Result<(), String> {
    match http::get(api, "/hello").await {
        Ok((status, _)) => Err(format!("answered {status}")),
        Err(_refused) => Ok(()),
    }
}

async fn reason_is_named(demo: &Demo) -> Result<(), String> {
    let admin = demo.web.sidecar.bound().admin.ok_or("web has no admin endpoint")?;
    let (_, metrics) = http::get(admin, "/metrics").await.map_err(|error| error.to_string())?;
    let names_it = |line: &str| {
        line.starts_with("weft_connections_closed_total{") && line.contains("reason=\"denied\"")
    };
    if metrics.lines().any(names_it) {
        Ok(())
    } else {
        Err("no closed connection is `denied`".to_owned())
    }
}

async fn rule_is_named(http_api: SocketAddr) -> Result<(), String> {
    let path = "/v1/weft/intention/check?source=web&destination=api";
    let (status, body) = http::get(http_api, path).await.map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    if status == 200 && answer["allowed"] == false && answer.to_string().contains("\"precedence\":9") {
        Ok(())
    } else {
        Err(format!("answered {status}: {body}"))
    }
}

async fn passes_again(api: SocketAddr) -> Result<(), String> {
    let deadline = Instant::now() + EFFECT;
    loop {
        match hello(api).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_not_yet) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn still_passes(api: SocketAddr) -> Result<(), String> {
    for number in 1..=AFTER_KILL {
        hello(api).await.map_err(|error| format!("request {number} of {AFTER_KILL}: {error}"))?;
    }
    Ok(())
}
