//! Writing intentions: `allow`, `deny`, `audit`, `create` and `delete`.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lookup::{Found, Which};
use super::{ALL, Pair, party};
use crate::cli::call::{Call, encode};
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault, Lead};
use crate::cli::output::{Style, Tone};
use crate::cli::report::Report;
use crate::cli::sources;
use crate::model::{Action, Party};

/// An intention has a few hundred bytes; its description and metadata are bounded by the server.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
const EXACT: &str = "/v1/connect/intentions/exact";

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CreateArgs {
    /// Allow the connection; the default
    #[arg(long, conflicts_with = "deny")]
    allow: bool,
    /// Deny the connection
    #[arg(long)]
    deny: bool,
    /// Allow it, and log each connection as one that would be denied
    #[arg(long, conflicts_with_all = ["allow", "deny"])]
    audit: bool,
    /// Replace the intention that the pair has
    #[arg(long)]
    replace: bool,
    /// Metadata; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// The arguments are JSON files with one intention each, `-` for stdin
    #[arg(long)]
    file: bool,
    /// Two services, `*` for every service; or files with --file
    #[arg(value_name = "SOURCE DESTINATION", required = true)]
    arguments: Vec<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `allow`, `deny` and `audit`: the pair has this rule afterwards, whatever it had before.
pub(super) async fn set(
    client: &Client,
    pair: &Pair,
    action: Action,
    style: Style,
) -> Result<Report, CliError> {
    let Pair { source, destination } = pair;
    let body = json!({ "Action": action.as_str() });
    client.call::<bool>(&exact(Call::put(EXACT), source, destination).json(&body)).await?;
    let text = format!("{} {source} -> {destination} {action}\n", style.mark(Tone::Good));
    Report::new(text, &json!({"source": source, "destination": destination, "action": action}))
}

fn exact(call: Call, source: &Party, destination: &Party) -> Call {
    call.with("source", source).with("destination", destination)
}

/// An intention to be written: what the API takes, and its parts for messages.
struct Wish {
    source: Party,
    destination: Party,
    action: String,
    body: Value,
}

impl Wish {
    /// As Consul writes a rule.
    fn sentence(&self) -> String {
        format!("{} => {} ({})", self.source, self.destination, self.action)
    }
}

pub(super) async fn create(
    client: &Client,
    args: &CreateArgs,
    style: Style,
) -> Result<Report, CliError> {
    let (mut text, mut consul, mut made) = (String::new(), String::new(), Vec::new());
    for wish in wishes(args)? {
        let Wish { source, destination, action, body } = &wish;
        let old = if args.replace { Found::of_pair(client, source, destination).await? } else { None };
        match old {
            Some(old) => {
                let call = Call::put(format!("{ALL}/{}", encode(&old.rule.id))).json(body);
                client.done(&call).await.lead(format_args!(
                    "Error replacing intention with source {:?} and destination {:?}",
                    source.as_str(),
                    destination.as_str()
                ))?;
            }
            None => {
                let lead = format!("Error creating intention {:?}", wish.sentence());
                client
                    .done(&Call::post(ALL).json(body))
                    .await
                    .map_err(|error| already(error, &wish))
                    .lead(lead)?;
                consul += &format!("Created: {}\n", wish.sentence());
            }
        }
        text += &format!("{} {source} -> {destination} {action}\n", style.mark(Tone::Good));
        made.push(json!({"source": source, "destination": destination, "action": action}));
    }
    Ok(Report::new(text, &made)?.in_consul(consul))
}

/// A pair that has a rule already is the likely cause of a refusal.
fn already(mut error: CliError, wish: &Wish) -> CliError {
    if error.fault == Fault::Answer {
        error.fault = Fault::Refused;
        error.next = format!(
            "replace the rule there is: weft intention {} {} {}",
            wish.action, wish.source, wish.destination
        );
    }
    error
}

fn wishes(args: &CreateArgs) -> Result<Vec<Wish>, CliError> {
    if args.file {
        return args.arguments.iter().map(|file| from_file(file)).collect();
    }
    let refuse = |why: String| {
        CliError::new(Fault::Usage, why.clone(), "the command line", "name a source and a destination")
            .in_consul(format!("Error: {why}"))
    };
    let [source, destination] = args.arguments.as_slice() else {
        return Err(refuse("Must specify two arguments: source and destination".to_owned()));
    };
    let source = party(source).map_err(|why| refuse(format!("Invalid intention source: {why}")))?;
    let destination =
        party(destination).map_err(|why| refuse(format!("Invalid intention destination: {why}")))?;
    let action = match (args.deny, args.audit) {
        (true, _) => Action::Deny,
        (_, true) => Action::Audit,
        _ => Action::Allow,
    };
    let meta: serde_json::Map<String, Value> =
        args.meta.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let body = json!({
        "SourceName": source, "DestinationName": destination, "SourceType": "consul",
        "Action": action.as_str(), "Meta": meta,
    });
    Ok(vec![Wish { source, destination, action: action.as_str().to_owned(), body }])
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    source_name: String,
    destination_name: String,
    #[serde(default)]
    action: String,
}

fn from_file(file: &str) -> Result<Wish, CliError> {
    let bytes = sources::file(&PathBuf::from(file), MAX_FILE_BYTES)?;
    let refuse = |why: String| {
        let next = "write an object with SourceName, DestinationName and Action";
        CliError::new(Fault::Usage, format!("{file} holds no intention"), why.clone(), next)
            .in_consul(format!("Error: {why}"))
    };
    let body: Value = serde_json::from_slice(&bytes).map_err(|fault| refuse(fault.to_string()))?;
    let written: Written = Written::deserialize(&body).map_err(|fault| refuse(fault.to_string()))?;
    Ok(Wish {
        source: party(&written.source_name).map_err(refuse)?,
        destination: party(&written.destination_name).map_err(refuse)?,
        action: written.action,
        body,
    })
}

pub(super) async fn delete(client: &Client, which: &Which, style: Style) -> Result<Report, CliError> {
    let Found { rule, .. } = Found::named(client, which).await.lead("Error")?;
    let call = Call::delete(format!("{ALL}/{}", encode(&rule.id)));
    client.done(&call).await.lead("Error deleting the intention")?;
    let (source, destination) = (&rule.source, &rule.destination);
    let text = format!("{} {source} -> {destination} deleted\n", style.mark(Tone::Good));
    let json = json!({"source": source, "destination": destination, "deleted": true});
    Ok(Report::new(text, &json)?.in_consul("Intention deleted.\n"))
}
