//! Tables as Consul lays them out; the commands that are called as Consul print them.

use std::fmt::Display;

use crate::cli::output::printable;

/// Spaces between the columns of [`columns`].
const GLUE: &str = "  ";
/// What the first column of [`pairs`] is wider than its widest text.
const PADDING: usize = 6;

/// Columns aligned to the left; all but the last are padded, also where nothing follows.
pub(in crate::cli) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let cell = |text: &String| printable(text.trim());
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(cell)).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(index, (cell, width))| match index + 1 {
            last if last == N => cell.clone(),
            _ => format!("{cell:width$}"),
        });
        text += &cells.collect::<Vec<_>>().join(GLUE);
        text.push('\n');
    }
    text
}

/// Two columns, the first padded also where nothing follows; no spaces around the whole.
pub(in crate::cli) fn pairs(rows: &[(&str, impl Display)]) -> String {
    let width = rows.iter().map(|(first, _)| first.chars().count()).max().unwrap_or(0) + PADDING;
    let lines = rows.iter().map(|(first, second)| format!("{first:width$}{second}"));
    let text = lines.collect::<Vec<_>>().join("\n");
    format!("{}\n", text.trim())
}

/// `a=1,b=2`, as node metadata and tags are shown.
pub(in crate::cli) fn key_values<'a>(
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    between: &str,
) -> String {
    let pairs = pairs.into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_as_captured() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned(), "c".to_owned()];
        assert_eq!(columns(&[row("Node", "ID"), row("n1", "")]), "Node  ID  c\nn1        c\n");
        let narrow = [["Meta".to_owned(), String::new()], ["a\u{1b}".to_owned(), " x ".to_owned()]];
        assert_eq!(columns(&narrow), "Meta     \na\\u{1b}  x\n");
        assert_eq!(pairs(&[("api", ""), ("cli1", "a"), ("web", "")]), "api       \ncli1      a\nweb\n");
    }
}
