//! The commands that ask a server: their names, and how each of them is carried out.

use std::io::Write;

use clap::Subcommand;

use super::access::{Access, Flags};
use super::address::Env;
use super::client::Client;
use super::error::{CliError, Fault};
use super::output::Style;
use super::report::Report;
use super::{
    agent, api_token, ban, ca, catalog, config_entries, connect, info, instances, intention, kv, lock,
    maint, members, proxies, register, services, status, token, wait, watch,
};
use crate::model::ServiceName;

/// What is asked of a server.
#[derive(Debug, Subcommand)]
pub(super) enum Question {
    /// List all services, or register one
    Services {
        #[command(subcommand)]
        command: Option<ServicesCommand>,
    },
    /// Show the instances of a service
    Instances { name: ServiceName },
    /// Wait until a service is there; for entrypoints
    Wait(wait::WaitArgs),
    /// List names, nodes and datacenters
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Allow, deny and check connections
    #[command(subcommand)]
    Intention(intention::IntentionCommand),
    /// List all sidecars: exits 1 when one does not follow
    Proxies,
    /// Show the state of the mesh: exits 1 when something is wrong
    Status,
    /// Look at the certificate authority, rotate its root, or give it one of your own
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Consul's commands for the certificate authority
    #[command(subcommand, hide = true)]
    Connect(connect::ConnectCommand),
    /// Make enrolment tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Refuse certificates, and cut what is open with them
    #[command(subcommand)]
    Ban(ban::BanCommand),
    /// Make, list and revoke tokens of the HTTP API
    #[command(subcommand)]
    ApiToken(api_token::ApiTokenCommand),
    /// Read and write the key-value store
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Run a program while a lock is held
    Lock(lock::LockArgs),
    /// Print a view, or run a program each time it changes
    Watch(watch::WatchArgs),
    /// Read and write configuration entries
    #[command(subcommand)]
    Config(config_entries::ConfigCommand),
    /// Take the node or an instance out of service and back
    Maint(maint::MaintArgs),
    /// List the servers
    Members(members::MembersArgs),
    /// Show the numbers of the server
    Info,
    /// Follow the log of the server
    Monitor(agent::MonitorArgs),
    /// Make the server read its files again
    Reload,
    /// End the server as SIGTERM does
    Leave,
    /// Let the server meet others; there is nothing to join but the store
    #[command(hide = true)]
    Join {
        #[arg(long)]
        wan: bool,
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Remove a node that has no agent
    ForceLeave {
        #[arg(long, hide = true)]
        prune: bool,
        node: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum ServicesCommand {
    /// Register the services of files, or one that flags describe
    Register(register::RegisterArgs),
    /// Take an instance, or those of files, out of the catalog
    Deregister(register::DeregisterArgs),
}

/// Asks the server, on a runtime of this thread alone.
pub(super) fn ask(
    question: &Question,
    flags: &Flags,
    env: Env<'_>,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Report, CliError> {
    let access = Access::resolve(flags, env)?;
    for note in &access.notes {
        super::say(err, note);
    }
    let client = Client::new(access);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| {
        let next = "raise the limit of open files (ulimit -n)";
        CliError::new(Fault::Local, "the command cannot start", fault.to_string(), next)
    })?;
    runtime.block_on(answer(question, &client, style, out, err))
}

async fn answer(
    question: &Question,
    client: &Client,
    style: Style,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Report, CliError> {
    match question {
        Question::Services { command: None } => services::run(client, style).await,
        Question::Services { command: Some(ServicesCommand::Register(args)) } => {
            register::register(client, args).await
        }
        Question::Services { command: Some(ServicesCommand::Deregister(args)) } => {
            register::deregister(client, args).await
        }
        Question::Instances { name } => instances::run(client, name, style).await,
        Question::Wait(args) => wait::run(client, args, style).await,
        Question::Catalog(command) => catalog::run(client, command).await,
        Question::Intention(command) => intention::run(client, command, style).await,
        Question::Proxies => proxies::run(client, style).await,
        Question::Status => status::run(client, style).await,
        Question::Ca(command) => ca::run(client, command, style, err).await,
        Question::Connect(command) => connect::run(client, command).await,
        Question::Token(command) => token::run(client, command).await,
        Question::Ban(command) => ban::run(client, command, style).await,
        Question::ApiToken(command) => api_token::run(client, command, style).await,
        Question::Kv(command) => kv::run(client, command).await,
        Question::Lock(args) => lock::run(client, args, err).await,
        Question::Watch(args) => watch::run(client, args, err).await,
        Question::Config(command) => config_entries::run(client, command).await,
        Question::Maint(args) => maint::run(client, args).await,
        Question::Members(args) => members::run(client, args, style).await,
        Question::Info => info::run(client).await,
        Question::Monitor(args) => agent::monitor(client, args, out).await,
        Question::Reload => agent::reload(client).await,
        Question::Leave => agent::leave(client).await,
        Question::Join { addresses, wan } => agent::join(client, addresses, *wan).await,
        Question::ForceLeave { node, prune } => agent::force_leave(client, node, *prune).await,
    }
}
