//! `weft kv`: the key-value store.
//!
//! One file per verb; here is what they share: the form of an entry, keys in paths, encodings.

mod delete;
mod get;
mod put;
mod transfer;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde::{Deserialize, Serialize, Serializer};

use super::call::encode_path;
use super::client::Client;
use super::error::{CliError, Fault};
use super::report::Report;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum KvCommand {
    /// Print the value of a key, or keys and values under a prefix
    Get(get::GetArgs),
    /// Write a value
    Put(put::PutArgs),
    /// Remove a key, or all keys under a prefix
    Delete(delete::DeleteArgs),
    /// Print everything under a prefix in the form `import` reads
    Export {
        #[arg(default_value = "", value_name = "PREFIX")]
        prefix: String,
    },
    /// Write what `export` has printed
    Import(transfer::ImportArgs),
}

pub(super) async fn run(client: &Client, command: &KvCommand) -> Result<Report, CliError> {
    match command {
        KvCommand::Get(args) => get::run(client, args).await,
        KvCommand::Put(args) => put::run(client, args).await,
        KvCommand::Delete(args) => delete::run(client, args).await,
        KvCommand::Export { prefix } => transfer::export(client, prefix).await,
        KvCommand::Import(args) => transfer::import(client, args).await,
    }
}

/// An entry as the API answers it, and as `-o json` shows it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all(deserialize = "PascalCase"))]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) flags: u64,
    /// Base64 on both sides.
    #[serde(deserialize_with = "decoded", serialize_with = "encoded", default)]
    pub(super) value: Vec<u8>,
    #[serde(default)]
    pub(super) session: Option<String>,
    pub(super) lock_index: u64,
    pub(super) create_index: u64,
    pub(super) modify_index: u64,
}

fn decoded<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(text)?.unwrap_or_default();
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

fn encoded<S: Serializer>(value: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(value))
}

/// Path of a key or prefix. Keys begin with no slash, though people like to write one.
pub(super) fn path(key: &str) -> String {
    format!("/v1/kv/{}", encode_path(bare(key)))
}

fn bare(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

fn usage(what: &str, next: &str) -> CliError {
    CliError::new(Fault::Usage, what, "the command line", next).in_consul(what)
}

/// What a write that was not carried out says: another writer was first.
fn not_done(what: String, consul: String) -> CliError {
    let evidence = "the server answered `false`";
    let next = "read the key again (weft kv get --detailed KEY) and decide anew";
    CliError::new(Fault::Refused, what, evidence, next).in_consul(consul)
}
