//! "Did you mean …": the nearest of a list of words.

/// Farthest edit distance that still counts as a slip of the finger.
const MAX_DISTANCE: usize = 2;
/// Words longer than this are not compared.
const MAX_WORD_BYTES: usize = 64;

/// The word nearest to `written`, if one is near; of equally near ones the first. Underscores and
/// letter case do not count as differences.
pub(super) fn suggest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    if written.len() > MAX_WORD_BYTES {
        return None;
    }
    let written = squeeze(written);
    // In a very short word two edits leave nothing of what was meant.
    let allowed = if written.len() <= 3 { 1 } else { MAX_DISTANCE };
    words
        .iter()
        .map(|word| (distance(&written, &squeeze(word)), *word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

fn squeeze(word: &str) -> Vec<char> {
    word.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

/// Edit distance in which swapping two neighbours is one edit (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&last, j + 1) + 1).min(at(&row, j) + 1).min(at(&last, j) + usize::from(x != y));
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before_last, j - 1) + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let keys = ["name", "port", "tags", "check", "checks", "id", "enable_tag_override"];
        for (written, near) in [
            ("prot", Some("port")),
            ("Nmae", Some("name")),
            ("tag", Some("tags")),
            ("chekcs", Some("checks")),
            ("EnableTagOveride", Some("enable_tag_override")),
            ("xy", None),
            ("colour", None),
        ] {
            assert_eq!(suggest(written, &keys), near, "{written}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, expected) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("ab", "ba", 1)]
        {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
        }
    }
}
