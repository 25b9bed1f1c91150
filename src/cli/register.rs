//! `weft services register` and `weft services deregister`: from Consul's service files or from flags.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::call::{Call, encode};
use super::client::Client;
use super::error::{CliError, Fault, Lead};
use super::failure::explain;
use super::output::printable;
use super::report::Report;
use super::sources;
use crate::app::AppError;
use crate::config;

/// The loader's own limit; it has explained what is larger.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, Args)]
pub(super) struct RegisterArgs {
    /// Files in HCL or JSON, with all services in them
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name of the service, when there is no file
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Id of the instance [default: its name]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Where it listens [default: the address of the node]
    #[arg(long, value_name = "HOST")]
    address: Option<String>,
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Repeatable
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// connect-proxy for a sidecar
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// A further address, such as wan=203.0.113.9:80; repeatable
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = tagged_address)]
    tagged_address: Vec<(String, Value)>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct DeregisterArgs {
    /// The files it was registered from
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Id of the instance
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn tagged_address(text: &str) -> Result<(String, Value), String> {
    let form = "write it as NAME=HOST:PORT";
    let (name, address) = text.split_once('=').ok_or(form)?;
    let (host, port) = address.rsplit_once(':').ok_or(form)?;
    let port: u16 = port.parse().map_err(|_| form)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((name.to_owned(), json!({ "Address": host, "Port": port })))
}

fn usage(what: &str) -> CliError {
    let next = "name one or more files, or describe the service with flags";
    CliError::new(Fault::Usage, what, "the command line", next).in_consul(what)
}

pub(super) async fn register(client: &Client, args: &RegisterArgs) -> Result<Report, CliError> {
    let services = match (args.files.is_empty(), &args.name) {
        (true, None) => {
            return Err(usage("Service registration requires at least one argument or flags."));
        }
        (false, Some(_)) => {
            return Err(usage("Service registration requires arguments or -id, not both."));
        }
        (true, Some(name)) => vec![from_flags(name, args)],
        (false, None) => from_files(&args.files)?,
    };
    let mut names = Vec::new();
    for service in &services {
        let name = text_of(service, "name").unwrap_or_default();
        let call = Call::put("/v1/agent/service/register").json(service);
        client.done(&call).await.lead(format_args!("Error registering service {name:?}"))?;
        names.push(name);
    }
    let lines = names.iter().map(|name| format!("Registered service: {}\n", printable(name)));
    Report::new(lines.collect(), &json!({ "registered": names }))
}

pub(super) async fn deregister(client: &Client, args: &DeregisterArgs) -> Result<Report, CliError> {
    let ids = match (args.files.is_empty(), &args.id) {
        (true, None) => {
            return Err(usage("Service deregistration requires at least one argument or -id."));
        }
        (false, Some(_)) => {
            return Err(usage("Service deregistration requires arguments or -id, not both."));
        }
        (true, Some(id)) => vec![id.clone()],
        (false, None) => {
            let services = from_files(&args.files)?;
            let id = |service| text_of(service, "id").or_else(|| text_of(service, "name"));
            services.iter().filter_map(id).map(str::to_owned).collect()
        }
    };
    for id in &ids {
        let call = Call::put(format!("/v1/agent/service/deregister/{}", encode(id)));
        client.done(&call).await.lead(format_args!("Error deregistering service {id:?}"))?;
    }
    let lines = ids.iter().map(|id| format!("Deregistered service: {}\n", printable(id)));
    Report::new(lines.collect(), &json!({ "deregistered": ids }))
}

fn from_flags(name: &str, args: &RegisterArgs) -> Value {
    let mut service = Map::from_iter([("Name".to_owned(), json!(name))]);
    let texts = [("ID", &args.id), ("Address", &args.address), ("Kind", &args.kind)];
    for (key, text) in texts {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            service.insert(key.to_owned(), json!(text));
        }
    }
    if let Some(port) = args.port {
        service.insert("Port".to_owned(), json!(port));
    }
    if !args.tag.is_empty() {
        service.insert("Tags".to_owned(), json!(args.tag));
    }
    if !args.meta.is_empty() {
        let meta = args.meta.iter().map(|(key, value)| (key.clone(), json!(value)));
        service.insert("Meta".to_owned(), Value::Object(meta.collect()));
    }
    if !args.tagged_address.is_empty() {
        let addresses = args.tagged_address.iter().cloned().collect();
        service.insert("TaggedAddresses".to_owned(), Value::Object(addresses));
    }
    Value::Object(service)
}

/// Every service of the files, as it stands there. The loader sees them first, because it says where
/// a fault is.
fn from_files(files: &[PathBuf]) -> Result<Vec<Value>, CliError> {
    let loaded = config::load(files);
    if !loaded.is_valid() {
        let text = format!("Error: {}", config::api_message(&loaded.diagnostics));
        return Err(explain(AppError::Config(loaded.diagnostics)).in_consul(text));
    }
    let mut services = Vec::new();
    for file in files {
        services.extend(services_of(file)?);
    }
    if services.is_empty() {
        return Err(usage("the files declare no service"));
    }
    Ok(services)
}

fn services_of(file: &Path) -> Result<Vec<Value>, CliError> {
    let bytes = sources::file(file, MAX_FILE_BYTES)?;
    let values = config::parse_values(&file.display().to_string(), &bytes)
        .map_err(|faults| explain(AppError::Config(faults)))?;
    let mut services = Vec::new();
    for key in ["service", "services"] {
        match field(&values, key) {
            Some(Value::Array(all)) => services.extend(all.iter().cloned()),
            Some(one @ Value::Object(_)) => services.push(one.clone()),
            _ => {}
        }
    }
    Ok(services)
}

/// Keys of files are the same in any case.
pub(super) fn field<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    let entries = object.as_object()?;
    entries.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn text_of<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    field(object, name)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_give_their_services_as_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let hcl = dir.path().join("a.hcl");
        std::fs::write(&hcl, "service { name = \"a\" connect { sidecar_service {} } }\nservices { Name = \"b\" id = \"b1\" }").unwrap();
        let services = from_files(&[hcl]).unwrap();
        assert_eq!(services[0], json!({"name": "a", "connect": {"sidecar_service": {}}}));
        assert_eq!(
            (text_of(&services[1], "name"), text_of(&services[1], "id")),
            (Some("b"), Some("b1"))
        );
        let bad = dir.path().join("bad.hcl");
        std::fs::write(&bad, "service { prot = 1 }").unwrap();
        let error = from_files(&[bad]).unwrap_err();
        assert_eq!(error.fault, Fault::Usage);
        assert!(error.evidence.contains("bad.hcl:1:11"), "{error}");
    }

    #[test]
    fn tagged_addresses_by_table() {
        let address = |host: &str| json!({ "Address": host, "Port": 80 });
        assert_eq!(tagged_address("wan=h:80"), Ok(("wan".to_owned(), address("h"))));
        assert_eq!(tagged_address("wan=[::1]:80"), Ok(("wan".to_owned(), address("::1"))));
        for bad in ["wan", "wan=h", "wan=h:x"] {
            assert!(tagged_address(bad).is_err(), "{bad}");
        }
    }
}
