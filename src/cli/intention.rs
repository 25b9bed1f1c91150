//! `weft intention`: who may connect to whom.

use clap::{Args, Subcommand};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::error::{CliError, Exit, Fault};
use super::output::{Cell, Report, Style, Tone, table};
use crate::api::json::weft::VerdictJson;
use crate::model::{Action, Party, ServiceName};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum IntentionCommand {
    /// Allow SOURCE to connect to DESTINATION
    Allow(Pair),
    /// Forbid SOURCE to connect to DESTINATION; open connections are closed
    Deny(Pair),
    /// List all intentions, the strongest first
    List,
    /// Remove the intention of a pair
    Delete(Pair),
    /// Say whether SOURCE may connect to DESTINATION, and why: exits 0 or 1
    Check { source: ServiceName, destination: ServiceName },
}

/// Two services; `*` stands for every service.
#[derive(Debug, Clone, Args)]
pub(super) struct Pair {
    /// Service name, or `*` for every service
    #[arg(value_parser = Party::parse)]
    source: Party,
    /// Service name, or `*` for every service
    #[arg(value_parser = Party::parse)]
    destination: Party,
}

impl Pair {
    fn query(&self) -> [(&str, &str); 2] {
        [("source", self.source.as_str()), ("destination", self.destination.as_str())]
    }
}

const EXACT: &str = "/v1/connect/intentions/exact";

pub(super) async fn run(
    client: &Client,
    command: &IntentionCommand,
    style: Style,
) -> Result<Report, CliError> {
    match command {
        IntentionCommand::Allow(pair) => put(client, pair, Action::Allow, style).await,
        IntentionCommand::Deny(pair) => put(client, pair, Action::Deny, style).await,
        IntentionCommand::List => list_report(
            &client.call::<Vec<Rule>>(&Call::get("/v1/connect/intentions", &[])).await?,
            style,
        ),
        IntentionCommand::Delete(pair) => delete(client, pair, style).await,
        IntentionCommand::Check { source, destination } => {
            let query = [("source", source.as_str()), ("destination", destination.as_str())];
            check_report(&client.call(&Call::get("/v1/weft/intention/check", &query)).await?, style)
        }
    }
}

async fn put(client: &Client, pair: &Pair, action: Action, style: Style) -> Result<Report, CliError> {
    let call = Call {
        method: Method::PUT,
        path: EXACT.to_owned(),
        query: &pair.query(),
        body: Some(json!({ "Action": action.as_str() })),
    };
    client.call::<bool>(&call).await?;
    let Pair { source, destination } = pair;
    let text = format!("{} {source} -> {destination} {action}\n", style.mark(Tone::Good));
    Report::new(text, &json!({"source": source, "destination": destination, "action": action}))
}

async fn delete(client: &Client, pair: &Pair, style: Style) -> Result<Report, CliError> {
    let Pair { source, destination } = pair;
    let query = pair.query();
    if client.find::<Value>(&Call::get(EXACT, &query)).await?.is_none() {
        return Err(CliError::new(
            Fault::NotFound,
            format!("there is no intention {source} -> {destination}"),
            client.url(),
            "list all intentions: weft intention list",
        ));
    }
    let call = Call { method: Method::DELETE, path: EXACT.to_owned(), query: &query, body: None };
    client.call::<bool>(&call).await?;
    let text = format!("{} {source} -> {destination} deleted\n", style.mark(Tone::Good));
    Report::new(text, &json!({"source": source, "destination": destination, "deleted": true}))
}

/// What is read of a listed intention, and what is shown of it.
#[derive(Debug, Deserialize, Serialize)]
struct Rule {
    #[serde(rename(deserialize = "SourceName"))]
    source: String,
    #[serde(rename(deserialize = "DestinationName"))]
    destination: String,
    #[serde(rename(deserialize = "Action"))]
    action: String,
    #[serde(rename(deserialize = "Precedence"))]
    precedence: u8,
    #[serde(rename(deserialize = "Description"), default)]
    description: String,
    #[serde(rename(deserialize = "ID"), default)]
    id: String,
}

fn list_report(rules: &[Rule], style: Style) -> Result<Report, CliError> {
    let row = |rule: &Rule| {
        let tone = if rule.action == "allow" { Tone::Good } else { Tone::Bad };
        vec![
            Cell::from(&rule.source),
            Cell::from(&rule.destination),
            Cell::new(tone, &rule.action),
            Cell::from(rule.precedence.to_string()),
            Cell::from(&rule.description),
        ]
    };
    let rows: Vec<_> = rules.iter().map(row).collect();
    let head = ["SOURCE", "DESTINATION", "ACTION", "PRECEDENCE", "DESCRIPTION"];
    let report = Report::new(table(style, &head, &rows), rules)?;
    let note = "there are no intentions; the default policy decides (weft status)";
    Ok(if rules.is_empty() { report.with_note(note) } else { report })
}

fn check_report(verdict: &VerdictJson, style: Style) -> Result<Report, CliError> {
    let (tone, word, exit) = if verdict.allowed {
        (Tone::Good, "allowed", Exit::Ok)
    } else {
        (Tone::Bad, "denied", Exit::Negative)
    };
    let VerdictJson { source, destination, reason, .. } = verdict;
    let text = format!("{} {word}: {source} -> {destination} by {reason}\n", style.mark(tone));
    Ok(Report::new(text, verdict)?.with_exit(exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { color: false, unicode: true };

    #[test]
    fn list_golden() {
        let rules: Vec<Rule> = serde_json::from_value(json!([
            {"ID": "u", "SourceName": "web", "DestinationName": "db", "Action": "deny", "Precedence": 9,
             "Description": "no", "Meta": {}},
            {"SourceName": "*", "DestinationName": "*", "Action": "allow", "Precedence": 5},
        ]))
        .unwrap();
        let report = list_report(&rules, STYLE).unwrap();
        assert_eq!(
            report.text,
            "SOURCE  DESTINATION  ACTION  PRECEDENCE  DESCRIPTION\n\
             web     db           deny    9           no\n\
             *       *            allow   5\n"
        );
        assert_eq!(
            report.json[0],
            json!({"source": "web", "destination": "db", "action": "deny", "precedence": 9,
                   "description": "no", "id": "u"})
        );
    }

    #[test]
    fn check_tells_the_rule_and_exits_by_the_answer() {
        let mut verdict = VerdictJson {
            source: "web".to_owned(),
            destination: "db".to_owned(),
            allowed: false,
            rule: None,
            reason: "intention web -> db deny (precedence 9)".to_owned(),
        };
        let report = check_report(&verdict, STYLE).unwrap();
        assert_eq!(report.text, "✗ denied: web -> db by intention web -> db deny (precedence 9)\n");
        assert_eq!(report.exit, Exit::Negative);
        verdict.allowed = true;
        assert_eq!(check_report(&verdict, STYLE).unwrap().exit, Exit::Ok);
    }
}
