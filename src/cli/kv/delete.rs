//! `weft kv delete`.

use clap::Args;
use serde_json::json;

use super::{bare, not_done, path, usage};
use crate::cli::call::Call;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Lead};
use crate::cli::report::Report;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// A key, or a prefix with --recurse
    #[arg(value_name = "KEY|PREFIX", default_value = "")]
    key: String,
    /// Remove all keys under the prefix
    #[arg(long)]
    recurse: bool,
    /// Remove only if the key's index is that of --modify-index
    #[arg(long)]
    cas: bool,
    /// Index of --cas
    #[arg(long, value_name = "INDEX")]
    modify_index: Option<u64>,
}

/// Removing what is not there is a success, as in Consul.
pub(super) async fn run(client: &Client, args: &DeleteArgs) -> Result<Report, CliError> {
    let key = bare(&args.key);
    let index = args.modify_index.filter(|index| *index > 0);
    let call = Call::delete(path(key));
    let (call, lead, done) = match (args.recurse, args.cas, index) {
        (false, ..) if key.is_empty() => {
            return Err(usage("Error! Missing KEY argument", "name a key; --recurse removes all"));
        }
        (true, true, _) => {
            return Err(usage("Cannot specify both -cas and -recurse!", "leave one of them out"));
        }
        (_, true, None) => {
            let what =
                "Cannot delete a key that does not exist. Provide a -modify-index greater than than 0.";
            return Err(usage(what, "add --modify-index INDEX"));
        }
        (_, false, Some(_)) => {
            return Err(usage("Cannot specify -modify-index without -cas!", "add --cas"));
        }
        (true, false, None) => (
            call.flag("recurse", true),
            format!("Error! Did not delete prefix {key}"),
            "Deleted keys with prefix",
        ),
        (false, true, Some(index)) => {
            (call.with("cas", index), format!("Error! Did not delete key {key}"), "Deleted key")
        }
        (false, false, None) => (call, format!("Error deleting key {key}"), "Deleted key"),
    };
    if !client.call::<bool>(&call).await.lead(&lead)? {
        return Err(not_done(format!("`{key}` was changed meanwhile"), format!("{lead}: CAS failed")));
    }
    let text = format!("Success! {done}: {key}\n");
    Report::new(text, &json!({ "key": key, "recurse": args.recurse, "deleted": true }))
}
