//! What commands print: aligned tables and marked lines, as pure functions over values.

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    Always,
    Never,
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) color: bool,
    pub(super) unicode: bool,
}

impl Style {
    /// Decides by the choice, the environment and whether the output is a terminal.
    pub(super) fn detect(
        choice: ColorChoice,
        env: &dyn Fn(&str) -> Option<String>,
        is_terminal: bool,
    ) -> Self {
        let set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                is_terminal && !set("NO_COLOR") && env("TERM").as_deref() != Some("dumb")
            }
        };
        // The first of the three that is set decides, as in the C library.
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env(name).filter(|v| !v.is_empty()));
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self { color, unicode }
    }

    fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Warn => 33,
            Tone::Bad => 31,
        };
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The mark of a tone: never colour alone.
    #[must_use]
    pub(super) fn mark(self, tone: Tone) -> String {
        let mark = match (tone, self.unicode) {
            (Tone::Plain, _) => " ",
            (Tone::Good, true) => "✓",
            (Tone::Warn, true) => "‼",
            (Tone::Bad, true) => "✗",
            (Tone::Good, false) => "ok",
            (Tone::Warn, false) => "!!",
            (Tone::Bad, false) => "x",
        };
        self.paint(tone, mark)
    }
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

/// A text in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Columns aligned to the left, two spaces between them, no spaces at the end of a line.
#[must_use]
pub(super) fn table(style: Style, head: &[&str], rows: &[Vec<Cell>]) -> String {
    let head: Vec<Cell> = head.iter().map(Cell::from).collect();
    let mut widths = vec![0; head.len()];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut padding = 0;
        for (cell, width) in row.iter().zip(&widths) {
            if cell.text.is_empty() {
                padding += width + 2;
                continue;
            }
            text.extend(std::iter::repeat_n(' ', padding));
            text.push_str(&style.paint(cell.tone, &cell.text));
            padding = width - cell.text.chars().count() + 2;
        }
        text.push('\n');
    }
    text
}

/// One line: a mark, a subject in a column of its own, and what is said about it.
#[must_use]
pub(super) fn line(style: Style, tone: Tone, subject: &str, said: &str) -> String {
    format!("{} {subject:<14}{}\n", style.mark(tone), printable(said))
}

/// Text of others as it may go to a terminal: control characters are written out.
#[must_use]
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// `1 service`, `2 services`.
#[must_use]
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { color: false, unicode: false };

    #[test]
    fn tables_are_aligned() {
        let rows = vec![
            vec![Cell::from("web"), Cell::new(Tone::Good, "passing"), Cell::from("v1")],
            vec![Cell::from("database"), Cell::new(Tone::Bad, "critical"), Cell::from("")],
            vec![Cell::from("ümlaut"), Cell::from(""), Cell::from("a\u{1b}[31mb")],
        ];
        assert_eq!(
            table(PLAIN, &["NAME", "STATUS", "TAGS"], &rows),
            "NAME      STATUS    TAGS\n\
             web       passing   v1\n\
             database  critical\n\
             ümlaut              a\\u{1b}[31mb\n"
        );
        let color =
            table(Style { color: true, unicode: true }, &["NAME", "STATUS"], &[rows[1][..2].to_vec()]);
        assert_eq!(color, "NAME      STATUS\ndatabase  \u{1b}[31mcritical\u{1b}[0m\n");
    }

    #[test]
    fn styles_by_table() {
        let always = ColorChoice::Always;
        let (auto, never) = (ColorChoice::Auto, ColorChoice::Never);
        for (choice, env, terminal, color) in [
            (auto, vec![], true, true),
            (auto, vec![], false, false),
            (auto, vec![("NO_COLOR", "1")], true, false),
            (auto, vec![("NO_COLOR", "")], true, true),
            (auto, vec![("TERM", "dumb")], true, false),
            (always, vec![("NO_COLOR", "1")], false, true),
            (never, vec![], true, false),
        ] {
            let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            assert_eq!(
                Style::detect(choice, &get, terminal).color,
                color,
                "{choice:?} {env:?} {terminal}"
            );
        }
        for (env, unicode) in [
            (vec![("LANG", "en_US.UTF-8")], true),
            (vec![("LC_ALL", "C"), ("LANG", "en_US.UTF-8")], false),
            (vec![("LC_CTYPE", "C.utf8")], true),
            (vec![], false),
        ] {
            let get = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            assert_eq!(Style::detect(auto, &get, true).unicode, unicode, "{env:?}");
        }
    }

    #[test]
    fn marks_have_words_without_unicode() {
        assert_eq!(line(PLAIN, Tone::Warn, "checks", "1 warning"), "!! checks        1 warning\n");
        let unicode = Style { color: false, unicode: true };
        assert_eq!(line(unicode, Tone::Bad, "checks", "1 critical"), "✗ checks        1 critical\n");
    }
}
