//! What is asked of the running server itself: `reload`, `leave`, `join`, `force-leave`, `monitor`.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::call::{Call, encode};
use super::client::Client;
use super::error::{CliError, Exit, Lead};
use super::report::Report;

#[derive(Debug, Clone, Args)]
pub(super) struct MonitorArgs {
    /// trace, debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Each line as a JSON object
    #[arg(long)]
    log_json: bool,
}

pub(super) async fn reload(client: &Client) -> Result<Report, CliError> {
    client.done(&Call::put("/v1/agent/reload")).await.lead("Error reloading")?;
    Report::new("Configuration reload triggered\n".to_owned(), &json!({ "reloaded": true }))
}

pub(super) async fn leave(client: &Client) -> Result<Report, CliError> {
    client.done(&Call::put("/v1/agent/leave")).await.lead("Error leaving")?;
    Report::new("Graceful leave complete\n".to_owned(), &json!({ "left": true }))
}

pub(super) async fn join(client: &Client, addresses: &[String], wan: bool) -> Result<Report, CliError> {
    for address in addresses {
        let call = Call::put(format!("/v1/agent/join/{}", encode(address)));
        let call = if wan { call.with("wan", 1) } else { call };
        client.done(&call).await.lead(format_args!("Error joining address '{address}'"))?;
    }
    let count = addresses.len();
    let text = format!("Successfully joined cluster by contacting {count} nodes.\n");
    Report::new(text, &json!({ "joined": addresses }))
}

pub(super) async fn force_leave(client: &Client, node: &str, prune: bool) -> Result<Report, CliError> {
    let call = Call::put(format!("/v1/agent/force-leave/{}", encode(node))).flag("prune", prune);
    client.done(&call).await.lead("Error force leaving")?;
    Report::new(String::new(), &json!({ "node": node, "left": true }))
}

/// Lines of the server's log as they come, until either side ends it.
pub(super) async fn monitor(
    client: &Client,
    args: &MonitorArgs,
    out: &mut dyn Write,
) -> Result<Report, CliError> {
    let call =
        Call::get("/v1/agent/monitor").with("loglevel", &args.log_level).flag("logjson", args.log_json);
    let lines = client.stream(&call, |bytes| out.write_all(bytes).and_then(|()| out.flush()).is_ok());
    lines.await.lead("Error starting monitor")?;
    Ok(Report::silent(Exit::Ok))
}
