//! Lines on their way to a slow writer: gathered under a lock that is held for microseconds, written in
//! batches by a thread of their own.
//!
//! The access log uses it. Whoever puts a line never waits for the writer: when too much has gathered,
//! the line is lost and the caller is told. A crash loses at most what one pause gathers.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long lines gather before they are written.
const PAUSE: Duration = Duration::from_millis(5);
/// So much is written without a pause.
const BATCH_BYTES: usize = 64 * 1024;
/// So much may wait: a reader of the log that stalls for longer loses lines.
const MAX_BYTES: usize = 1024 * 1024;
/// How long [`Lines::flush`] waits for a writer that does not get on.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write again.
    some: Condvar,
    /// There is a batch, or somebody waits.
    many: Condvar,
    /// Everything was written.
    none: Condvar,
}

#[derive(Default)]
struct State {
    gathered: String,
    /// A batch is being written.
    writing: bool,
    hurry: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("weft-access-log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || writer.write_for_ever(out))?;
        Ok(Self(shared))
    }

    /// Appends what `format` writes; says whether there was room for it.
    pub(super) fn put(&self, format: impl FnOnce(&mut String)) -> bool {
        let mut state = self.0.lock();
        if state.gathered.len() >= MAX_BYTES {
            return false;
        }
        let before = state.gathered.len();
        format(&mut state.gathered);
        let now = state.gathered.len();
        drop(state);
        if before == 0 {
            self.0.some.notify_one();
        } else if before < BATCH_BYTES && now >= BATCH_BYTES {
            self.0.many.notify_one();
        }
        true
    }

    /// Waits until everything put so far is written, but not for long.
    pub(super) fn flush(&self) {
        let mut state = self.0.lock();
        state.hurry = true;
        self.0.many.notify_one();
        let busy = |state: &mut State| state.writing || !state.gathered.is_empty();
        // Whoever is still not done then has a reader that does not read.
        let _late = self.0.none.wait_timeout_while(state, FLUSH_LIMIT, busy);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self, mut out: impl Write) {
        let mut batch = String::new();
        loop {
            self.next(&mut batch);
            // Nobody is left to tell of a log that cannot be written.
            let _closed = out.write_all(batch.as_bytes());
            batch.clear();
            batch.shrink_to(BATCH_BYTES);
            let mut state = self.lock();
            state.writing = false;
            if state.gathered.is_empty() {
                self.none.notify_all();
            }
        }
    }

    /// Waits for lines, lets more gather, and takes them.
    fn next(&self, batch: &mut String) {
        let state = self.lock();
        let empty = |state: &mut State| state.gathered.is_empty();
        let state = self.some.wait_while(state, empty).unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| state.gathered.len() < BATCH_BYTES && !state.hurry;
        let waited = self.many.wait_timeout_while(state, PAUSE, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.gathered, batch);
        state.writing = true;
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;

    /// A log whose reader takes each batch when it wants to.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_order_and_whole() {
        let (sender, batches) = mpsc::sync_channel(1000);
        let lines = Lines::start(Slow(sender)).unwrap();
        for number in 0..10_000 {
            assert!(lines.put(|line| line.push_str(&format!("line {number}\n"))));
        }
        lines.flush();
        let text: Vec<u8> = batches.try_iter().flatten().collect();
        let expected: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        assert!(text == expected.as_bytes());
    }

    /// A log that says when it is written to, and then waits for its gate.
    struct Gated {
        asked: mpsc::SyncSender<()>,
        gate: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _nobody_asks_twice = self.asked.try_send(());
            self.gate.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_bounded_memory_but_no_time() {
        let (asked, is_asked) = mpsc::sync_channel(1);
        let gate = Arc::new(Mutex::new(Vec::new()));
        let lines = Lines::start(Gated { asked, gate: Arc::clone(&gate) }).unwrap();
        let line = "x".repeat(1000);
        let put = || lines.put(|out| out.push_str(&line));
        let stalled = gate.lock().unwrap();
        assert!(put());
        is_asked.recv().unwrap();
        let taken = (0..5000).take_while(|_| put()).count();
        assert_eq!(taken, MAX_BYTES.div_ceil(1000));
        assert!(!put());
        drop(stalled);
        lines.flush();
        assert_eq!(gate.lock().unwrap().len(), (1 + taken) * 1000, "what was taken is written");
    }
}
