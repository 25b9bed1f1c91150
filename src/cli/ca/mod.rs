//! `weft ca`: the certificate authority of the mesh. `dev` needs no server.
//!
//! `show` is what people see of it, `rotate` begins a rotation and follows it.

pub(super) mod dev;
mod rotate;
mod show;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use self::rotate::RotateArgs;
use super::call::Call;
use super::client::Client;
use super::error::{CliError, Fault};
use super::output::Style;
use super::report::Report;
use super::sources;
use crate::api::json::ca::{CaJson, RequestReply};
use crate::ca::limits::MAX_PEM_BYTES;
use crate::store::private;

const PATH: &str = "/v1/weft/ca";

#[derive(Debug, Clone, Subcommand)]
pub(super) enum CaCommand {
    /// Show the roots and how far a rotation is: exits 1 when something needs attention
    Show,
    /// Replace the root by a new one, without a failed connection
    Rotate(RotateArgs),
    /// Print the certificates that the mesh trusts, as PEM
    Export,
    /// Replace the root by one of your own, whose key the server keeps from then on
    Import(ImportArgs),
    /// Print a request for an intermediate, to be signed by an authority elsewhere
    Csr,
    /// Install what that authority has made of the request
    Install(InstallArgs),
    /// Write a new root and a certificate for each service into a directory, for testing by hand
    Dev(dev::DevArgs),
}

#[derive(Debug, Clone, Args)]
pub(super) struct ImportArgs {
    /// The root's certificate, PEM; `-` for stdin
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its private key, PEM; a file of mode 0600
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    rotate: RotateArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct InstallArgs {
    /// The intermediate and, after it, the certificate that signed it, PEM; `-` for stdin
    chain: PathBuf,
    #[command(flatten)]
    rotate: RotateArgs,
}

pub(super) async fn run(
    client: &Client,
    command: &CaCommand,
    style: Style,
    err: &mut dyn Write,
) -> Result<Report, CliError> {
    match command {
        CaCommand::Show => show::report(&client.call(&Call::get(PATH)).await?, style),
        CaCommand::Rotate(args) => {
            let call = Call::post(format!("{PATH}/rotate")).json(&args.with(json!({})));
            rotate::run(client, call, args, err).await
        }
        CaCommand::Export => export(client).await,
        CaCommand::Import(args) => {
            let body = json!({ "certificate": pem(&args.cert)?, "key": key(&args.key)? });
            let call = Call::post(format!("{PATH}/import")).json(&args.rotate.with(body));
            rotate::run(client, call, &args.rotate, err).await
        }
        CaCommand::Csr => {
            let reply: RequestReply = client.call(&Call::post(format!("{PATH}/csr"))).await?;
            let note = "let the other authority sign it with its extensions, then run `weft ca install`";
            Ok(Report::new(reply.csr.clone(), &reply)?.with_note(note))
        }
        CaCommand::Install(args) => {
            let body = json!({ "chain": pem(&args.chain)? });
            let call = Call::post(format!("{PATH}/install")).json(&args.rotate.with(body));
            rotate::run(client, call, &args.rotate, err).await
        }
        CaCommand::Dev(args) => dev::run(args, style),
    }
}

async fn export(client: &Client) -> Result<Report, CliError> {
    let ca: CaJson = client.call(&Call::get(PATH)).await?;
    let all: Vec<&str> = ca.roots.iter().map(|root| root.certificate.as_str()).collect();
    Report::new(all.concat(), &all)
}

fn pem(path: &std::path::Path) -> Result<String, CliError> {
    let bytes = sources::file(path, MAX_PEM_BYTES as u64)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A key comes from a file that nobody else reads, and from nowhere else.
fn key(path: &std::path::Path) -> Result<String, CliError> {
    let bytes = private::read(path, MAX_PEM_BYTES as u64).map_err(|fault| {
        let next = "keep the key in a regular file that only you may read";
        CliError::new(Fault::Local, "the private key was not read", fault.to_string(), next)
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
