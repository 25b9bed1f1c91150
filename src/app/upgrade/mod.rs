//! Upgrade in place: a running sidecar hands its listening sockets and its identity to a successor, and
//! goes on until its open streams are done.
//!
//! `weft proxy --upgrade-socket PATH` serves one end ([`Testator`]); the same command, started again,
//! finds that somebody listens there and is the other end ([`Predecessor`]):
//!
//! ```text
//! successor                          predecessor, serving all the time
//!   Hello ─────────────────────────►
//!   ◄───────────────────────── Estate, then each listener and each check's result
//!   follows the configuration
//!   begins to accept
//!   Ready ─────────────────────────►
//!   ◄────────────────────────── Yours  stops accepting, drains, ends
//!   holds the instance
//! ```
//!
//! Invariants: until `Yours`, the predecessor serves and holds the instance as if nobody had come, so a
//! successor that fails at any point before changes nothing; a socket whose queue holds connections
//! is open in one of the two at every moment; private keys pass over this socket only and are not logged.

mod message;
mod predecessor;
mod testator;

use std::io;
use std::path::{Path, PathBuf};

pub use message::Who;
pub use predecessor::{Heritage, Predecessor};
pub use testator::{Offer, Testator};

use crate::net::handover;

/// Why an upgrade did not take place.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error(
        "the directory of {path} can be entered by others, who could take this sidecar's identity; \
         make it yours alone (chmod 700)",
        path = path.display()
    )]
    Exposed { path: PathBuf },
    #[error("cannot use the upgrade socket {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("the other process broke off the upgrade: {source}")]
    Lost { source: io::Error },
    #[error("the other process gave up before the upgrade was complete; its log says why")]
    Gone,
    #[error("the upgrade was not complete within {seconds} s")]
    Late { seconds: u64 },
    #[error("the other process speaks another language ({what}); stop it, then start this one")]
    Language { what: String },
    #[error(
        "the running sidecar stands for {running}, this one is for {wanted}; give it a socket of its own"
    )]
    Stranger { running: String, wanted: String },
}

/// Only this user may be able to reach the socket.
fn check_place(path: &Path) -> Result<(), UpgradeError> {
    let private = handover::is_private(path);
    match private.map_err(|source| UpgradeError::Socket { path: path.to_owned(), source })? {
        true => Ok(()),
        false => Err(UpgradeError::Exposed { path: path.to_owned() }),
    }
}
