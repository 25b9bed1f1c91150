//! `weft audit verify`: whether audit logs are what was written. Needs no server.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::error::{CliError, Exit, Fault};
use super::report::Report;
use crate::access::audit::{Broken, Summary, verify};

#[derive(Debug, Clone, Subcommand)]
pub(super) enum AuditCommand {
    /// Name the first line that was changed, removed, added or moved: exits 1 when there is one
    Verify {
        /// The log, after the files that it was moved to, oldest first
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(command: &AuditCommand) -> Result<Report, CliError> {
    let AuditCommand::Verify { files } = command;
    let mut found = Summary::default();
    for file in files {
        match read(file, found) {
            Ok(next) => found = next,
            Err(Broken::Read(fault)) => {
                let what = format!("{} cannot be read", file.display());
                let next = "name an audit log that this user may read";
                return Err(CliError::new(Fault::Local, what, fault.to_string(), next));
            }
            Err(broken) => return negative(file, &broken),
        }
    }
    whole(&found)
}

fn read(file: &Path, before: Summary) -> Result<Summary, Broken> {
    verify(BufReader::new(File::open(file)?), before)
}

fn negative(file: &Path, broken: &Broken) -> Result<Report, CliError> {
    let text = format!("{}: {broken}\n", file.display());
    let json = json!({ "whole": false, "file": file, "fault": broken.to_string() });
    Ok(Report::new(text, &json)?.with_exit(Exit::Negative))
}

fn whole(found: &Summary) -> Result<Report, CliError> {
    let Summary { lines, last, head, follows, torn } = found;
    let mut text = format!("{lines} lines, whole; the last is number {last}, its hash {head}\n");
    if let Some(before) = follows {
        text += &format!("they follow an earlier file, which ends with {before}\n");
    }
    if *torn > 0 {
        text += &format!("{torn} of them tell of a line that a crash had cut off\n");
    }
    let json = json!({
        "whole": true, "lines": lines, "last": last, "head": head, "follows": follows, "torn": torn,
    });
    Report::new(text, &json)
}
