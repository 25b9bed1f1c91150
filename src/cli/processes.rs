//! The commands that run for long. Each gets its arguments as they were typed; `app` does the work.

use std::io::Write;
use std::path::PathBuf;

use super::args::{DevArgs, ProxyArgs, RunArgs, ServerArgs};
use super::error::{CliError, Exit, Fault};
use super::{Global, Output};

/// `weft server`: `--http-addr` is where the HTTP API listens.
pub(super) fn server(_args: &ServerArgs, _global: &Global) -> Result<Exit, CliError> {
    Err(not_built_in("server"))
}

/// `weft proxy`.
pub(super) fn proxy(_args: &ProxyArgs, _global: &Global) -> Result<Exit, CliError> {
    Err(not_built_in("proxy"))
}

/// `weft run`.
pub(super) fn run(_args: &RunArgs, _global: &Global) -> Result<Exit, CliError> {
    Err(not_built_in("run"))
}

/// `weft dev`: `--http-addr` is where the HTTP API listens.
pub(super) fn dev(_args: &DevArgs, _global: &Global) -> Result<Exit, CliError> {
    Err(not_built_in("dev"))
}

/// `weft validate`.
pub(super) fn validate(
    _paths: &[PathBuf],
    _output: Output,
    _out: &mut impl Write,
    _err: &mut impl Write,
) -> Result<u8, CliError> {
    Err(not_built_in("validate"))
}

fn not_built_in(command: &str) -> CliError {
    CliError::new(
        Fault::NotBuiltIn,
        format!("`weft {command}` is not built in"),
        "this build has the client commands only",
        "use a complete build",
    )
}
