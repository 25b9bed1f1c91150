//! Probes that run a program of this machine: scripts of the operator, and units of systemd.
//!
//! A program gets nothing on its standard input and a process group of its own, which is killed when
//! the time is over, so that nothing of it stays. What it prints is kept to Consul's limit. Whether scripts
//! are allowed at all is decided where definitions are read.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::model::CheckStatus;
use crate::model::check::MAX_OUTPUT_BYTES;

/// Longest name of a unit, systemd's.
const MAX_UNIT_BYTES: usize = 255;

/// Runs a script: exit code 0 passes, 1 warns, anything else fails.
pub(super) async fn script(args: &[String], budget: Duration) -> (CheckStatus, String) {
    let Some((program, rest)) = args.split_first() else {
        return (CheckStatus::Critical, "the check names no program".to_owned());
    };
    match run(Command::new(program).args(rest), budget).await {
        Ok(Some((status, output))) => (judge(status), output),
        Ok(None) => (CheckStatus::Critical, format!("Timed out ({budget:?}) running check")),
        Err(fault) => (CheckStatus::Critical, format!("cannot run {program:?}: {fault}")),
    }
}

/// Asks systemd for a unit.
pub(super) async fn os_service(unit: &str, budget: Duration) -> (CheckStatus, String) {
    if !is_unit(unit) {
        return (CheckStatus::Critical, format!("{unit:?} is not the name of a unit"));
    }
    let mut command = Command::new("systemctl");
    command.args(["is-active", "--", unit]);
    let unhealthy =
        |why: String| (CheckStatus::Critical, format!("Service {unit:?} is unhealthy: {why}"));
    match run(&mut command, budget).await {
        Ok(Some((status, _))) if status.success() => {
            (CheckStatus::Passing, format!("Service {unit:?} is healthy"))
        }
        Ok(Some((_, output))) => unhealthy(output.trim().to_owned()),
        Ok(None) => unhealthy(format!("systemctl did not answer within {budget:?}")),
        Err(fault) => unhealthy(format!("systemctl cannot be run: {fault}")),
    }
}

/// A unit's name: what systemd allows, and never an option.
fn is_unit(unit: &str) -> bool {
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\' | b'@');
    !unit.is_empty()
        && unit.len() <= MAX_UNIT_BYTES
        && !unit.starts_with('-')
        && unit.bytes().all(allowed)
}

fn judge(status: ExitStatus) -> CheckStatus {
    match status.code() {
        Some(0) => CheckStatus::Passing,
        Some(1) => CheckStatus::Warning,
        _ => CheckStatus::Critical,
    }
}

/// Runs a program to its end; `None` when it takes longer than `budget`. Both of its outputs are kept.
async fn run(command: &mut Command, budget: Duration) -> io::Result<Option<(ExitStatus, String)>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = Group(child.id());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async { tokio::try_join!(keep(out), keep(err), child.wait()) };
    let Ok(ended) = timeout(budget, ended).await else {
        drop(group);
        return Ok(None);
    };
    let (mut out, err, status) = ended?;
    out.add(err);
    Ok(Some((status, out.text())))
}

/// The process group of a program. Dropping it kills what is left of it.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Usually all of it has ended by itself.
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The beginning of an output, and how long it was.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    total: usize,
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len());
        let room = MAX_OUTPUT_BYTES.saturating_sub(self.bytes.len());
        self.bytes.extend(bytes.iter().take(room));
    }

    fn add(&mut self, other: Self) {
        let more = other.total - other.bytes.len();
        self.take(&other.bytes);
        self.total = self.total.saturating_add(more);
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.total > self.bytes.len() {
            format!("{text} ... (captured {} of {} bytes)", self.bytes.len(), self.total)
        } else {
            text
        }
    }
}

/// Reads to the end, so that the program is never held up, and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>) -> io::Result<Kept> {
    let mut kept = Kept::default();
    let Some(mut from) = from else { return Ok(kept) };
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(kept),
            count => kept.take(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(20);

    async fn shell(script_text: &str, budget: Duration) -> (CheckStatus, String) {
        let args = ["/bin/sh", "-c", script_text].map(str::to_owned);
        script(&args, budget).await
    }

    #[tokio::test]
    async fn the_exit_code_is_the_verdict_and_both_outputs_are_kept() {
        let table = [
            ("echo fine", CheckStatus::Passing, "fine\n"),
            ("echo slow >&2; exit 1", CheckStatus::Warning, "slow\n"),
            ("echo a; echo b >&2; exit 2", CheckStatus::Critical, "a\nb\n"),
            ("kill -9 $$", CheckStatus::Critical, ""),
        ];
        for (text, status, output) in table {
            assert_eq!(shell(text, BUDGET).await, (status, output.to_owned()), "{text}");
        }
        let (_, output) = shell("head -c 6000 /dev/zero | tr '\\0' x", BUDGET).await;
        assert!(output.ends_with("x ... (captured 4096 of 6000 bytes)"), "{output}");
        let missing = script(&["/no/such/program".to_owned()], BUDGET).await;
        assert!(missing.1.starts_with("cannot run \"/no/such/program\": "), "{missing:?}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_killed_with_its_children() {
        let marker = tempfile::NamedTempFile::new().unwrap();
        // The grandchild holds the pipe open and would write its mark after the deadline.
        let text = format!("(sleep 2; echo late > {}) & wait", marker.path().display());
        let budget = Duration::from_millis(300);
        let expected = (CheckStatus::Critical, "Timed out (300ms) running check".to_owned());
        assert_eq!(shell(&text, budget).await, expected);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(std::fs::read_to_string(marker.path()).unwrap(), "", "the grandchild was killed");
    }

    #[test]
    fn a_unit_is_a_name_and_no_option() {
        for good in ["nginx", "nginx.service", "getty@tty1.service", "dev-sda1.device"] {
            assert!(is_unit(good), "{good}");
        }
        for bad in ["", "-H", "--host=x", "a b", "a;b", "a/b", &"x".repeat(256)] {
            assert!(!is_unit(bad), "{bad}");
        }
    }
}
