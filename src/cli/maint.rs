//! `weft maint`: takes the node, or one instance, out of every answer and back.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::{Call, encode};
use super::client::Client;
use super::error::{CliError, Fault, Lead};
use super::output::printable;
use super::report::Report;

#[derive(Debug, Clone, Args)]
pub(super) struct MaintArgs {
    /// Begin maintenance
    #[arg(long)]
    enable: bool,
    /// End maintenance
    #[arg(long)]
    disable: bool,
    /// Why; shown with the check that takes it out
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only the instance with this id, instead of the whole node
    #[arg(long, value_name = "ID")]
    service: Option<String>,
}

pub(super) async fn run(client: &Client, args: &MaintArgs) -> Result<Report, CliError> {
    let refuse = |what: &str, next: &str| {
        Err(CliError::new(Fault::Usage, what, "the command line", next).in_consul(what))
    };
    let reason = args.reason.as_deref().filter(|reason| !reason.is_empty());
    match (args.enable, args.disable) {
        (true, true) => {
            refuse("Only one of -enable or -disable may be provided", "leave one of them out")
        }
        (false, _) if reason.is_some() => {
            refuse("Reason may only be provided with -enable", "leave --reason out")
        }
        (false, false) if args.service.is_some() => {
            refuse("Service requires either -enable or -disable", "add --enable or --disable")
        }
        (false, false) => list(client).await,
        (enable, _) => set(client, enable, args.service.as_deref(), reason).await,
    }
}

async fn set(
    client: &Client,
    enable: bool,
    service: Option<&str>,
    reason: Option<&str>,
) -> Result<Report, CliError> {
    let (path, what) = match service {
        Some(id) => (format!("/v1/agent/service/maintenance/{}", encode(id)), "service"),
        None => ("/v1/agent/maintenance".to_owned(), "node"),
    };
    let doing = if enable { "enabling" } else { "disabling" };
    let call = Call::put(path).with("enable", enable).with_some("reason", reason);
    client.done(&call).await.lead(format_args!("Error {doing} {what} maintenance"))?;
    let state = if enable { "enabled" } else { "disabled" };
    let text = match service {
        Some(id) => format!("Service maintenance is now {state} for {:?}\n", printable(id)),
        None => format!("Node maintenance is now {state}\n"),
    };
    Report::new(text, &json!({ "service": service, "maintenance": enable, "reason": reason }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    node: String,
    notes: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
}

/// What is under maintenance.
#[derive(Debug, Serialize)]
struct Under {
    /// `null` for the node as a whole.
    service: Option<String>,
    node: String,
    reason: String,
}

async fn list(client: &Client) -> Result<Report, CliError> {
    let checks: BTreeMap<String, Check> =
        client.call(&Call::get("/v1/agent/checks")).await.lead("Error getting checks")?;
    report(checks)
}

fn report(checks: BTreeMap<String, Check>) -> Result<Report, CliError> {
    let under = |(id, check): (String, Check)| {
        let Check { node, notes: reason, service_id } = check;
        match (id.as_str(), id.starts_with("_service_maintenance:")) {
            ("_node_maintenance", _) => Some(Under { service: None, node, reason }),
            (_, true) => Some(Under { service: Some(service_id), node, reason }),
            _ => None,
        }
    };
    let all: Vec<Under> = checks.into_iter().filter_map(under).collect();
    let text: String = all
        .iter()
        .map(|Under { service, node, reason }| {
            let reason = printable(reason);
            match service {
                None => format!("Node:\n  Name:   {}\n  Reason: {reason}\n\n", printable(node)),
                Some(id) => format!("Service:\n  ID:     {}\n  Reason: {reason}\n\n", printable(id)),
            }
        })
        .collect();
    Report::new(text, &all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn golden() {
        let check = |service: &str| json!({"Node": "n1", "Notes": "x", "ServiceID": service});
        let checks = serde_json::from_value(json!({
            "service:api": check("api"),
            "_service_maintenance:api": check("api"),
            "_node_maintenance": check(""),
        }));
        let report = report(checks.unwrap()).unwrap();
        assert_eq!(
            report.text,
            "Node:\n  Name:   n1\n  Reason: x\n\nService:\n  ID:     api\n  Reason: x\n\n"
        );
        assert_eq!(report.json[1], json!({"service": "api", "node": "n1", "reason": "x"}));
    }
}
