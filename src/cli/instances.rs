//! `weft instances NAME`: the instances of one service and their checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::call::{Call, encode};
use super::client::Client;
use super::error::{CliError, Fault};
use super::output::{Cell, Style, Tone, table};
use super::report::Report;
use super::suggest::nearest;
use crate::model::{CheckStatus, ServiceName};

pub(super) async fn run(client: &Client, name: &ServiceName, style: Style) -> Result<Report, CliError> {
    let path = format!("/v1/health/service/{}", encode(name.as_str()));
    let entries: Vec<Entry> = client.call(&Call::get(path)).await?;
    if entries.is_empty() {
        let call = Call::get("/v1/catalog/services");
        let known: BTreeMap<String, Vec<String>> = client.call(&call).await?;
        return Err(unknown(name, &known));
    }
    report(&entries.iter().map(Instance::from).collect::<Vec<_>>(), style)
}

fn unknown(name: &ServiceName, known: &BTreeMap<String, Vec<String>>) -> CliError {
    let next = match nearest(name.as_str(), known.keys().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? weft instances {near}"),
        None => "list all services: weft services".to_owned(),
    };
    CliError::new(
        Fault::NotFound,
        format!("there is no service `{name}`"),
        format!("{} registered", super::output::count(known.len(), "service")),
        next,
    )
}

/// What is read of an entry of `health/service`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: NodeEntry,
    service: ServiceEntry,
    checks: Vec<CheckEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeEntry {
    node: String,
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceEntry {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    tags: Option<Vec<String>>,
    address: String,
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckEntry {
    #[serde(rename = "CheckID")]
    id: String,
    name: String,
    status: String,
    output: String,
}

/// One instance in the output.
#[derive(Debug, Serialize)]
struct Instance<'a> {
    id: &'a str,
    service: &'a str,
    node: &'a str,
    /// Its own address, or that of its node.
    address: &'a str,
    port: u16,
    status: &'static str,
    tags: &'a [String],
    checks: Vec<CheckLine<'a>>,
}

#[derive(Debug, Serialize)]
struct CheckLine<'a> {
    id: &'a str,
    name: &'a str,
    status: &'a str,
    output: &'a str,
}

impl<'a> From<&'a Entry> for Instance<'a> {
    fn from(entry: &'a Entry) -> Self {
        let Entry { node, service, checks } = entry;
        // A status nobody knows, such as maintenance, counts as the worst.
        let status =
            |check: &CheckEntry| CheckStatus::parse(&check.status).unwrap_or(CheckStatus::Critical);
        let worst = checks.iter().map(status).max().unwrap_or(CheckStatus::Passing);
        let line = |check: &'a CheckEntry| CheckLine {
            id: &check.id,
            name: &check.name,
            status: &check.status,
            output: &check.output,
        };
        Self {
            id: &service.id,
            service: &service.service,
            node: &node.node,
            address: if service.address.is_empty() { &node.address } else { &service.address },
            port: service.port,
            status: worst.as_str(),
            tags: service.tags.as_deref().unwrap_or_default(),
            checks: checks.iter().map(line).collect(),
        }
    }
}

fn report(instances: &[Instance<'_>], style: Style) -> Result<Report, CliError> {
    let rows: Vec<_> = instances.iter().map(row).collect();
    let text = table(style, &["INSTANCE", "NODE", "ADDRESS", "STATUS", "TAGS", "FAILING"], &rows);
    Report::new(text, instances)
}

fn row(instance: &Instance<'_>) -> Vec<Cell> {
    let tone = match instance.status {
        "passing" => Tone::Good,
        "warning" => Tone::Warn,
        _ => Tone::Bad,
    };
    let host = instance.address;
    let address = if host.contains(':') {
        format!("[{host}]:{}", instance.port)
    } else {
        format!("{host}:{}", instance.port)
    };
    let failing: Vec<_> = instance
        .checks
        .iter()
        .filter(|check| check.status != "passing")
        .map(|check| check.output.lines().next().filter(|l| !l.is_empty()).unwrap_or(check.name))
        .collect();
    vec![
        Cell::from(instance.id),
        Cell::from(instance.node),
        Cell::from(address),
        Cell::new(tone, instance.status),
        Cell::from(instance.tags.join(",")),
        Cell::from(failing.join("; ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entries() -> Vec<Entry> {
        let check = |status: &str, output: &str| json!({"CheckID": "c", "Name": "Service 'web' check", "Status": status, "Output": output, "Notes": ""});
        serde_json::from_value(json!([
            {"Node": {"Node": "n1", "Address": "127.0.0.1"},
             "Service": {"ID": "web-1", "Service": "web", "Tags": ["v1"], "Address": "", "Port": 80},
             "Checks": [check("passing", "")]},
            {"Node": {"Node": "n2", "Address": "10.0.0.2"},
             "Service": {"ID": "web-2", "Service": "web", "Tags": null, "Address": "::1", "Port": 81},
             "Checks": [check("warning", ""), check("critical", "refused\nmore")]},
        ]))
        .unwrap()
    }

    #[test]
    fn golden() {
        let entries = entries();
        let style = Style { color: false, unicode: false };
        let report = report(&entries.iter().map(Instance::from).collect::<Vec<_>>(), style).unwrap();
        assert_eq!(
            report.text,
            "INSTANCE  NODE  ADDRESS       STATUS    TAGS  FAILING\n\
             web-1     n1    127.0.0.1:80  passing   v1\n\
             web-2     n2    [::1]:81      critical        Service 'web' check; refused\n"
        );
        assert_eq!(
            report.json[0],
            json!({"id": "web-1", "service": "web", "node": "n1", "address": "127.0.0.1", "port": 80,
                   "status": "passing", "tags": ["v1"],
                   "checks": [{"id": "c", "name": "Service 'web' check", "status": "passing", "output": ""}]})
        );
    }

    #[test]
    fn an_unknown_name_gets_a_suggestion() {
        let known = BTreeMap::from([("web".to_owned(), vec![]), ("api".to_owned(), vec![])]);
        let error = unknown(&ServiceName::new("wbe").unwrap(), &known);
        assert_eq!(
            error.to_string(),
            "error[W0305]: there is no service `wbe`\n  from: 2 services registered\n  \
             try:  did you mean `web`? weft instances web"
        );
    }
}
