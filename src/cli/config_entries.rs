//! `weft config`: configuration entries, such as service-defaults.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Call, encode};
use super::client::Client;
use super::error::{CliError, Fault, Lead};
use super::failure::explain;
use super::output::printable;
use super::register::field;
use super::report::{Report, indented};
use super::sources;
use crate::app::AppError;
use crate::config;

/// Ten times the largest entry that makes sense.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The name of the one entry of kind proxy-defaults.
const GLOBAL: &str = "global";

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// Create or replace the entry in a file
    Write(WriteArgs),
    /// Print an entry
    Read(Named),
    /// List the names of all entries of a kind
    List {
        /// Such as service-defaults
        #[arg(long, value_name = "KIND")]
        kind: String,
    },
    /// Remove an entry
    Delete(DeleteArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Named {
    /// Such as service-defaults
    #[arg(long, value_name = "KIND")]
    kind: String,
    #[arg(long, value_name = "NAME")]
    name: String,
}

#[derive(Debug, Clone, Args)]
pub(super) struct WriteArgs {
    /// An entry in HCL or JSON; `-` for stdin
    file: PathBuf,
    #[command(flatten)]
    cas: Cas,
}

#[derive(Debug, Clone, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    cas: Cas,
}

#[derive(Debug, Clone, Args)]
struct Cas {
    /// Only if the entry's index is that of --modify-index
    #[arg(long, requires = "modify_index")]
    cas: bool,
    /// Index of --cas
    #[arg(long, value_name = "INDEX")]
    modify_index: Option<u64>,
}

impl Cas {
    fn add_to(&self, call: Call) -> Call {
        call.with_some("cas", self.modify_index.filter(|_| self.cas))
    }
}

impl Named {
    fn call(&self, call: fn(String) -> Call) -> Call {
        call(format!("/v1/config/{}/{}", encode(&self.kind), encode(&self.name)))
    }
}

pub(super) async fn run(client: &Client, command: &ConfigCommand) -> Result<Report, CliError> {
    match command {
        ConfigCommand::Write(args) => write(client, args).await,
        ConfigCommand::Read(named) => read(client, named).await,
        ConfigCommand::List { kind } => list(client, kind).await,
        ConfigCommand::Delete(args) => delete(client, args).await,
    }
}

async fn write(client: &Client, args: &WriteArgs) -> Result<Report, CliError> {
    let (entry, kind, name) = entry(args)?;
    let call = args.cas.add_to(Call::put("/v1/config")).json(&entry);
    let written: bool =
        client.call(&call).await.lead(format_args!("Error writing config entry {kind}/{name}"))?;
    if !written {
        return Err(changed(&kind, &name, "updated"));
    }
    let text = format!("Config entry written: {}/{}\n", printable(&kind), printable(&name));
    Report::new(text, &json!({ "kind": kind, "name": name, "written": true }))
}

/// The entry as it stands in the file, its kind and its name.
fn entry(args: &WriteArgs) -> Result<(Value, String, String), CliError> {
    let bytes = sources::file(&args.file, MAX_FILE_BYTES).lead("Failed to load data")?;
    let lead = "Failed to decode config entry input";
    let file = args.file.display().to_string();
    let entry = config::parse_values(&file, &bytes).map_err(|faults| {
        let text = format!("{lead}: {}", config::api_message(&faults));
        explain(AppError::Config(faults)).in_consul(text)
    })?;
    let text = |name: &str| field(&entry, name).and_then(Value::as_str).map(str::to_owned);
    let Some(kind) = text("kind") else {
        let what = "Payload does not contain a kind/Kind key at the top level";
        let next = "add a line such as Kind = \"service-defaults\"";
        return Err(CliError::new(Fault::Usage, what, file, next)).lead(lead);
    };
    let name = text("name").unwrap_or_else(|| GLOBAL.to_owned());
    Ok((entry, kind, name))
}

async fn read(client: &Client, named: &Named) -> Result<Report, CliError> {
    let Named { kind, name } = named;
    let call = named.call(Call::get);
    let lead = format!("Error reading config entry {kind:?} / {name:?}");
    let found: Option<Value> = client.find(&call).await.lead(&lead)?;
    let entry = found.ok_or_else(|| {
        let next = format!("list the entries: weft config list --kind {kind}");
        let what = format!("there is no {kind} of the name `{name}`");
        let said = format!(
            "{lead}: Unexpected response code: 404 (Config entry not found for {kind:?} / {name:?})"
        );
        CliError::new(Fault::NotFound, what, client.url(), next).in_consul(said)
    })?;
    Report::new(indented(&entry, "    "), &entry)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    name: String,
}

async fn list(client: &Client, kind: &str) -> Result<Report, CliError> {
    let call = Call::get(format!("/v1/config/{}", encode(kind)));
    let lead = format!("Error listing config entries for kind {kind:?}");
    let all: Vec<Listed> = client.call(&call).await.lead(lead)?;
    let names: Vec<String> = all.into_iter().map(|listed| listed.name).collect();
    let text: String = names.iter().map(|name| printable(name) + "\n").collect();
    Report::new(text, &names)
}

async fn delete(client: &Client, args: &DeleteArgs) -> Result<Report, CliError> {
    let Named { kind, name } = &args.named;
    let call = args.cas.add_to(args.named.call(Call::delete));
    let lead = format!("Error deleting config entry {kind}/{name}");
    let answer: Value = client.call(&call).await.lead(lead)?;
    if answer == json!(false) {
        return Err(changed(kind, name, "deleted"));
    }
    let text = format!("Config entry deleted: {}/{}\n", printable(kind), printable(name));
    Report::new(text, &json!({ "kind": kind, "name": name, "deleted": true }))
}

fn changed(kind: &str, name: &str, done: &str) -> CliError {
    let what = format!("{kind}/{name} was changed meanwhile");
    let next = format!("read it again: weft config read --kind {kind} --name {name}");
    CliError::new(Fault::Refused, what, "the server answered `false`", next)
        .in_consul(format!("Config entry not {done}: {kind}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Result<(Value, String, String), CliError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        entry(&WriteArgs { file, cas: Cas { cas: false, modify_index: None } })
    }

    #[test]
    fn entries_by_table() {
        let expected = json!({"Kind": "service-defaults", "Name": "api", "Protocol": "http"});
        for (name, text) in [
            ("a.hcl", "Kind = \"service-defaults\"\nName = \"api\"\nProtocol = \"http\""),
            ("a.json", r#"{"Kind": "service-defaults", "Name": "api", "Protocol": "http"}"#),
            ("a", r#" {"Kind": "service-defaults", "Name": "api", "Protocol": "http"}"#),
        ] {
            let (entry, kind, called) = parse(name, text).unwrap();
            assert_eq!(
                (entry, kind.as_str(), called.as_str()),
                (expected.clone(), "service-defaults", "api"),
                "{name}"
            );
        }
        assert_eq!(parse("p.hcl", "kind = \"proxy-defaults\"").unwrap().2, "global");
        let error = parse("p.hcl", "name = \"x\"").unwrap_err();
        assert!(error.as_consul().ends_with("does not contain a kind/Kind key at the top level"));
        let error = parse("p.hcl", "kind = ").unwrap_err();
        assert!(error.as_consul().starts_with("Failed to decode config entry input: "), "{error}");
    }
}
