//! A file's text with its lines, and the piece of it that a diagnostic shows.

use super::value::Span;

/// Longest excerpt in characters; a longer line is cut around the marked place.
const MAX_EXCERPT_CHARS: usize = 100;
/// Characters kept before the marked place when a line is cut.
const CONTEXT_CHARS: usize = 30;
/// Blanks shown for a tab. Columns still count it as one character.
const TAB: &str = "    ";
/// What follows one of these words on its line is masked: it may be a secret.
const SECRET_WORDS: [&str; 6] = ["token", "encrypt", "secret", "passw", "authorization", "private_key"];

/// The text of a file or request and the name it is reported under.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
    /// Byte offset of the first character of each line.
    line_starts: Vec<usize>,
}

/// A line of a file as shown, and where the carets go.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Excerpt {
    pub(super) text: String,
    /// Characters before the first caret.
    pub(super) indent: usize,
    /// Number of carets, at least one.
    pub(super) width: usize,
}

/// Line, column and column after the end, all from 1, of a span; the end is on the same line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) end_column: usize,
}

impl Source {
    pub(super) fn new(name: &str, text: String) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.to_owned(), text, line_starts }
    }

    /// The place of `span` and the excerpt that shows it.
    pub(super) fn show(&self, span: Span) -> (Place, Excerpt) {
        let index = self.line_starts.partition_point(|start| *start <= span.start).saturating_sub(1);
        let line_start = self.line_starts.get(index).copied().unwrap_or_default();
        let rest = self.text.get(line_start..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let before = chars_before(line, span.start - line_start);
        let marked =
            chars_before(line, span.end.saturating_sub(line_start)).saturating_sub(before).max(1);
        let place = Place { line: index + 1, column: before + 1, end_column: before + 1 + marked };
        (place, excerpt(&mask_secrets(line), before, marked))
    }
}

/// Characters in the first `bytes` bytes of a line.
fn chars_before(line: &str, bytes: usize) -> usize {
    line.get(..bytes).unwrap_or(line).chars().count()
}

/// Replaces what may be a secret by `*`, character for character, so that columns stay true.
fn mask_secrets(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let secret = SECRET_WORDS.iter().filter_map(|word| lower.find(word).map(|at| at + word.len())).min();
    let Some((open, hidden)) = secret.and_then(|at| line.split_at_checked(at)) else {
        return line.to_owned();
    };
    let structural =
        |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | '=' | ':' | ',' | '"');
    let mut shown = open.to_owned();
    shown.extend(hidden.chars().map(|c| if structural(c) { c } else { '*' }));
    shown
}

fn excerpt(line: &str, before: usize, marked: usize) -> Excerpt {
    let total = line.chars().count();
    let first = if total > MAX_EXCERPT_CHARS { before.saturating_sub(CONTEXT_CHARS) } else { 0 };
    let last = total.min(first + MAX_EXCERPT_CHARS);
    let mut text = String::new();
    let (mut indent, mut width) = (0, 0);
    if first > 0 {
        text.push('…');
        indent += 1;
    }
    for (index, c) in line.chars().enumerate().skip(first).take(last - first) {
        let shown = Shown::of(c).text();
        let columns = shown.chars().count();
        if index < before {
            indent += columns;
        } else if index < before + marked {
            width += columns;
        }
        text.push_str(&shown);
    }
    if last < total {
        text.push('…');
    }
    Excerpt { text: text.trim_end().to_owned(), indent, width: width.max(1) }
}

/// A text as it may be written to a terminal, in about `max` characters at most.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).map(|c| Shown::of(c).text()).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

/// A character as it may be written to a terminal.
enum Shown {
    Plain(char),
    Tab,
    Escaped(char),
}

impl Shown {
    const fn of(c: char) -> Self {
        match c {
            '\t' => Self::Tab,
            // Control characters drive terminals; the others reorder or hide text.
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{200b}'..='\u{200f}' => {
                Self::Escaped(c)
            }
            '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => Self::Escaped(c),
            _ => Self::Plain(c),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Plain(c) => c.to_string(),
            Self::Tab => TAB.to_owned(),
            Self::Escaped(c) => c.escape_unicode().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, needle: &str) -> (Place, Excerpt) {
        let at = text.find(needle).unwrap();
        Source::new("f", text.to_owned()).show(Span::new(at, at + needle.len()))
    }

    #[test]
    fn columns_count_characters_from_one() {
        let (place, excerpt) = show("a\n\tééx = 1\r\n", "x");
        assert_eq!(place, Place { line: 2, column: 4, end_column: 5 });
        assert_eq!(excerpt, Excerpt { text: "    ééx = 1".to_owned(), indent: 6, width: 1 });
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let line = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let (place, excerpt) = show(&line, "HERE");
        assert_eq!(place.column, 501);
        let marked: String = excerpt.text.chars().skip(excerpt.indent).take(excerpt.width).collect();
        assert_eq!(marked, "HERE");
        assert_eq!(excerpt.text.chars().count(), MAX_EXCERPT_CHARS + 2);
    }

    #[test]
    fn what_drives_a_terminal_is_escaped() {
        let (_, excerpt) = show("x = \"\u{1b}[31m\u{202e}\" oops", "oops");
        assert_eq!(excerpt.text, "x = \"\\u{1b}[31m\\u{202e}\" oops");
        assert_eq!(excerpt.indent, excerpt.text.len() - 4);
    }

    #[test]
    fn secrets_are_masked_in_place() {
        let (_, excerpt) = show("Token = \"hunter2\" prot = 1", "prot");
        assert_eq!(excerpt.text, "Token = \"*******\" **** = *");
    }

    #[test]
    fn a_span_over_several_lines_marks_the_first() {
        let (place, excerpt) = show("a = {\n b\n}", "{\n b\n}");
        assert_eq!((place.line, place.column, place.end_column), (1, 5, 6));
        assert_eq!(excerpt.width, 1);
    }

    #[test]
    fn the_end_of_the_file_has_a_place() {
        let source = Source::new("f", "a {\n".to_owned());
        let (place, excerpt) = source.show(Span::new(4, 4));
        assert_eq!((place.line, place.column, excerpt.width), (2, 1, 1));
    }
}
