//! Processes that this program starts, and nothing else: each with its output in a file, ended when its
//! handle goes.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fault::{Doing, Fault, Outcome};
use crate::usage;

/// How long a process may take to end after SIGTERM: longer than any proxy's own pause before it does.
const GRACE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(5);
/// Of a log in an error.
const TAIL_BYTES: usize = 600;

pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    pub began: Instant,
}

impl Process {
    /// Starts a command; its output goes to `<directory>/<name>.log`.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Outcome<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).doing(log.display())?;
        let errors = output.try_clone().doing(log.display())?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let began = Instant::now();
        let child = command.spawn().doing(format!("start {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), log, child, began })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of the log when the process has ended.
    pub fn check(&mut self) -> Outcome<()> {
        match self.child.try_wait().doing(&self.name)? {
            None => Ok(()),
            Some(status) => Err(Fault::new(format!("{} ended ({status}): {}", self.name, self.tail()))),
        }
    }

    pub fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..])
            .trim()
            .replace('\n', " | ")
    }
}

impl Drop for Process {
    /// Ends it at once, with what it started. `end` is the gentle way.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        for pid in usage::tree(&[self.pid()]) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may be gone already.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        let _status = self.child.wait();
    }
}

/// Asks all of them to end, and waits; those that do not are killed.
pub fn end(mut processes: Vec<Process>) {
    for process in &processes {
        if let Some(pid) = i32::try_from(process.pid()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::TERM);
        }
    }
    let deadline = Instant::now() + GRACE;
    while !processes.is_empty() && Instant::now() < deadline {
        processes.retain_mut(|process| matches!(process.child.try_wait(), Ok(None)));
        std::thread::sleep(TICK);
    }
}

/// Runs a command to its end and returns what it printed, output and errors apart.
pub fn output<I: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = I>,
) -> Outcome<(String, String)> {
    let what = program.display();
    let output = Command::new(program).args(arguments).output().doing(format!("run {what}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok((text, errors))
    } else {
        Err(Fault::new(format!("{what}: {}", errors.trim())))
    }
}
