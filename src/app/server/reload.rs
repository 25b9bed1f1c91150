//! Reading the configuration files again: parse, validate, plan, swap. On any fault the old configuration
//! goes on, and whoever asked is told why.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::access::Keeper;
use super::{declared, names};
use crate::app::AppError;
use crate::catalog::Catalog;
use crate::config::{self, AgentKeys, Diagnostic};
use crate::dns;
use crate::store::Store;

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the old configuration goes on; the new one has faults:\n{0}")]
    Invalid(String),
    #[error("the old configuration goes on; the new one was refused: {0}")]
    Refused(#[from] AppError),
    #[error("the old configuration goes on; the files could not be read: {0}")]
    Read(#[from] tokio::task::JoinError),
}

/// The files of a server, and what they are applied to.
pub(super) struct Reloader {
    pub(super) paths: Vec<PathBuf>,
    /// What the server was started with: these settings need a restart to change.
    pub(super) agent: AgentKeys,
    pub(super) store: Arc<dyn Store>,
    pub(super) catalog: Catalog,
    pub(super) keeper: Keeper,
    /// `None` without a DNS port.
    pub(super) dns: Option<dns::Tuner>,
    /// One reload at a time.
    pub(super) alone: Mutex<()>,
}

impl Reloader {
    pub(super) async fn reload(&self) -> Result<(), ReloadError> {
        let _alone = self.alone.lock().await;
        self.keeper.refresh().await?;
        if self.paths.is_empty() {
            tracing::info!("reload: this server was started without configuration files");
            return Ok(());
        }
        let paths = self.paths.clone();
        let loaded = tokio::task::spawn_blocking(move || config::load(&paths)).await?;
        if !loaded.is_valid() {
            return Err(ReloadError::Invalid(faults(&loaded.diagnostics)));
        }
        for warning in &loaded.diagnostics {
            tracing::warn!("{warning}");
        }
        let restart = self.agent.differences(&loaded.agent);
        if !restart.is_empty() {
            tracing::warn!(keys = restart.join(", "), "changed settings that count after a restart");
        }
        if let Some(tuner) = &self.dns {
            let named = names(&loaded.agent.dns).and_then(|settings| tuner.set(settings));
            named.map_err(AppError::Dns)?;
        }
        declared::apply(&*self.store, &self.catalog, &loaded.definitions, &loaded.node_checks).await?;
        tracing::info!(services = loaded.definitions.len(), "configuration reloaded");
        Ok(())
    }
}

fn faults(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for fault in diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{fault}");
    }
    text
}
