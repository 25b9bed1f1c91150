//! The audit log: one JSON object a line, each sealed with a hash over itself and the line before.
//!
//! Pure: an [`Entry`] and the `Chain` give the next line. `file` writes lines, `verify` reads them.
//! Whoever edits, removes, inserts or swaps a line breaks the chain at that place; that nothing was cut
//! off at the end shows only in comparison with a head that was noted elsewhere.

mod file;
mod refusals;
mod verify;

pub use self::file::{AuditError, AuditLog, Pending};
pub use self::verify::{Broken, Summary, verify};

use std::time::SystemTime;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::limits::MAX_TARGET_CHARS;
use crate::model::hex;
use crate::model::time::{epoch_ms, rfc3339};

/// What the first line of all follows.
const ORIGIN: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Begins the seal, which is the end of every line.
const SEAL: &str = ",\"hash\":\"";

/// What is written of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Who acted: a token by its accessor, a certificate by its fingerprint, the server.
    pub actor: String,
    /// From where: an address, or the user at the other end of a UNIX socket.
    pub peer: String,
    pub method: String,
    /// The row of the table of routes.
    pub route: String,
    /// The path, without its query.
    pub target: String,
    /// `begun`, a status, or a word.
    pub outcome: String,
    /// Number of the line that said `begun`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// Events like this one that were not written, because there were too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<u64>,
    /// Hash of a piece of a line before this one, which a crash had cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn: Option<String>,
}

impl Entry {
    /// An event of the server itself.
    fn of_server(outcome: &str) -> Self {
        Self { actor: "server".to_owned(), outcome: outcome.to_owned(), ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    seq: u64,
    time: String,
    #[serde(flatten)]
    entry: Entry,
    prev: String,
}

/// Where a chain stands: the number and the hash of its last line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    seq: u64,
    head: String,
}

impl Chain {
    fn origin() -> Self {
        Self { seq: 0, head: ORIGIN.to_owned() }
    }

    /// The next line, with its newline, and the chain after it.
    fn seal(&self, mut entry: Entry, now: SystemTime) -> Result<(String, Self), serde_json::Error> {
        if let Some((end, _)) = entry.target.char_indices().nth(MAX_TARGET_CHARS) {
            entry.target.truncate(end);
        }
        let seq = self.seq + 1;
        let time = rfc3339(epoch_ms(now));
        let mut line = serde_json::to_string(&Line { seq, time, entry, prev: self.head.clone() })?;
        line.pop(); // the closing brace comes after the seal
        let head = sha256(line.as_bytes());
        line.push_str(SEAL);
        line.push_str(&head);
        line.push_str("\"}\n");
        Ok((line, Self { seq, head }))
    }
}

/// A line whose own seal holds.
struct Sealed {
    line: Line,
    hash: String,
}

impl Sealed {
    /// `None` when the text is not a whole line, or not what was sealed.
    fn open(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (body, seal) = text.rsplit_once(SEAL)?;
        let hash = seal.strip_suffix("\"}")?;
        if sha256(body.as_bytes()) != hash {
            return None;
        }
        let line = serde_json::from_str(&format!("{body}}}")).ok()?;
        Some(Self { line, hash: hash.to_owned() })
    }

    fn chain(&self) -> Chain {
        Chain { seq: self.line.seq, head: self.hash.clone() }
    }
}

/// Lower-case hex.
fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}
