//! Keeps this process's memory from everybody but the administrator: keys and tokens are in it.
//!
//! `cli` calls it first, for every command. Programs that the process starts are not affected: the
//! kernel forgets it when they begin.

use std::io;

/// From now on a crash leaves no core file, and other processes of the same user can neither trace this
/// one nor read its memory or environment under `/proc`.
///
/// # Errors
/// When the kernel refuses it.
pub fn close() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
