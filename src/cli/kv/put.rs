//! `weft kv put`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;

use super::{bare, not_done, path, usage};
use crate::cli::call::Call;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Fault, Lead};
use crate::cli::report::Report;
use crate::cli::sources;

/// More than any server takes; its own limit is the one that is explained.
const MAX_VALUE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PutArgs {
    key: String,
    /// The value; @FILE for what a file holds, `-` for stdin, nothing for an empty value
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    data: Option<OsString>,
    /// The data are base64
    #[arg(long)]
    base64: bool,
    /// A number that is kept with the value
    #[arg(long, value_name = "N", default_value_t = 0)]
    flags: u64,
    /// Write only if the key's index is that of --modify-index; 0 only if there is no such key
    #[arg(long, conflicts_with_all = ["acquire", "release"])]
    cas: bool,
    /// Index of --cas
    #[arg(long, value_name = "INDEX")]
    modify_index: Option<u64>,
    /// Write and take the key's lock for --session
    #[arg(long, conflicts_with = "release")]
    acquire: bool,
    /// Write and give the key's lock back
    #[arg(long)]
    release: bool,
    /// Session of --acquire and --release
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

pub(super) async fn run(client: &Client, args: &PutArgs) -> Result<Report, CliError> {
    let key = bare(&args.key);
    if key.is_empty() {
        return Err(usage("Error! Missing KEY argument", "name a key"));
    }
    let value = value(args)?;
    let session = args.session.as_deref().filter(|session| !session.is_empty());
    let call = Call::put(path(key)).raw(value);
    let call = if args.flags == 0 { call } else { call.with("flags", args.flags) };
    let (call, lead, done) = match (args.cas, args.acquire, args.release, session) {
        (true, ..) => {
            let index = args.modify_index.ok_or_else(|| {
                usage("Must specify -modify-index with -cas!", "add --modify-index INDEX")
            })?;
            (call.with("cas", index), format!("Error! Did not write to {key}"), "Data written to")
        }
        (_, true, _, Some(session)) => {
            (call.with("acquire", session), WRITING.into(), "Lock acquired on")
        }
        (_, _, true, Some(session)) => {
            (call.with("release", session), WRITING.into(), "Lock released on")
        }
        (_, true, ..) | (_, _, true, _) => {
            let what = "Error! Missing -session (required with -acquire and -release)";
            return Err(usage(what, "make a session, and name it with --session ID"));
        }
        _ => (call, WRITING.into(), "Data written to"),
    };
    if !client.call::<bool>(&call).await.lead(&lead)? {
        let (what, consul) = refused(args, key);
        return Err(not_done(what, consul));
    }
    let text = format!("Success! {done}: {key}\n");
    Report::new(text, &json!({ "key": key, "written": true }))
}

const WRITING: &str = "Error! Failed writing data";

fn refused(args: &PutArgs, key: &str) -> (String, String) {
    if args.cas {
        (format!("`{key}` was changed meanwhile"), format!("Error! Did not write to {key}: CAS failed"))
    } else if args.acquire {
        (format!("`{key}` is locked"), "Error! Did not acquire lock".to_owned())
    } else if args.release {
        (format!("the session does not hold `{key}`"), "Error! Did not release lock".to_owned())
    } else {
        (format!("`{key}` was not written"), format!("{WRITING}: the server did not"))
    }
}

fn value(args: &PutArgs) -> Result<Vec<u8>, CliError> {
    let data = args.data.as_deref().unwrap_or_default().as_bytes();
    let data = sources::value(data, MAX_VALUE_BYTES).map_err(|error| {
        let text = format!("Error! {}", error.as_consul());
        error.in_consul(text)
    })?;
    if !args.base64 {
        return Ok(data);
    }
    STANDARD.decode(data.trim_ascii_end()).map_err(|fault| {
        let next = "leave --base64 out to write the data as they are";
        CliError::new(Fault::Usage, "the data are not base64", fault.to_string(), next)
            .in_consul(format!("Error! Cannot base 64 decode data: {fault}"))
    })
}
