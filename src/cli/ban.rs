//! `weft ban`: certificates that are refused from now on, and what is open with them, which is cut.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::call::Call;
use super::client::Client;
use super::error::CliError;
use super::output::{Cell, Style, Tone, line, table};
use super::report::Report;
use crate::api::json::weft::BanJson;
use crate::model::ServiceName;

const PATH: &str = "/v1/weft/bans";

#[derive(Debug, Clone, Subcommand)]
pub(super) enum BanCommand {
    /// Refuse these certificates from now on, and cut the connections that are open with them
    Add(AddArgs),
    /// Show all bans
    List,
    /// Lift a ban
    Remove(Named),
}

#[derive(Debug, Clone, Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    named: Named,
    /// Why; shown by `weft ban list`
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// What is banned: one of these.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Named {
    /// Every certificate of this service
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// The same, by SPIFFE ID
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// One sidecar: the first 16 digits of its certificates' serial numbers
    #[arg(long, value_name = "HEX")]
    enrolment: Option<String>,
    /// One certificate
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
}

impl Named {
    fn pair(&self) -> (&'static str, String) {
        let pairs = [
            ("service", self.service.as_ref().map(ToString::to_string)),
            ("identity", self.identity.clone()),
            ("enrolment", self.enrolment.clone()),
            ("serial", self.serial.clone()),
        ];
        let given = pairs.into_iter().find_map(|(name, text)| Some((name, text?)));
        given.unwrap_or_default() // clap asks for exactly one
    }
}

pub(super) async fn run(
    client: &Client,
    command: &BanCommand,
    style: Style,
) -> Result<Report, CliError> {
    match command {
        BanCommand::Add(args) => add(client, args, style).await,
        BanCommand::List => {
            let bans: Vec<BanJson> = client.call(&Call::get(PATH)).await?;
            list(&bans, style)
        }
        BanCommand::Remove(named) => {
            let (name, text) = named.pair();
            let lifted: bool = client.call(&Call::delete(PATH).with(name, &text)).await?;
            Report::new(line(style, Tone::Good, "lifted", &format!("{name} {text}")), &lifted)
        }
    }
}

async fn add(client: &Client, args: &AddArgs, style: Style) -> Result<Report, CliError> {
    let (name, text) = args.named.pair();
    let mut body = Map::from_iter([(name.to_owned(), Value::from(text))]);
    body.insert("reason".to_owned(), Value::from(args.reason.as_str()));
    let ban: BanJson = client.call(&Call::post(PATH).json(&Value::Object(body))).await?;
    let text = line(style, Tone::Good, "banned", &format!("{} {}", ban.kind, ban.value));
    Report::new(text, &ban)
}

fn list(bans: &[BanJson], style: Style) -> Result<Report, CliError> {
    let row = |ban: &BanJson| {
        vec![
            Cell::from(&ban.kind),
            Cell::from(&ban.value),
            Cell::from(&ban.created),
            Cell::from(&ban.reason),
        ]
    };
    let rows: Vec<_> = bans.iter().map(row).collect();
    Report::new(table(style, &["KIND", "VALUE", "SINCE", "REASON"], &rows), bans)
}
