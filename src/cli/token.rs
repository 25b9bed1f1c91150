//! `weft token create`: an enrolment token for sidecars. It goes to stdout and nowhere else.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::call::Call;
use super::client::Client;
use super::error::CliError;
use super::report::Report;
use crate::api::json::weft::TokenReply;
use crate::model::{ServiceName, duration};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a new enrolment token; on the server's own machine, or with an API token for enrol:write
    Create(CreateArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct CreateArgs {
    /// Service the token is good for; repeatable
    #[arg(long, value_name = "NAME", required = true, num_args = 1..)]
    service: Vec<ServiceName>,
    /// How long it can be used
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    ttl: Duration,
    /// How many sidecars may use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
}

pub(super) async fn run(client: &Client, command: &TokenCommand) -> Result<Report, CliError> {
    let TokenCommand::Create(args) = command;
    let ttl = duration::format(args.ttl);
    let body = json!({ "services": args.service, "ttl": ttl, "uses": args.uses });
    let call = Call::post("/v1/weft/tokens").json(&body);
    let reply: TokenReply = client.call(&call).await?;
    let text = format!("{}\n", reply.token);
    let note =
        format!("valid for {ttl}; hand it over with `weft proxy --token-file FILE` or WEFT_TOKEN");
    Ok(Report::new(text, &reply)?.with_note(note))
}
