//! The file of an audit log, and the one thread that writes it.
//!
//! A change is handed to the disk before it happens, and its outcome to the kernel after. When a line
//! cannot be written, whoever waits for it is told; the next one tries again from the file's own end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::refusals::Refusals;
use super::{Chain, Entry, Sealed, sha256};
use crate::access::limits::{MAX_LINE_BYTES, MAX_QUEUED_LINES, MAX_SYNCED_TOGETHER};

/// Who else may write a log can forge it.
const FOREIGN_WRITERS: u32 = 0o022;

/// Why a line was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log {path} cannot be used: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error("the audit log has stopped")]
    Stopped,
}

/// Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub struct AuditLog {
    jobs: mpsc::Sender<Job>,
    refusals: Arc<Mutex<Refusals>>,
}

#[allow(clippy::large_enum_variant, reason = "nearly all jobs are the large one")]
enum Job {
    /// Write a line; before the answer, it is on the disk or merely with the kernel.
    Write {
        entry: Entry,
        on_disk: bool,
        done: Option<Answer>,
    },
    Reopen {
        done: Answer,
    },
}

type Answer = oneshot::Sender<Result<u64, AuditError>>;

impl AuditLog {
    /// Opens or makes the file, goes on with its chain, and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be used, others may write it, or its last line was changed.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let mut writer = Writer { path: path.to_owned(), file: None, chain: None, attempted: None };
        writer.ready()?;
        let (jobs, queue) = mpsc::channel(MAX_QUEUED_LINES);
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|fault| AuditError::File { path: path.to_owned(), why: fault.to_string() })?;
        Ok(Self { jobs, refusals: Arc::default() })
    }

    /// Writes that something is about to happen; it may when this has come back.
    ///
    /// # Errors
    /// When the line is not on the disk: then it must not happen.
    pub async fn begin(&self, entry: Entry) -> Result<Pending, AuditError> {
        let begun = Entry { outcome: "begun".to_owned(), ..entry.clone() };
        let seq = self.write(begun, true).await?;
        Ok(Pending { log: self.clone(), entry: Some(Entry { begun: Some(seq), ..entry }) })
    }

    /// Writes something that must not be known to anybody before it is written.
    ///
    /// # Errors
    /// When the line is not on the disk.
    pub async fn record(&self, entry: Entry) -> Result<(), AuditError> {
        self.write(entry, true).await.map(drop)
    }

    /// Writes that something was refused, unless there are too many of that in one second; they are
    /// counted instead. Whether it could be written changes nothing for whoever was refused.
    pub async fn refused(&self, entry: Entry) {
        if let Some(entry) = self.admitted(entry) {
            let _told_by_the_thread = self.write(entry, false).await;
        }
    }

    /// As [`Self::refused`], without waiting.
    pub fn note_refused(&self, entry: Entry) {
        if let Some(entry) = self.admitted(entry) {
            self.note(entry);
        }
    }

    fn admitted(&self, entry: Entry) -> Option<Entry> {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let unwritten = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).admit(second)?;
        Some(Entry { unwritten: Some(unwritten).filter(|count| *count > 0), ..entry })
    }

    /// Writes an event that has happened, without waiting. Must not be used for what could be refused.
    pub fn note(&self, entry: Entry) {
        if self.jobs.try_send(Job::Write { entry, on_disk: false, done: None }).is_err() {
            tracing::error!("the audit log is too slow: an event is missing in it");
        }
    }

    /// Opens the file anew, after it was moved away; the chain goes on.
    ///
    /// # Errors
    /// When the new file cannot be used; the next line tries again.
    pub async fn reopen(&self) -> Result<(), AuditError> {
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job::Reopen { done }).await.map_err(|_| AuditError::Stopped)?;
        answer.await.map_err(|_| AuditError::Stopped)?.map(drop)
    }

    async fn write(&self, entry: Entry, on_disk: bool) -> Result<u64, AuditError> {
        let (done, answer) = oneshot::channel();
        let job = Job::Write { entry, on_disk, done: Some(done) };
        self.jobs.send(job).await.map_err(|_| AuditError::Stopped)?;
        answer.await.map_err(|_| AuditError::Stopped)?
    }
}

/// Something that has begun. Dropped without an outcome, it was given up: the caller is gone.
pub struct Pending {
    log: AuditLog,
    entry: Option<Entry>,
}

impl Pending {
    /// Writes how it ended. It has happened, so a fault here is only told in the log of the server.
    pub async fn finish(mut self, outcome: String) {
        if let Some(entry) = self.entry.take() {
            let _told_by_the_thread = self.log.write(Entry { outcome, ..entry }, false).await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.log.note(Entry { outcome: "abandoned".to_owned(), ..entry });
        }
    }
}

