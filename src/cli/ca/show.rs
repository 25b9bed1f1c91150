//! `weft ca show`.

use super::rotate::progress;
use crate::api::json::ca::{CaJson, CaRoot};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::{Cell, Style, Tone, line, table};
use crate::cli::report::Report;
use crate::model::time::{epoch_ms, rfc3339};

/// A root that ends within so many days is to be replaced.
const SOON_DAYS: u64 = 90;

/// Exits 1 when the active root ends soon.
pub(super) fn report(ca: &CaJson, style: Style) -> Result<Report, CliError> {
    let mut text = line(style, Tone::Plain, "trust domain", &ca.trust_domain);
    text += &line(style, Tone::Plain, "bundle", &format!("version {}", ca.bundle_version));
    text += &line(style, Tone::Plain, "leaf ttl", &ca.leaf_ttl);
    let (tone, said) = match ca.encrypted {
        true => (Tone::Good, "encrypted in the store"),
        false => (Tone::Warn, "not encrypted in the store; see --ca-key-file"),
    };
    text += &line(style, tone, "keys", said);
    if let Some(rotation) = &ca.rotation {
        text += &line(style, Tone::Plain, "rotation", &progress(rotation));
    }
    if ca.requested {
        text += &line(style, Tone::Warn, "request", "waits for `weft ca install`");
    }
    let rows: Vec<_> = ca.roots.iter().map(row).collect();
    text += &table(style, &["STATE", "ROOT", "NAME", "KEY", "NOT AFTER", "LEAVES"], &rows);
    let ends_soon = ca.roots.first().is_some_and(ends_soon);
    let report = Report::new(text, ca)?;
    Ok(match ends_soon {
        true => report
            .with_note("the root that signs ends soon; replace it with `weft ca rotate`")
            .with_exit(Exit::Negative),
        false => report,
    })
}

fn ends_soon(root: &CaRoot) -> bool {
    let soon_ms = epoch_ms(std::time::SystemTime::now()) + SOON_DAYS * 24 * 3600 * 1000;
    // In this form times sort as text.
    root.not_after < rfc3339(soon_ms)
}

fn row(root: &CaRoot) -> Vec<Cell> {
    let tone = if root.state == "active" { Tone::Good } else { Tone::Plain };
    vec![
        Cell::new(tone, &root.state),
        Cell::from(&root.id),
        Cell::from(&root.name),
        Cell::from(if root.external { "external" } else { "here" }),
        Cell::from(&root.not_after),
        Cell::from(root.leaves_at.as_deref().unwrap_or_default()),
    ]
}
