//! `weft catalog`: services, nodes and datacenters, in the form scripts read.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::call::{Call, encode};
use super::client::Client;
use super::consul::tables::{columns, key_values, pairs};
use super::error::{CliError, Lead};
use super::output::printable;
use super::report::Report;

/// How much of a node's id the short list shows.
const SHORT_ID: usize = 8;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum CatalogCommand {
    /// List the names of all services, sidecars included
    Services(ServicesArgs),
    /// List all nodes
    Nodes(NodesArgs),
    /// List all datacenters
    Datacenters,
}

#[derive(Debug, Clone, Args)]
pub(super) struct ServicesArgs {
    /// Show the tags of each service
    #[arg(long)]
    tags: bool,
    /// Only services of this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Only services on nodes with this metadata; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = meta)]
    node_meta: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct NodesArgs {
    /// Show ids in full, further addresses and metadata
    #[arg(long)]
    detailed: bool,
    /// Only nodes with an instance of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only nodes with this metadata; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = meta)]
    node_meta: Vec<String>,
    /// Only nodes that match this expression
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Sort by distance from this node
    #[arg(long, value_name = "NODE")]
    near: Option<String>,
}

/// In queries the pair is written with a colon.
fn meta(text: &str) -> Result<String, String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok(format!("{key}:{value}"))
}

pub(super) async fn run(client: &Client, command: &CatalogCommand) -> Result<Report, CliError> {
    match command {
        CatalogCommand::Services(args) => services(client, args).await,
        CatalogCommand::Nodes(args) => nodes(client, args).await,
        CatalogCommand::Datacenters => {
            let names: Vec<String> = client
                .call(&Call::get("/v1/catalog/datacenters"))
                .await
                .lead("Error listing datacenters")?;
            let text: String = names.iter().map(|name| printable(name) + "\n").collect();
            Report::new(text, &names)
        }
    }
}

fn with_meta(call: Call, pairs: &[String]) -> Call {
    pairs.iter().fold(call, |call, pair| call.with("node-meta", pair))
}

type Tags = BTreeMap<String, Vec<String>>;

async fn services(client: &Client, args: &ServicesArgs) -> Result<Report, CliError> {
    let services: Tags = match &args.node {
        Some(node) => {
            let path = format!("/v1/catalog/node/{}", encode(node));
            let call = with_meta(Call::get(path), &args.node_meta);
            let found: Option<NodeServices> =
                client.call(&call).await.lead("Error listing services for node")?;
            found.map(NodeServices::tags).unwrap_or_default()
        }
        None => {
            let call = with_meta(Call::get("/v1/catalog/services"), &args.node_meta);
            client.call(&call).await.lead("Error listing services")?
        }
    };
    service_report(services, args.tags)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeServices {
    services: BTreeMap<String, NodeService>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeService {
    service: String,
    tags: Option<Vec<String>>,
}

impl NodeServices {
    fn tags(self) -> Tags {
        let mut all = Tags::new();
        for service in self.services.into_values() {
            all.entry(service.service).or_default().extend(service.tags.unwrap_or_default());
        }
        all
    }
}

fn service_report(mut services: Tags, with_tags: bool) -> Result<Report, CliError> {
    services.values_mut().for_each(|tags| tags.sort());
    if services.is_empty() {
        let report = Report::new(String::new(), &services)?;
        return Ok(report.with_note("No services match the given query - try expanding your search."));
    }
    let text = if with_tags {
        let rows: Vec<_> =
            services.iter().map(|(name, tags)| (printable(name), printable(&tags.join(",")))).collect();
        pairs(&rows.iter().map(|(name, tags)| (name.as_str(), tags)).collect::<Vec<_>>())
    } else {
        services.keys().map(|name| printable(name) + "\n").collect()
    };
    Report::new(text, &services)
}

/// What is read of a node, and what is shown of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
struct Node {
    #[serde(rename(deserialize = "ID"))]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(alias = "NodeMeta")]
    meta: Option<BTreeMap<String, String>>,
}

async fn nodes(client: &Client, args: &NodesArgs) -> Result<Report, CliError> {
    let (path, lead) = match &args.service {
        Some(name) => {
            (format!("/v1/catalog/service/{}", encode(name)), "Error listing nodes for service")
        }
        None => ("/v1/catalog/nodes".to_owned(), "Error listing nodes"),
    };
    let call = with_meta(Call::get(path), &args.node_meta)
        .with_some("filter", args.filter.as_ref())
        .with_some("near", args.near.as_ref());
    let nodes: Vec<Node> = client.call(&call).await.lead(lead)?;
    node_report(&nodes, args.detailed)
}

fn node_report(nodes: &[Node], detailed: bool) -> Result<Report, CliError> {
    if nodes.is_empty() {
        let report = Report::new(String::new(), nodes)?;
        return Ok(report.with_note("No nodes match the given query - try expanding your search."));
    }
    let text = if detailed {
        let head = ["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"].map(str::to_owned);
        let rows = nodes.iter().map(|node| {
            let [tagged, meta] =
                [&node.tagged_addresses, &node.meta].map(|map| key_values(map.iter().flatten(), ", "));
            let Node { id, node, address, datacenter, .. } = node;
            [node.clone(), id.clone(), address.clone(), datacenter.clone(), tagged, meta]
        });
        columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    } else {
        let head = ["Node", "ID", "Address", "DC"].map(str::to_owned);
        let rows = nodes.iter().map(|Node { id, node, address, datacenter, .. }| {
            let id = id.chars().take(SHORT_ID).collect();
            [node.clone(), id, address.clone(), datacenter.clone()]
        });
        columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    };
    Report::new(text, nodes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_golden() {
        let nodes: Vec<Node> = serde_json::from_value(json!([
            {"ID": "f869ca9c-60c2-bb2f-7ace-11d37f25cd8c", "Node": "n1", "Address": "127.0.0.1",
             "Datacenter": "dc1", "TaggedAddresses": {"wan": "1.1.1.1", "lan": "127.0.0.1"},
             "Meta": {"a": "b"}},
            {"ID": "", "Node": "ext1", "Address": "10.0.0.1", "Datacenter": "dc1",
             "TaggedAddresses": null, "NodeMeta": null},
        ]))
        .unwrap();
        assert_eq!(
            node_report(&nodes, false).unwrap().text,
            "Node  ID        Address    DC\n\
             n1    f869ca9c  127.0.0.1  dc1\n\
             ext1            10.0.0.1   dc1\n"
        );
        assert_eq!(
            node_report(&nodes, true).unwrap().text,
            "Node  ID                                    Address    DC   TaggedAddresses             Meta\n\
             n1    f869ca9c-60c2-bb2f-7ace-11d37f25cd8c  127.0.0.1  dc1  lan=127.0.0.1, wan=1.1.1.1  a=b\n\
             ext1                                        10.0.0.1   dc1                              \n"
        );
    }

    #[test]
    fn services_golden() {
        let services: Tags =
            serde_json::from_value(json!({"web": [], "api": ["v2", "v1"], "consul": []})).unwrap();
        assert_eq!(service_report(services.clone(), false).unwrap().text, "api\nconsul\nweb\n");
        let report = service_report(services, true).unwrap();
        assert_eq!(report.text, "api         v1,v2\nconsul      \nweb\n");
        assert_eq!(report.json, json!({"api": ["v1", "v2"], "consul": [], "web": []}));
        let none = service_report(Tags::new(), false).unwrap();
        assert!(none.text.is_empty() && none.note.is_some());
    }
}
