//! The file of the audit log over restarts, crashes, rotation and full disks.

use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;

use super::super::{Summary, verify};
use super::*;

fn entry(target: &str) -> Entry {
    Entry { target: target.to_owned(), ..Entry::default() }
}

async fn change(log: &AuditLog, target: &str) {
    log.begin(entry(target)).await.unwrap().finish("200".to_owned()).await;
}

fn check(paths: &[&Path]) -> Summary {
    paths.iter().fold(Summary::default(), |found, path| {
        verify(BufReader::new(File::open(path).unwrap()), found).unwrap()
    })
}

/// Waits until the thread has let go of the file.
async fn reopened(path: &Path) -> AuditLog {
    for _ in 0..1000 {
        match AuditLog::open(path) {
            Ok(log) => return log,
            Err(fault) => assert!(fault.to_string().contains("another process"), "{fault}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the file is never let go of");
}

/// Why the file cannot be gone on with, once the thread has let go of it.
async fn refused(path: &Path) -> String {
    for _ in 0..1000 {
        let fault = AuditLog::open(path).err().expect("it was gone on with").to_string();
        if !fault.contains("another process") {
            return fault;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the file is never let go of");
}

#[tokio::test]
async fn the_chain_goes_on_after_a_restart_and_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("audit"), directory.path().join("audit.1"));
    let log = AuditLog::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    change(&log, "/a").await;
    assert!(AuditLog::open(&path).is_err(), "two may not write one log");
    drop(log);
    let log = reopened(&path).await;
    change(&log, "/b").await;
    std::fs::rename(&path, &moved).unwrap();
    change(&log, "/c").await; // still to the file that was moved
    log.reopen().await.unwrap();
    change(&log, "/d").await;
    let (old, both) = (check(&[&moved]), check(&[&moved, &path]));
    assert_eq!((old.lines, both.lines, both.last), (8, 11, 11));
    assert_eq!(check(&[&path]).follows, Some(old.head));
}

#[tokio::test]
async fn a_line_that_a_crash_cut_off_is_marked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    for (cut, newline) in [(5, false), (100, false), (100, true)] {
        let log = reopened(&path).await;
        change(&log, "/a").await;
        drop(log);
        // Everything is written when the lock is free.
        drop(reopened(&path).await);
        let text = std::fs::read(&path).unwrap();
        let mut torn = text[..text.len() - cut].to_vec();
        if newline {
            torn.push(b'\n'); // the process ended again while it marked the line
        }
        std::fs::write(&path, torn).unwrap();
    }
    let log = reopened(&path).await;
    change(&log, "/b").await;
    assert_eq!(check(&[&path]).torn, 3);
    drop(log);
    let first = directory.path().join("first");
    std::fs::write(&first, "{\"seq\":1,").unwrap();
    change(&reopened(&first).await, "/a").await;
    assert_eq!(check(&[&first]).torn, 1);
}

#[tokio::test]
async fn what_was_changed_or_can_be_by_others_is_not_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    change(&AuditLog::open(&path).unwrap(), "/a").await;
    drop(reopened(&path).await);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap();
    let edited = format!("{before}\n{}\n", last.replacen("server", "nobody", 1));
    assert_ne!(edited, text);
    std::fs::write(&path, edited).unwrap();
    let fault = refused(&path).await;
    assert!(fault.contains("its last line was changed"), "{fault}");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(AuditLog::open(&path).err().unwrap().to_string().contains("others may write it"));
    assert!(AuditLog::open(directory.path()).is_err());
}

#[tokio::test]
async fn without_a_line_nothing_begins_until_it_can_be_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let log = AuditLog::open(&path).unwrap();
    change(&log, "/a").await;
    // The next opening finds a file that somebody else went on with.
    let text = std::fs::read_to_string(&path).unwrap();
    let kept = directory.path().join("kept");
    std::fs::rename(&path, &kept).unwrap();
    let cut = text.trim_end().rsplit_once('\n').unwrap().0;
    std::fs::write(&path, format!("{cut}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(log.reopen().await.unwrap_err().to_string().contains("somebody else"));
    assert!(log.begin(entry("/b")).await.is_err());
    // Mended, it goes on by itself.
    std::fs::rename(&kept, &path).unwrap();
    change(&log, "/c").await;
    assert_eq!(check(&[&path]).lines, 6);
}

#[tokio::test]
async fn what_is_given_up_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit");
    let log = AuditLog::open(&path).unwrap();
    drop(log.begin(entry("/a")).await.unwrap());
    log.refused(entry("/b")).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""outcome":"abandoned","begun":2"#), "{text}");
    assert_eq!(check(&[&path]).lines, 4);
}
