//! `weft kv get`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::{Pair, bare, path, usage};
use crate::cli::call::Call;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault, Lead};
use crate::cli::report::Report;

/// Width of the first column of the detailed form: the longest name and six.
const NAME_WIDTH: usize = 17;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct GetArgs {
    /// A key, or a prefix with --recurse or --keys
    #[arg(value_name = "KEY|PREFIX", default_value = "")]
    key: String,
    /// Print all keys and values under the prefix
    #[arg(long, conflicts_with = "keys")]
    recurse: bool,
    /// Print all keys under the prefix, up to the next separator
    #[arg(long)]
    keys: bool,
    /// What separates parts of a key, for --keys
    #[arg(long, value_name = "TEXT", default_value = "/")]
    separator: String,
    /// Print values as base64
    #[arg(long)]
    base64: bool,
    /// Print indexes, flags and session as well
    #[arg(long)]
    detailed: bool,
}

const LEAD: &str = "Error querying Consul agent";

pub(super) async fn run(client: &Client, args: &GetArgs) -> Result<Report, CliError> {
    let key = bare(&args.key);
    if args.keys {
        let call = Call::get(path(key)).flag("keys", true).with("separator", &args.separator);
        let keys: Vec<String> = client.find(&call).await.lead(LEAD)?.unwrap_or_default();
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        return Report::new(text, &keys);
    }
    if args.recurse {
        let call = Call::get(path(key)).flag("recurse", true);
        let pairs: Vec<Pair> = client.find(&call).await.lead(LEAD)?.unwrap_or_default();
        return Ok(Report::new(String::new(), &pairs)?.with_bytes(listed(&pairs, args)));
    }
    if key.is_empty() {
        return Err(usage("Error! Missing KEY argument", "name a key, or list with --recurse"));
    }
    let found: Option<Vec<Pair>> = client.find(&Call::get(path(key))).await.lead(LEAD)?;
    let pair = found.and_then(|pairs| pairs.into_iter().next()).ok_or_else(|| {
        let next = "list the keys: weft kv get --keys";
        CliError::new(Fault::NotFound, format!("there is no key `{key}`"), client.url(), next)
            .in_consul(format!("Error! No key exists at: {key}"))
    })?;
    let mut bytes = if args.detailed { detailed(&pair, args) } else { value(&pair, args) };
    bytes.push(b'\n');
    Ok(Report::new(String::new(), &pair)?.with_bytes(bytes))
}

fn value(pair: &Pair, args: &GetArgs) -> Vec<u8> {
    if args.base64 { STANDARD.encode(&pair.value).into_bytes() } else { pair.value.clone() }
}

fn listed(pairs: &[Pair], args: &GetArgs) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, pair) in pairs.iter().enumerate() {
        if args.detailed {
            if index > 0 {
                bytes.push(b'\n');
            }
            bytes.extend(detailed(pair, args));
        } else {
            bytes.extend(pair.key.as_bytes());
            bytes.push(b':');
            bytes.extend(value(pair, args));
        }
        bytes.push(b'\n');
    }
    bytes
}

fn detailed(pair: &Pair, args: &GetArgs) -> Vec<u8> {
    let session = pair.session.as_deref().filter(|session| !session.is_empty()).unwrap_or("-");
    let fields = [
        ("CreateIndex", pair.create_index.to_string()),
        ("Flags", pair.flags.to_string()),
        ("Key", pair.key.clone()),
        ("LockIndex", pair.lock_index.to_string()),
        ("ModifyIndex", pair.modify_index.to_string()),
        ("Session", session.to_owned()),
        ("Value", String::new()),
    ];
    let lines = fields.map(|(name, value)| format!("{name:NAME_WIDTH$}{value}"));
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend(value(pair, args));
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(key: &str, session: Option<&str>) -> Pair {
        serde_json::from_value(json!({
            "LockIndex": 1, "Key": key, "Flags": 42, "Value": "//8=", "Session": session,
            "CreateIndex": 5, "ModifyIndex": 9
        }))
        .unwrap()
    }

    fn args(base64: bool, detailed: bool) -> GetArgs {
        let (key, separator) = (String::new(), String::new());
        GetArgs { key, recurse: true, keys: false, separator, base64, detailed }
    }

    #[test]
    fn values_stay_bytes() {
        let pairs = [pair("a", None), pair("b", Some(""))];
        assert_eq!(listed(&pairs, &args(false, false)), b"a:\xff\xff\nb:\xff\xff\n");
        assert_eq!(listed(&pairs, &args(true, false)), b"a://8=\nb://8=\n");
    }

    #[test]
    fn the_detailed_form_is_consuls() {
        let pairs = [pair("a", Some("s-1")), pair("b", None)];
        let text = String::from_utf8(listed(&pairs, &args(true, true))).unwrap();
        let (first, second) = text.split_once("\n\n").unwrap();
        assert_eq!(
            first,
            "CreateIndex      5\nFlags            42\nKey              a\nLockIndex        1\n\
             ModifyIndex      9\nSession          s-1\nValue            //8="
        );
        assert!(second.contains("Session          -\n") && second.ends_with("//8=\n"));
    }
}
