//! The tunnels that are compared: how each is started on the same ports with the same certificates.
//!
//!     load -> 127.0.0.1:outer [client proxy] -> 127.0.0.1:inner, mutual TLS 1.3 [server proxy] -> backend
//!
//! To add one, write a file with a `Peer` and name it in `all`.

mod consul;
mod envoy;
mod haproxy;
mod nginx;
mod stunnel;
mod weft;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::certificates::Certificates;
use crate::fault::{Doing, Outcome};
use crate::process::{self, Process};

/// Where one start of a pair takes place.
pub struct Place<'a> {
    /// An empty directory of its own.
    pub directory: &'a Path,
    pub certificates: &'a Certificates,
    pub ports: Ports,
    /// Worker threads a proxy may have.
    pub workers: usize,
}

/// A block of ports that nothing else uses.
#[derive(Clone, Copy)]
pub struct Ports {
    pub backend: u16,
    pub inner: u16,
    pub outer: u16,
    first_spare: u16,
}

impl Ports {
    /// Ports of one start, beginning with the backend's.
    pub const BLOCK: u16 = 12;

    pub fn block(first: u16) -> Self {
        Self { backend: first, inner: first + 1, outer: first + 2, first_spare: first + 3 }
    }

    pub fn spare(self, index: u16) -> u16 {
        debug_assert!(index < Self::BLOCK - 3);
        self.first_spare + index
    }
}

impl Place<'_> {
    /// Writes a file into the directory and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).doing(path.display())?;
        Ok(path)
    }
}

/// A kind of proxy, of which two make a tunnel.
pub trait Peer {
    fn name(&self) -> &'static str;

    /// The executable on `PATH`, and the variable that names another.
    fn program_name(&self) -> (&'static str, &'static str);

    /// Whether it needs certificates from us.
    fn needs_certificates(&self) -> bool {
        true
    }

    /// The argument that makes it print its version.
    fn version_argument(&self) -> &'static str {
        "--version"
    }

    /// Starts what the pair needs and waits until it is there: a control plane, whose CPU is reported
    /// apart.
    fn prepare(&self, _program: &Path, _place: &Place<'_>) -> Outcome<Vec<Process>> {
        Ok(Vec::new())
    }

    fn server(&self, program: &Path, place: &Place<'_>) -> Outcome<Command>;

    fn client(&self, program: &Path, place: &Place<'_>) -> Outcome<Command>;
}

/// Every kind there is, in the order of the tables.
pub fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(weft::Weft),
        Box::new(envoy::Envoy),
        Box::new(haproxy::Haproxy),
        Box::new(nginx::Nginx),
        Box::new(consul::Consul),
        Box::new(stunnel::Stunnel),
    ]
}

/// The peer's executable: its variable's, or the first on `PATH`.
pub fn find(peer: &dyn Peer) -> Option<PathBuf> {
    let (name, variable) = peer.program_name();
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        return path.is_file().then_some(path);
    }
    which(name)
}

pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// The first number with dots in what a program prints when asked for its version.
pub fn version(peer: &dyn Peer, program: &Path) -> Outcome<String> {
    let (text, errors) = process::output(program, [peer.version_argument()])?;
    // Some begin with the name they were called by, and a path may have numbers of its own.
    Ok(version_in(&format!("{text} {errors}").replace(&program.display().to_string(), "")))
}

fn version_in(text: &str) -> String {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let mut versions =
        numbers.map(|number| number.trim_matches('.')).filter(|number| number.contains('.'));
    versions.next().unwrap_or("unknown").to_owned()
}

/// A command with arguments of different types of string.
fn command<const N: usize>(program: &Path, arguments: [&dyn AsRef<OsStr>; N]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments.map(AsRef::as_ref));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, expected) in [
            ("envoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("Version 3. No number.", "unknown"),
        ] {
            assert_eq!(version_in(text), expected);
        }
    }
}
