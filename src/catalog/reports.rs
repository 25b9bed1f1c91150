//! Results of checks on their way in, and who is told of them.
//!
//! Every door (HTTP API, registry service, Sync streams, the server's own runner) goes through here, so
//! whoever runs the clocks of TTL checks hears of a report whatever way it came.

use std::sync::OnceLock;

use super::{Catalog, CatalogError, plan, validate};
use crate::model::{CheckId, CheckReport, NodeName};

/// A result that the catalog has taken: reads show it.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    pub node: &'a NodeName,
    pub report: &'a CheckReport,
    /// The status is another than before.
    pub changed: bool,
    pub reporter: Reporter,
}

/// Where a result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// The runner of this server's own checks.
    Runner,
    /// Everybody else.
    Outside,
}

/// The one who is told of results.
#[derive(Default)]
pub(super) struct Listener(OnceLock<Tell>);

type Tell = Box<dyn Fn(Taken<'_>) + Send + Sync>;

/// What a plan makes of reports.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// The first id that is not known.
    pub(super) unknown: Option<CheckId>,
    /// The others, each with whether its status changes.
    pub(super) taken: Vec<(CheckReport, bool)>,
}

impl Catalog {
    /// Calls `tell` for each result that is taken from now on. It must not block. There is one such
    /// listener; of several the first stays.
    pub fn on_report(&self, tell: impl Fn(Taken<'_>) + Send + Sync + 'static) {
        if self.shared.listener.0.set(Box::new(tell)).is_err() {
            tracing::error!("somebody listens to check results already");
        }
    }

    /// Takes check results from outside; only status changes wake watchers and are written. A new
    /// output alone stays in memory.
    ///
    /// # Errors
    /// `NoCheck` for unknown ids, after the others were taken; `Invalid`, `Contended` and `Store` as
    /// all writes.
    pub async fn report_checks(
        &self,
        node: &NodeName,
        reports: Vec<CheckReport>,
    ) -> Result<(), CatalogError> {
        self.take_reports(node, &reports, Reporter::Outside).await
    }

    /// As [`Self::report_checks`], for the runner of this server's own checks.
    ///
    /// # Errors
    /// See there.
    pub async fn record_checks(
        &self,
        node: &NodeName,
        reports: Vec<CheckReport>,
    ) -> Result<(), CatalogError> {
        self.take_reports(node, &reports, Reporter::Runner).await
    }

    async fn take_reports(
        &self,
        node: &NodeName,
        reports: &[CheckReport],
        reporter: Reporter,
    ) -> Result<(), CatalogError> {
        validate::reports(reports)?;
        let (_, reported) = self.shared.write(|state| plan::report(state, node, reports)).await?;
        if let Some(tell) = self.shared.listener.0.get() {
            for (report, changed) in &reported.taken {
                tell(Taken { node, report, changed: *changed, reporter });
            }
        }
        reported.unknown.map_or(Ok(()), |id| Err(CatalogError::NoCheck(id)))
    }
}
