//! `weft kv export` and `weft kv import`: all keys under a prefix as one JSON list, and back.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Pair, bare, path, usage};
use crate::cli::call::Call;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault, Lead};
use crate::cli::report::{Report, indented};
use crate::cli::sources;

/// A hundred values of the largest size; more is a job for several imports.
const MAX_IMPORT_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportArgs {
    /// What `export` printed; @FILE for what a file holds, `-` for stdin
    #[arg(value_name = "DATA")]
    data: OsString,
    /// Put this before every key
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
}

/// The form in which entries travel.
#[derive(Debug, Deserialize, Serialize)]
struct Exported {
    key: String,
    #[serde(default)]
    flags: u64,
    /// Base64.
    #[serde(default)]
    value: String,
}

pub(super) async fn export(client: &Client, prefix: &str) -> Result<Report, CliError> {
    let call = Call::get(path(prefix)).flag("recurse", true);
    let found: Option<Vec<Pair>> = client.find(&call).await.lead("Error querying Consul agent")?;
    let exported =
        |pair: Pair| Exported { key: pair.key, flags: pair.flags, value: STANDARD.encode(pair.value) };
    let all: Vec<Exported> = found.unwrap_or_default().into_iter().map(exported).collect();
    let mut report = Report::new(String::new(), &all)?;
    report.text = indented(&report.json, "\t");
    Ok(report)
}

/// Everything is checked before anything is written.
pub(super) async fn import(client: &Client, args: &ImportArgs) -> Result<Report, CliError> {
    if args.data.is_empty() {
        return Err(usage("Error! Empty DATA argument", "use @FILE for a file, `-` for stdin"));
    }
    let data = sources::value(args.data.as_bytes(), MAX_IMPORT_BYTES).map_err(|error| {
        let text = format!("Error! {}", error.as_consul());
        error.in_consul(text)
    })?;
    let entries = entries(&data, &args.prefix)?;
    let mut text = String::new();
    for (written, (key, flags, value)) in entries.iter().enumerate() {
        let call = Call::put(path(key)).with("flags", flags).raw(value.clone());
        client.call::<bool>(&call).await.map_err(|mut error| {
            let lead = format!("Error! Failed writing data for key {key}: {}", error.as_consul());
            error.evidence +=
                &format!("; {written} of {} keys were written, `{key}` was not", entries.len());
            error.in_consul(lead)
        })?;
        text += &format!("Imported: {key}\n");
    }
    let keys: Vec<&str> = entries.iter().map(|(key, ..)| key.as_str()).collect();
    Report::new(text, &json!({ "imported": keys }))
}

type Entry = (String, u64, Vec<u8>);

fn entries(data: &[u8], prefix: &str) -> Result<Vec<Entry>, CliError> {
    let refuse = |why: String, consul: String| {
        let next = "import what `weft kv export` has printed";
        CliError::new(Fault::Usage, "this cannot be imported", why, next).in_consul(consul)
    };
    let list: Vec<Exported> = serde_json::from_slice(data)
        .map_err(|fault| refuse(fault.to_string(), format!("Cannot unmarshal data: {fault}")))?;
    let decoded = |Exported { key, flags, value }: Exported| {
        if key.is_empty() {
            return Err(refuse(
                "an entry has no key".to_owned(),
                "Cannot unmarshal data: no key".to_owned(),
            ));
        }
        let value = STANDARD.decode(value).map_err(|fault| {
            refuse(
                format!("the value of `{key}` is not base64: {fault}"),
                format!("Error base 64 decoding value for key {key}: {fault}"),
            )
        })?;
        Ok((format!("{prefix}{}", bare(&key)), flags, value))
    };
    list.into_iter().map(decoded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_checked_as_a_whole() {
        let good = br#"[{"key":"k","flags":3,"value":"aGk="},{"key":"e"}]"#;
        assert_eq!(
            entries(good, "p/").unwrap(),
            [("p/k".to_owned(), 3, b"hi".to_vec()), ("p/e".to_owned(), 0, vec![])]
        );
        for (bad, consul) in [
            (&b"{"[..], "Cannot unmarshal data: "),
            (
                br#"[{"key":"a","value":"aGk="},{"key":"k","value":"?"}]"#,
                "Error base 64 decoding value for key k: ",
            ),
            (br#"[{"value":"aGk="}]"#, "Cannot unmarshal data: "),
            (br#"[{"key":""}]"#, "Cannot unmarshal data: "),
        ] {
            let error = entries(bad, "").unwrap_err();
            assert!(error.as_consul().starts_with(consul), "{}", error.as_consul());
        }
    }
}
