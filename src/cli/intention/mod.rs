//! `weft intention`: who may connect to whom.
//!
//! `rules` writes, `lookup` finds and shows; the verdict and the list are here.

mod lookup;
mod rules;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::client::Client;
use super::consul::tables::columns;
use super::error::{CliError, Exit, Lead};
use super::output::{Cell, Style, Tone, table};
use super::report::Report;
use crate::api::json::weft::VerdictJson;
use crate::model::{Action, Party, ServiceName};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum IntentionCommand {
    /// Allow SOURCE to connect to DESTINATION
    Allow(Pair),
    /// Forbid SOURCE to connect to DESTINATION; open connections are closed
    Deny(Pair),
    /// Let SOURCE connect to DESTINATION, and log each connection as one that would be denied
    Audit(Pair),
    /// Make an intention, unless the pair has one
    Create(rules::CreateArgs),
    /// List all intentions, the strongest first
    List,
    /// Show the intention of a pair
    Get(lookup::Which),
    /// Show the intentions that apply to a destination, in the order they are tried
    Match(lookup::MatchArgs),
    /// Remove the intention of a pair
    Delete(lookup::Which),
    /// Say whether SOURCE may connect to DESTINATION, and why: exits 0 or 1
    Check {
        #[arg(value_parser = name)]
        source: ServiceName,
        #[arg(value_parser = name)]
        destination: ServiceName,
    },
}

/// Two services; `*` stands for every service.
#[derive(Debug, Clone, Args)]
pub(super) struct Pair {
    /// Service name, or `*` for every service
    #[arg(value_parser = party)]
    source: Party,
    /// Service name, or `*` for every service
    #[arg(value_parser = party)]
    destination: Party,
}

/// A party, also with the only namespace there is: `default/web`.
fn party(text: &str) -> Result<Party, String> {
    Party::parse(bare(text)).map_err(|fault| fault.to_string())
}

fn name(text: &str) -> Result<ServiceName, String> {
    ServiceName::new(bare(text)).map_err(|fault| fault.to_string())
}

fn bare(text: &str) -> &str {
    text.strip_prefix("default/").unwrap_or(text)
}

const ALL: &str = "/v1/connect/intentions";

pub(super) async fn run(
    client: &Client,
    command: &IntentionCommand,
    style: Style,
) -> Result<Report, CliError> {
    match command {
        IntentionCommand::Allow(pair) => rules::set(client, pair, Action::Allow, style).await,
        IntentionCommand::Deny(pair) => rules::set(client, pair, Action::Deny, style).await,
        IntentionCommand::Audit(pair) => rules::set(client, pair, Action::Audit, style).await,
        IntentionCommand::Create(args) => rules::create(client, args, style).await,
        IntentionCommand::List => {
            let rules: Vec<Rule> =
                client.call(&Call::get(ALL)).await.lead("Failed to retrieve the intentions list")?;
            list_report(&rules, style)
        }
        IntentionCommand::Get(which) => lookup::get(client, which).await,
        IntentionCommand::Match(args) => lookup::matching(client, args).await,
        IntentionCommand::Delete(which) => rules::delete(client, which, style).await,
        IntentionCommand::Check { source, destination } => {
            let call = Call::get("/v1/weft/intention/check")
                .with("source", source)
                .with("destination", destination);
            check_report(&client.call(&call).await.lead("Error checking the connection")?, style)
        }
    }
}

/// What is read of an intention, and what is shown of it.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
        let tone = match rule.action.as_str() {
            "allow" => Tone::Good,
            "audit" => Tone::Warn,
            _ => Tone::Bad,
        };
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
    if rules.is_empty() {
        let note = "there are no intentions; the default policy decides (weft status)";
        return Ok(report.with_note(note).in_consul("There are no intentions.\n"));
    }
    Ok(report.in_consul(consul_list(rules)))
}

fn consul_list(rules: &[Rule]) -> String {
    let head = ["ID", "Source", "Action", "Destination", "Precedence"].map(str::to_owned);
    let row = |rule: &Rule| {
        let Rule { source, destination, action, id, .. } = rule;
        let precedence = rule.precedence.to_string();
        [id.clone(), source.clone(), action.clone(), destination.clone(), precedence]
    };
    columns(&std::iter::once(head).chain(rules.iter().map(row)).collect::<Vec<_>>())
}

fn check_report(verdict: &VerdictJson, style: Style) -> Result<Report, CliError> {
    let (tone, word, exit) = match (verdict.allowed, verdict.audited) {
        (true, false) => (Tone::Good, "allowed", Exit::Ok),
        (true, true) => (Tone::Warn, "allowed for now", Exit::Ok),
        (false, _) => (Tone::Bad, "denied", Exit::Negative),
    };
    let VerdictJson { source, destination, reason, .. } = verdict;
    let text = format!("{} {word}: {source} -> {destination} by {reason}\n", style.mark(tone));
    let consul = if verdict.allowed { "Allowed\n" } else { "Denied\n" };
    let report = Report::new(text, verdict)?.with_exit(exit);
    Ok(report.in_consul_with(consul, exit.code()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert_eq!(
            report.consul.unwrap().text,
            "ID  Source  Action  Destination  Precedence\n\
             u   web     deny    db           9\n    *       allow   *            5\n"
        );
    }

    #[test]
    fn check_tells_the_rule_and_exits_by_the_answer() {
        let mut verdict = VerdictJson {
            source: "web".to_owned(),
            destination: "db".to_owned(),
            allowed: false,
            audited: false,
            rule: None,
            reason: "intention web -> db deny (precedence 9)".to_owned(),
        };
        let report = check_report(&verdict, STYLE).unwrap();
        assert_eq!(report.text, "✗ denied: web -> db by intention web -> db deny (precedence 9)\n");
        assert_eq!(report.exit, Exit::Negative);
        verdict.allowed = true;
        assert_eq!(check_report(&verdict, STYLE).unwrap().exit, Exit::Ok);
        verdict.audited = true;
        let report = check_report(&verdict, STYLE).unwrap();
        assert!(report.text.contains("allowed for now: web -> db"), "{}", report.text);
        assert_eq!(report.exit, Exit::Ok);
    }
}
