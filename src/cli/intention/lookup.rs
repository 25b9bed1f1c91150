//! Finding intentions: `get` and `match`.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{ALL, Rule, bare, party};
use crate::cli::call::{Call, encode};
use crate::cli::client::Client;
use crate::cli::consul::tables::columns;
use crate::cli::error::{CliError, Fault, Lead};
use crate::cli::output::printable;
use crate::cli::report::Report;
use crate::model::Party;
use crate::model::time::rfc850;

/// A pair of services, or an id.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Which {
    /// Service name or `*`; or the id of an intention
    source: String,
    /// Service name or `*`
    destination: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct MatchArgs {
    /// Intentions that apply to this service as a source
    #[arg(long, conflicts_with = "destination")]
    source: bool,
    /// Intentions that apply to this service as a destination; the default
    #[arg(long)]
    destination: bool,
    /// Service name or `*`
    #[arg(value_parser = party)]
    name: Party,
}

/// An intention with what only `get` shows.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Found {
    #[serde(flatten)]
    pub(super) rule: Rule,
    #[serde(rename(deserialize = "Meta"), default)]
    meta: BTreeMap<String, String>,
    #[serde(rename(deserialize = "CreatedAt"), default)]
    created_at: String,
}

impl Found {
    pub(super) async fn of_pair(
        client: &Client,
        source: &Party,
        destination: &Party,
    ) -> Result<Option<Self>, CliError> {
        let all: Vec<Self> = client.call(&Call::get(ALL)).await?;
        Ok(all.into_iter().find(|found| {
            (found.rule.source.as_str(), found.rule.destination.as_str())
                == (source.as_str(), destination.as_str())
        }))
    }

    /// # Errors
    /// When there is no such intention, too.
    pub(super) async fn named(client: &Client, which: &Which) -> Result<Self, CliError> {
        let missing = |what: String, consul: String| {
            let next = "list all intentions: weft intention list";
            CliError::new(Fault::NotFound, what, client.url(), next).in_consul(consul)
        };
        let Some(destination) = &which.destination else {
            let id = &which.source;
            let call = Call::get(format!("{ALL}/{}", encode(id)));
            let found = client.find(&call).await?;
            return found.ok_or_else(|| {
                let consul = "Intention not found".to_owned();
                missing(format!("there is no intention with the id {id}"), consul)
            });
        };
        let wrong = |fault| {
            let next = "use the names of two services, or `*`";
            CliError::new(Fault::Usage, "this is no pair of services", fault, next)
        };
        let (source, destination) =
            (party(&which.source).map_err(wrong)?, party(destination).map_err(wrong)?);
        let found = Self::of_pair(client, &source, &destination).await?;
        found.ok_or_else(|| {
            missing(
                format!("there is no intention {source} -> {destination}"),
                format!(
                    "Intention with source {source:?} and destination {destination:?} not found.",
                    source = source.as_str(),
                    destination = destination.as_str()
                ),
            )
        })
    }
}

pub(super) async fn get(client: &Client, which: &Which) -> Result<Report, CliError> {
    report(&Found::named(client, which).await?)
}

fn report(found: &Found) -> Result<Report, CliError> {
    let Found { rule, meta, created_at } = found;
    let mut rows = vec![
        ["Source:".to_owned(), rule.source.clone()],
        ["Destination:".to_owned(), rule.destination.clone()],
        ["Action:".to_owned(), rule.action.clone()],
        ["ID:".to_owned(), rule.id.clone()],
    ];
    if !rule.description.is_empty() {
        rows.push(["Description:".to_owned(), rule.description.clone()]);
    }
    rows.extend(meta.iter().map(|(key, value)| [format!("Meta[{key}]:"), value.clone()]));
    let created = rfc850(created_at).unwrap_or_else(|| created_at.clone());
    rows.push(["Created At:".to_owned(), created]);
    Report::new(columns(&rows), found)
}

pub(super) async fn matching(client: &Client, args: &MatchArgs) -> Result<Report, CliError> {
    let by = if args.source { "source" } else { "destination" };
    let name = bare(args.name.as_str());
    let call = Call::get(format!("{ALL}/match")).with("by", by).with("name", name);
    let mut matches: BTreeMap<String, Vec<Rule>> =
        client.call(&call).await.lead("Error matching the connection")?;
    let rules = matches.remove(name).unwrap_or_default();
    let sentence = |Rule { source, destination, action, .. }: &Rule| {
        printable(&format!("{source} => {destination} ({action})")) + "\n"
    };
    Report::new(rules.iter().map(sentence).collect(), &rules)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn golden() {
        let found: Found = serde_json::from_value(json!({
            "ID": "1aef6fad-de83-f853-5030-aaab2962f5a0", "SourceName": "web", "DestinationName": "api",
            "Action": "allow", "Precedence": 9, "Meta": {"by": "me"}, "Description": "why",
            "CreatedAt": "2026-11-23T08:37:29.123Z"
        }))
        .unwrap();
        let report = report(&found).unwrap();
        assert_eq!(
            report.text,
            "Source:       web\n\
             Destination:  api\n\
             Action:       allow\n\
             ID:           1aef6fad-de83-f853-5030-aaab2962f5a0\n\
             Description:  why\n\
             Meta[by]:     me\n\
             Created At:   Monday, 23-Nov-26 08:37:29 UTC\n"
        );
        assert_eq!(
            (report.json["source"].as_str(), report.json["meta"]["by"].as_str()),
            (Some("web"), Some("me"))
        );
    }
}
