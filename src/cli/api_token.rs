//! `weft api-token`: the tokens of the HTTP API. A new one goes to stdout and nowhere else.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::call::{Call, encode};
use super::client::Client;
use super::error::{CliError, Fault};
use super::output::{Cell, Style, printable, table};
use super::report::Report;
use crate::access::Scopes;
use crate::api::json::tokens::{ApiToken, NewApiToken};
use crate::model::duration;

const PATH: &str = "/v1/weft/api-tokens";

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ApiTokenCommand {
    /// Print a new token, which gives no more than the one that asks for it
    Create(CreateArgs),
    /// List tokens, without their secrets
    List,
    /// Remove a token; from then on it opens nothing
    Revoke {
        /// Its accessor, as `list` shows it
        #[arg(value_name = "ACCESSOR")]
        accessor: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct CreateArgs {
    /// What the token is good for, such as service:write, kv:* or *; repeatable
    #[arg(long, value_name = "SCOPE", required = true, num_args = 1.., value_parser = scope)]
    scope: Vec<String>,
    /// What it is for, so that others know what to revoke
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// How long it lives, 1m or more [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    ttl: Option<Duration>,
}

fn scope(word: &str) -> Result<String, String> {
    Scopes::parse([word]).map(|_| word.to_owned()).map_err(|fault| fault.to_string())
}

pub(super) async fn run(
    client: &Client,
    command: &ApiTokenCommand,
    style: Style,
) -> Result<Report, CliError> {
    match command {
        ApiTokenCommand::Create(args) => create(client, args).await,
        ApiTokenCommand::List => list(client, style).await,
        ApiTokenCommand::Revoke { accessor } => revoke(client, accessor).await,
    }
}

async fn create(client: &Client, args: &CreateArgs) -> Result<Report, CliError> {
    let ttl = args.ttl.map(duration::format).unwrap_or_default();
    let body = json!({ "scopes": args.scope, "description": args.description, "ttl": ttl });
    let made: NewApiToken = client.call(&Call::post(PATH).json(&body)).await?;
    let until = made.about.expires.as_ref().map_or("it is revoked".to_owned(), Clone::clone);
    let note = format!(
        "accessor {}, valid until {until}; it is not shown again: keep it in a file that WEFT_HTTP_TOKEN_FILE names",
        made.about.accessor
    );
    Ok(Report::new(format!("{}\n", made.token), &made)?.with_note(note))
}

async fn list(client: &Client, style: Style) -> Result<Report, CliError> {
    let tokens: Vec<ApiToken> = client.call(&Call::get(PATH)).await?;
    let rows: Vec<Vec<Cell>> = tokens.iter().map(row).collect();
    let head = ["ACCESSOR", "SCOPES", "EXPIRES", "AUTHOR", "DESCRIPTION"];
    Report::new(table(style, &head, &rows), &tokens)
}

fn row(token: &ApiToken) -> Vec<Cell> {
    let expires = token.expires.as_deref().unwrap_or("never");
    let scopes = token.scopes.join(",");
    [token.accessor.as_str(), &scopes, expires, &token.author, &token.description]
        .into_iter()
        .map(Cell::from)
        .collect()
}

async fn revoke(client: &Client, accessor: &str) -> Result<Report, CliError> {
    let call = Call::delete(format!("{PATH}/{}", encode(accessor)));
    if client.find::<bool>(&call).await?.is_none() {
        return Err(CliError::new(
            Fault::NotFound,
            format!("no API token has the accessor `{}`", printable(accessor)),
            client.url(),
            "list them with `weft api-token list`",
        ));
    }
    Report::new(format!("revoked {}\n", printable(accessor)), &json!({ "revoked": accessor }))
}
