//! `weft members`: the servers there are.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::client::Client;
use super::consul::tables::{columns, key_values};
use super::error::{CliError, Fault, Lead};
use super::output::{Cell, Style, Tone, table};
use super::report::Report;

#[derive(Debug, Clone, Args)]
pub(super) struct MembersArgs {
    /// Show all that is known of each member
    #[arg(long)]
    detailed: bool,
    /// Only members whose status (alive, leaving, left, failed) matches this regular expression
    #[arg(long, value_name = "REGEX")]
    status: Option<String>,
    /// Only members that match this expression
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// The members of other datacenters as well
    #[arg(long)]
    wan: bool,
}

/// What is read of a member, and what is shown of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
struct Member {
    name: String,
    addr: String,
    port: u16,
    #[serde(deserialize_with = "status_word")]
    status: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

fn status_word<'de, D: serde::Deserializer<'de>>(number: D) -> Result<String, D::Error> {
    const WORDS: [&str; 5] = ["none", "alive", "leaving", "left", "failed"];
    let number = usize::deserialize(number)?;
    Ok(WORDS.get(number).copied().unwrap_or("unknown").to_owned())
}

pub(super) async fn run(client: &Client, args: &MembersArgs, style: Style) -> Result<Report, CliError> {
    let pattern = args.status.as_deref().unwrap_or(".*");
    let pattern = regex_lite::Regex::new(pattern).map_err(|fault| {
        let next = "use a word or an expression such as `alive|left`";
        CliError::new(Fault::Usage, "the status cannot be matched", fault.to_string(), next)
            .in_consul(format!("Failed to compile status regexp: {fault}"))
    })?;
    let call = Call::get("/v1/agent/members").with_some("filter", args.filter.as_ref());
    let call = if args.wan { call.with("wan", 1) } else { call };
    let mut members: Vec<Member> = client.call(&call).await.lead("Error retrieving members")?;
    members.retain(|member| pattern.is_match(&member.status));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    report(&members, args.detailed, style)
}

fn report(members: &[Member], detailed: bool, style: Style) -> Result<Report, CliError> {
    let rows: Vec<_> = members.iter().map(row).collect();
    let text = table(style, &["NODE", "ADDRESS", "STATUS", "TYPE", "BUILD", "DC"], &rows);
    let report = Report::new(text, members)?;
    if members.is_empty() {
        // Consul says nothing.
        return Ok(report.with_note("no member matches").in_consul_with("", 2));
    }
    Ok(report.in_consul(if detailed { all_of(members) } else { consul(members) }))
}

impl Member {
    fn address(&self) -> String {
        let Self { addr, port, .. } = self;
        if addr.contains(':') { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") }
    }

    fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    fn role(&self) -> &'static str {
        match self.tag("role") {
            "consul" => "server",
            "node" => "client",
            _ => "unknown",
        }
    }
}

fn row(member: &Member) -> Vec<Cell> {
    let tone = if member.status == "alive" { Tone::Good } else { Tone::Bad };
    vec![
        Cell::from(&member.name),
        Cell::from(member.address()),
        Cell::new(tone, &member.status),
        Cell::from(member.role()),
        Cell::from(member.tag("build")),
        Cell::from(member.tag("dc")),
    ]
}

fn consul(members: &[Member]) -> String {
    let head = ["Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Segment"];
    let row = |member: &Member| {
        let build = member.tag("build").split(':').next().unwrap_or_default();
        let segment = match (member.role(), member.tag("segment")) {
            ("server", _) => "<all>",
            (_, "") => "<default>",
            (_, segment) => segment,
        };
        let address = member.address();
        let (vsn, dc) = (member.tag("vsn"), member.tag("dc"));
        [member.name.as_str(), &address, &member.status, member.role(), build, vsn, dc, segment]
            .map(str::to_owned)
    };
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(members.iter().map(row)).collect();
    columns(&rows)
}

fn all_of(members: &[Member]) -> String {
    let head = ["Node", "Address", "Status", "Tags"].map(str::to_owned);
    let row = |member: &Member| {
        let tags = key_values(&member.tags, ",");
        [member.name.clone(), member.address(), member.status.clone(), tags]
    };
    let rows: Vec<_> = std::iter::once(head).chain(members.iter().map(row)).collect();
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn golden() {
        let members: Vec<Member> = serde_json::from_value(json!([
            {"Name": "n1", "Addr": "127.0.0.1", "Port": 18301, "Status": 1,
             "Tags": {"role": "consul", "build": "1.8.7:abc", "vsn": "2", "dc": "dc1"}},
            {"Name": "n2", "Addr": "::1", "Port": 1, "Status": 4, "Tags": {"role": "node"}},
        ]))
        .unwrap();
        let style = Style { color: false, unicode: false };
        let report = report(&members, false, style).unwrap();
        assert_eq!(
            report.text,
            "NODE  ADDRESS          STATUS  TYPE    BUILD      DC\n\
             n1    127.0.0.1:18301  alive   server  1.8.7:abc  dc1\n\
             n2    [::1]:1          failed  client\n"
        );
        assert_eq!(
            report.consul.unwrap().text,
            "Node  Address          Status  Type    Build  Protocol  DC   Segment\n\
             n1    127.0.0.1:18301  alive   server  1.8.7  2         dc1  <all>\n\
             n2    [::1]:1          failed  client                        <default>\n"
        );
        assert!(all_of(&members).ends_with(
            "build=1.8.7:abc,dc=dc1,role=consul,vsn=2\nn2    [::1]:1          failed  role=node\n"
        ));
    }

    #[test]
    fn nobody_is_a_code_of_its_own_for_consul() {
        let style = Style { color: false, unicode: false };
        let report = report(&[], false, style).unwrap();
        assert_eq!(report.consul.map(|said| (said.text, said.exit)), Some((String::new(), 2)));
    }
}
