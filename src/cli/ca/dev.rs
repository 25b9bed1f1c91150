//! `weft ca dev`: throw-away certificates for testing by hand; needs no server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::ca::{CaError, DEV_DIRECTORY, write_dev};
use crate::cli::error::{CliError, Fault};
use crate::cli::output::{Style, Tone, line};
use crate::cli::report::Report;
use crate::model::{ServiceName, duration};

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DevArgs {
    /// Where the files go; made when missing
    #[arg(long, value_name = "DIR", default_value = DEV_DIRECTORY)]
    dir: PathBuf,
    /// Service to make a certificate for; repeatable
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "web")]
    service: Vec<ServiceName>,
    /// How long the certificates last
    #[arg(long, value_name = "DURATION", default_value = "72h", value_parser = duration::parse)]
    ttl: Duration,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

pub(in crate::cli) fn run(args: &DevArgs, style: Style) -> Result<Report, CliError> {
    let paths =
        write_dev(&args.dir, &args.service, args.ttl, args.force).map_err(|error| failed(&error))?;
    let mut text = String::new();
    for path in &paths {
        text += &line(style, Tone::Good, "wrote", &path.display().to_string());
    }
    let report = Report::new(text, &paths)?;
    Ok(report.with_note("for testing only: the key of this root was not kept"))
}

fn failed(error: &CaError) -> CliError {
    let (fault, next) = match error {
        CaError::Exists(_) => (Fault::Usage, "choose another --dir, or replace the files with --force"),
        CaError::SameFile(_) | CaError::Name { .. } => (Fault::Usage, "choose other --service names"),
        _ => (Fault::Local, "choose a --dir that can be written"),
    };
    CliError::new(fault, "no certificates were written", error.to_string(), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Exit;

    #[test]
    fn files_are_written_once_and_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let args = |force| DevArgs {
            dir: dir.path().join("certs"),
            service: vec![ServiceName::new("api").unwrap()],
            ttl: Duration::from_secs(3600),
            force,
        };
        let style = Style { color: false, unicode: false };
        let report = run(&args(false), style).unwrap();
        assert_eq!(report.json.as_array().unwrap().len(), 3);
        for path in report.json.as_array().unwrap() {
            assert!(std::path::Path::new(path.as_str().unwrap()).is_file());
        }
        let again = run(&args(false), style).unwrap_err();
        assert_eq!(again.fault.exit(), Exit::Usage);
        assert!(run(&args(true), style).is_ok());
    }
}
