//! Reads audit logs and names the first line that is not what was written.

use std::io::{self, BufRead, Read};

use super::{Chain, ORIGIN, Sealed, sha256};
use crate::access::limits::MAX_LINE_BYTES;

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("line {line}: it was changed, or is none of this log")]
    Changed { line: u64 },
    #[error("line {line}: it does not follow the line before it; something was removed, added or moved")]
    Displaced { line: u64 },
    #[error("line {line}: it is cut off at its end; the server marks it when it starts again")]
    CutOff { line: u64 },
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// What was found in logs that are whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    pub lines: u64,
    /// Number of the last line.
    pub last: u64,
    /// Its hash, which says that nothing is missing when it is compared with one that was noted.
    pub head: String,
    /// Hash that the first line follows, when that is the end of an earlier file.
    pub follows: Option<String>,
    /// Pieces of lines that crashes had left, each told of by the line after it.
    pub torn: u64,
}

/// Reads one file, as the continuation of what was read `before`.
///
/// # Errors
/// Which line is the first that is broken.
pub fn verify(file: impl BufRead, before: Summary) -> Result<Summary, Broken> {
    let mut reading = Reading { found: before, number: 0, piece: None };
    let mut file = file;
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        if (&mut file).take(most).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        reading.number += 1;
        match line.strip_suffix(b"\n") {
            Some(whole) => reading.take(whole)?,
            None => return Err(Broken::CutOff { line: reading.number }),
        }
    }
    match reading.piece {
        Some((line, _)) => Err(Broken::Changed { line }),
        None => Ok(reading.found),
    }
}

struct Reading {
    found: Summary,
    /// Of the line in this file.
    number: u64,
    /// A line that is none, with its hash: only the next one can say that a crash left it.
    piece: Option<(u64, String)>,
}

impl Reading {
    fn take(&mut self, text: &[u8]) -> Result<(), Broken> {
        let Some(sealed) = Sealed::open(text) else {
            let first = self.piece.replace((self.number, sha256(text)));
            return first.map_or(Ok(()), |(line, _)| Err(Broken::Changed { line }));
        };
        match (self.piece.take(), &sealed.line.entry.torn) {
            (None, None) => {}
            (Some((_, hash)), Some(torn)) if *torn == hash => self.found.torn += 1,
            (Some((line, _)), _) => return Err(Broken::Changed { line }),
            (None, Some(_)) => return Err(Broken::Displaced { line: self.number }),
        }
        if !self.follows(&sealed) {
            return Err(Broken::Displaced { line: self.number });
        }
        let Chain { seq, head } = sealed.chain();
        (self.found.last, self.found.head) = (seq, head);
        self.found.lines += 1;
        Ok(())
    }

    /// The first line of all may follow a file that is not here.
    fn follows(&mut self, sealed: &Sealed) -> bool {
        let line = &sealed.line;
        if self.found.lines > 0 {
            return line.prev == self.found.head && line.seq == self.found.last + 1;
        }
        if line.prev != ORIGIN {
            self.found.follows = Some(line.prev.clone());
        }
        (line.prev == ORIGIN) == (line.seq == 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::Entry;
    use super::*;

    fn lines(count: usize) -> Vec<String> {
        let mut chain = Chain::origin();
        let mut lines = Vec::new();
        for number in 0..count {
            let entry = Entry { target: format!("/v1/kv/{number}"), ..Entry::of_server("200") };
            let (line, next) = chain.seal(entry, UNIX_EPOCH).unwrap();
            lines.push(line);
            chain = next;
        }
        lines
    }

    fn check(text: &str) -> Result<Summary, String> {
        verify(text.as_bytes(), Summary::default()).map_err(|broken| broken.to_string())
    }

    fn broken_at(lines: &[String], number: u64) {
        let said = check(&lines.concat()).unwrap_err();
        assert!(said.starts_with(&format!("line {number}:")), "{said}");
    }

    #[test]
    fn a_whole_log_is_whole_in_one_file_and_in_several() {
        let all = lines(5);
        let summary = check(&all.concat()).unwrap();
        assert_eq!((summary.lines, summary.last, summary.follows), (5, 5, None));
        let first = check(&all[..2].concat()).unwrap();
        let both = verify(all[2..].concat().as_bytes(), first.clone()).unwrap();
        assert_eq!((both.lines, both.head), (5, summary.head));
        let alone = check(&all[2..].concat()).unwrap();
        assert_eq!(alone.follows, Some(first.head));
        assert_eq!(check("").unwrap(), Summary::default());
    }

    #[test]
    fn tampering_is_found_where_it_was_done() {
        let all = lines(6);
        for number in 0..6 {
            for (from, to) in
                [("/v1/kv", "/v1/kw"), ("200", "403"), ("\"seq\":", "\"seq\":1"), ("\":\"", "\": \"")]
            {
                let mut edited = all.clone();
                edited[number] = edited[number].replacen(from, to, 1);
                broken_at(&edited, number as u64 + 1);
            }
        }
        for number in 1..5 {
            let mut removed = all.clone();
            removed.remove(number);
            broken_at(&removed, number as u64 + 1);
            let mut swapped = all.clone();
            swapped.swap(number, number + 1);
            broken_at(&swapped, number as u64 + 1);
            let mut doubled = all.clone();
            doubled.insert(number, all[number].clone());
            broken_at(&doubled, number as u64 + 2);
        }
        // A line that was made anew, seal and all, is not what the next one follows.
        let mut forged = all.clone();
        let before = Sealed::open(all[1].trim_end().as_bytes()).unwrap().chain();
        forged[2] = before.seal(Entry::of_server("forged"), UNIX_EPOCH).unwrap().0;
        broken_at(&forged, 4);
        // The first line alone cannot be taken away: the number tells.
        assert!(check(&all[1..].concat()).unwrap().follows.is_some());
    }

    #[test]
    fn what_is_cut_off_is_told() {
        let all = lines(3);
        let text = all.concat();
        for end in [text.len() - 1, text.len() - 40, text.len() - all[2].len() + 1] {
            assert!(check(&text[..end]).unwrap_err().contains("cut off"), "{end}");
        }
        assert!(check(&"x".repeat(MAX_LINE_BYTES * 2)).is_err());
    }
}
