//! Begins a rotation and, with `--wait`, follows it: each step and each change of the counts is a line
//! on stderr.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::PATH;
use crate::api::json::ca::{CaJson, RootReply, RotationJson};
use crate::ca::limits::MAX_PATIENCE;
use crate::cli::call::Call;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault};
use crate::cli::output::count;
use crate::cli::report::Report;
use crate::cli::say;
use crate::model::duration;

/// How often a rotation is looked at.
const EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RotateArgs {
    /// How long to wait for sidecars that are away before the new root signs, at most 24h
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = patience)]
    patience: Duration,
    /// Wait until every sidecar that is connected has a certificate of the new root
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    timeout: Duration,
}

impl RotateArgs {
    /// The body of a request with what it says of the rotation.
    pub(super) fn with(&self, mut body: Value) -> Value {
        body["patience"] = json!(duration::format(self.patience));
        body
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    let wanted = duration::parse(text).map_err(|fault| fault.to_string())?;
    if wanted <= MAX_PATIENCE { Ok(wanted) } else { Err("it must be at most 24h".to_owned()) }
}

pub(super) async fn run(
    client: &Client,
    call: Call,
    args: &RotateArgs,
    err: &mut dyn Write,
) -> Result<Report, CliError> {
    let reply: RootReply = client.call(&call).await?;
    if !args.wait {
        let text = format!("root {} takes over\n", reply.root);
        return Ok(Report::new(text, &reply)?.with_note("`weft ca show` says how far it is"));
    }
    let ca = follow(client, &reply.root, args.timeout, err).await?;
    let mut text =
        format!("root {} signs, and every connected sidecar has its certificate\n", reply.root);
    for root in ca.roots.iter().filter(|root| root.state == "retiring") {
        let at = root.leaves_at.as_deref().unwrap_or("the end of its last certificate");
        text += &format!("root {} leaves at {at}\n", root.id);
    }
    Report::new(text, &ca)
}

/// Waits until everybody is on the new root.
async fn follow(
    client: &Client,
    root: &str,
    limit: Duration,
    err: &mut dyn Write,
) -> Result<CaJson, CliError> {
    let (began, mut said) = (Instant::now(), String::new());
    loop {
        let ca: CaJson = client.call(&Call::get(PATH)).await?;
        let active = ca.roots.iter().any(|one| one.id == root && one.state == "active");
        let rotation = ca.rotation.as_ref().filter(|rotation| rotation.root == root);
        let line = rotation.map(progress).unwrap_or_default();
        if line != said {
            say(err, &line);
            said = line;
        }
        let is_over =
            rotation.is_none_or(|rotation| matches!(rotation.step.as_str(), "retire" | "done"));
        if active && is_over {
            return Ok(ca);
        }
        if began.elapsed() >= limit {
            let what = format!("the rotation to root {root} is not through after {limit:?}");
            let next = "it goes on by itself; `weft ca show` says how far it is";
            return Err(CliError::new(Fault::Timeout, what, said, next));
        }
        sleep(EVERY).await;
    }
}

/// Where a rotation stands, in one line.
pub(super) fn progress(rotation: &RotationJson) -> String {
    let RotationJson { step, bundle_version, proxies, .. } = rotation;
    let of = count(proxies.connected, "sidecar");
    match step.as_str() {
        "prepare" => format!(
            "prepare: the new root is in bundle {bundle_version}; {} of {of} have not acknowledged it, {} away",
            proxies.unacknowledged, proxies.away
        ),
        "reissue" => format!(
            "reissue: the new root signs; {} of {of} have a certificate of an older one",
            proxies.old_certificate
        ),
        "retire" => "retire: the old root leaves when its last certificate has expired".to_owned(),
        step => step.to_owned(),
    }
}
