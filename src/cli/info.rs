//! `weft info`: the numbers of the running server.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::call::Call;
use super::client::Client;
use super::error::{CliError, Lead};
use super::output::printable;
use super::report::Report;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Own {
    stats: Stats,
}

type Stats = BTreeMap<String, BTreeMap<String, String>>;

pub(super) async fn run(client: &Client) -> Result<Report, CliError> {
    let own: Own = client.call(&Call::get("/v1/agent/self")).await.lead("Error querying agent")?;
    report(&own.stats)
}

/// Consul's form, in which scripts look for their line.
fn report(stats: &Stats) -> Result<Report, CliError> {
    let mut text = String::new();
    for (group, values) in stats {
        text += &format!("{}:\n", printable(group));
        for (name, value) in values {
            text += &format!("\t{} = {}\n", printable(name), printable(value));
        }
    }
    Report::new(text, stats)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn golden() {
        let own: Own = serde_json::from_value(json!({
            "Stats": {"build": {"version": "1", "prerelease": ""}, "agent": {"checks": "3"}}, "Config": {}
        }))
        .unwrap();
        let report = report(&own.stats).unwrap();
        assert_eq!(report.text, "agent:\n\tchecks = 3\nbuild:\n\tprerelease = \n\tversion = 1\n");
        assert_eq!(report.json["agent"]["checks"], "3");
    }
}