/// What the thread owns.
struct Writer {
    path: PathBuf,
    /// `None` after a fault, until it could be opened again.
    file: Option<File>,
    /// Where the chain stands; `None` before the first opening.
    chain: Option<Chain>,
    /// Where it stands if the line that failed did get there as a whole.
    attempted: Option<Chain>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < MAX_SYNCED_TOGETHER
                && let Ok(next) = queue.try_recv()
            {
                jobs.push(next);
            }
            self.work(jobs);
        }
    }

    /// Writes all lines, then waits once for the disk if one of them has to be there.
    fn work(&mut self, jobs: Vec<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut must_sync = false;
        for job in jobs {
            match job {
                Job::Write { entry, on_disk, done } => {
                    must_sync |= on_disk;
                    answers.push((done, self.write(entry)));
                }
                Job::Reopen { done } => {
                    self.file = None;
                    answers.push((Some(done), self.ready().map(|_| 0)));
                }
            }
        }
        let synced = if must_sync { self.sync() } else { Ok(()) };
        for (done, result) in answers {
            let result = result.and_then(|seq| synced.clone().map(|()| seq));
            if let Err(fault) = &result {
                tracing::error!("{fault}");
            }
            if let Some(done) = done {
                let _nobody_waits = done.send(result);
            }
        }
    }

    fn write(&mut self, entry: Entry) -> Result<u64, AuditError> {
        self.ready()?;
        self.append(entry)
    }

    /// Appends one line. After a fault the file counts as closed.
    fn append(&mut self, entry: Entry) -> Result<u64, AuditError> {
        let chain = self.chain.clone().unwrap_or_else(Chain::origin);
        let (line, next) =
            chain.seal(entry, SystemTime::now()).map_err(|fault| self.fault(&fault.to_string()))?;
        let Some(file) = &mut self.file else { return Err(self.fault("it is not open")) };
        if let Err(fault) = file.write_all(line.as_bytes()) {
            (self.file, self.attempted) = (None, Some(next));
            return Err(self.fault(&fault.to_string()));
        }
        let seq = next.seq;
        self.chain = Some(next);
        Ok(seq)
    }

    fn sync(&mut self) -> Result<(), AuditError> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|fault| {
            self.file = None;
            self.fault(&fault.to_string())
        })
    }

    /// Opens the file if it is not open, and says so in it.
    fn ready(&mut self) -> Result<(), AuditError> {
        if self.file.is_some() {
            return Ok(());
        }
        let (file, end) = open(&self.path).map_err(|fault| self.fault(&fault.to_string()))?;
        if let (Some(known), Some(found)) = (&self.chain, &end.chain)
            && found != known
            && Some(found) != self.attempted.as_ref()
        {
            return Err(self.fault("somebody else has written it; move it away and reload"));
        }
        self.chain = end.chain.or_else(|| self.chain.take());
        (self.file, self.attempted) = (Some(file), None);
        let entry = match end.piece {
            Some(hash) => Entry { torn: Some(hash), ..Entry::of_server("torn") },
            None => Entry::of_server("opened"),
        };
        if entry.torn.is_some() {
            tracing::warn!(path = %self.path.display(), "the last line of the audit log was cut off; it is marked");
        }
        self.append(entry).map(drop)
    }

    fn fault(&self, why: &str) -> AuditError {
        AuditError::File { path: self.path.clone(), why: why.to_owned() }
    }
}

/// How a file ends.
struct End {
    /// `None` when there is no line in it.
    chain: Option<Chain>,
    /// Hash of a piece of a line after it.
    piece: Option<String>,
    /// Whether the piece still lacks its newline.
    is_open: bool,
}

fn open(path: &Path) -> io::Result<(File, End)> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.mode() & FOREIGN_WRITERS != 0 {
        return Err(io::Error::other("others may write it; chmod it to 0600"));
    }
    file.try_lock().map_err(|_| io::Error::other("another process writes it"))?;
    let end = end_of(&mut file, metadata.len())?;
    if end.is_open {
        file.write_all(b"\n")?;
    }
    Ok((file, end))
}

/// Looks at the last lines: the piece that a crash cut off, or the one that tells of it, are no longer
/// than a line each.
fn end_of(file: &mut File, length: u64) -> io::Result<End> {
    let window = u64::try_from(2 * MAX_LINE_BYTES).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut text = Vec::new();
    file.take(window).read_to_end(&mut text)?;
    let cut = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (whole, piece) = text.split_at(cut);
    let is_open = !piece.is_empty();
    let piece = is_open.then(|| sha256(piece));
    let Some(whole) = whole.strip_suffix(b"\n") else {
        return Ok(End { chain: None, piece, is_open });
    };
    let mut lines = whole.rsplit(|byte| *byte == b'\n');
    let last = lines.next().unwrap_or_default();
    if let Some(sealed) = Sealed::open(last) {
        return Ok(End { chain: Some(sealed.chain()), piece, is_open });
    }
    // The newline after a piece was written, and then the process ended again.
    let before = lines.next().map(Sealed::open);
    let is_piece = piece.is_none() && !last.ends_with(b"\"}");
    match before {
        None if is_piece => Ok(End { chain: None, piece: Some(sha256(last)), is_open }),
        Some(Some(sealed)) if is_piece => {
            Ok(End { chain: Some(sealed.chain()), piece: Some(sha256(last)), is_open })
        }
        _ => Err(io::Error::other(
            "its last line was changed; look at it with `weft audit verify` and move it away",
        )),
    }
}

#[cfg(test)]
mod tests;
