//! `consul connect ca`: the configuration of the certificate authority, in Consul's form and words.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::call::Call;
use super::client::Client;
use super::error::{CliError, Fault, Lead};
use super::report::{Report, indented};
use super::sources;

const PATH: &str = "/v1/connect/ca/configuration";
/// A configuration with a root and its key has about 3 KiB.
const MAX_FILE_BYTES: u64 = 256 * 1024;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConnectCommand {
    /// The certificate authority
    #[command(subcommand)]
    Ca(ConfigCommand),
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the configuration
    GetConfig,
    /// Replace the configuration; with PrivateKey and RootCert in it the root is rotated
    SetConfig(SetArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct SetArgs {
    /// The configuration in JSON; `-` for stdin
    #[arg(long, value_name = "FILE")]
    config_file: PathBuf,
}

pub(super) async fn run(client: &Client, command: &ConnectCommand) -> Result<Report, CliError> {
    let ConnectCommand::Ca(command) = command;
    match command {
        ConfigCommand::GetConfig => {
            let config: Value =
                client.call(&Call::get(PATH)).await.lead("Error querying CA configuration")?;
            Report::new(indented(&config, "\t"), &config)
        }
        ConfigCommand::SetConfig(args) => {
            let bytes =
                sources::file(&args.config_file, MAX_FILE_BYTES).lead("Error reading config file")?;
            let config: Value = serde_json::from_slice(&bytes).map_err(|fault| {
                // Not the text: it may hold a key.
                let what = format!("{} is not JSON", args.config_file.display());
                CliError::new(Fault::Usage, what, fault.to_string(), "mend the file")
                    .in_consul(format!("Error parsing config file: {fault}"))
            })?;
            let call = Call::put(PATH).json(&config);
            client.done(&call).await.lead("Error setting CA configuration")?;
            Report::new("Configuration updated!\n".to_owned(), &json!({ "updated": true }))
        }
    }
}
