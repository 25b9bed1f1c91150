//! Quoted strings and heredocs.
//!
//! `${…}` in HCL stays literal text, with whatever quotes are inside, because Consul's files give it
//! no meaning.

use super::diagnostic::Code;
use super::lexer::{Lexer, Notation, Token};
use super::report::Report;
use super::value::Span;

impl Lexer<'_> {
    /// A quoted string; the opening quote is next.
    pub(super) fn string(&mut self, report: &mut Report<'_>) -> Token {
        let start = self.position();
        self.bump();
        let mut value = String::new();
        let mut sound = true;
        loop {
            let at = self.position();
            match self.bump() {
                Some('"') => break,
                Some('\\') => match self.escape() {
                    Ok(c) => value.push(c),
                    Err(help) => {
                        let span = Span::new(at, self.position());
                        report.error(Code::Syntax, span, "this escape is not known").help(help);
                        sound = false;
                    }
                },
                Some('$') if self.notation == Notation::Hcl && self.rest().starts_with('{') => {
                    if !self.skip_interpolation() {
                        return self.unclosed_string(start, report);
                    }
                    value.push_str(self.since(at));
                }
                Some('\n') | None => return self.unclosed_string(start, report),
                Some(c) => value.push(c),
            }
        }
        if sound { Token::Text(value) } else { Token::Bad }
    }

    /// Takes up again at the end of the line the string began on.
    fn unclosed_string(&mut self, start: usize, report: &mut Report<'_>) -> Token {
        self.move_to(start);
        self.take_while(|c| c != '\n');
        let span = Span::new(start, self.position());
        report.error(Code::Syntax, span, "the string is not closed").help("end it with `\"`");
        Token::Bad
    }

    /// Passes `{…}` with balanced braces; false when the line ends before.
    fn skip_interpolation(&mut self) -> bool {
        let mut open = 0_usize;
        while let Some(c) = self.bump() {
            match c {
                '{' => open += 1,
                '}' if open == 1 => return true,
                '\n' => return false,
                '}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        false
    }

    /// The character of an escape whose backslash is behind us, or what to write instead.
    fn escape(&mut self) -> Result<char, &'static str> {
        const KNOWN: &str = "write `\\\\` for a backslash";
        match self.bump() {
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some(c @ ('"' | '\\' | '/' | '\'')) => Ok(c),
            Some('a') if self.notation == Notation::Hcl => Ok('\u{7}'),
            Some('v') if self.notation == Notation::Hcl => Ok('\u{b}'),
            Some('u') => self.unicode_escape(4),
            Some('U') if self.notation == Notation::Hcl => self.unicode_escape(8),
            Some('\n') => {
                // Leave the end of the line to whoever looks for the end of the string.
                self.move_to(self.position() - 1);
                Err(KNOWN)
            }
            _ => Err(KNOWN),
        }
    }

    fn unicode_escape(&mut self, digits: usize) -> Result<char, &'static str> {
        let first = self.hex(digits)?;
        let is_high_surrogate = (0xd800..0xdc00).contains(&first);
        if !is_high_surrogate {
            return char::from_u32(first).ok_or("this is not a character");
        }
        if !self.rest().starts_with("\\u") {
            return Err("the second half of the character is missing");
        }
        self.move_to(self.position() + "\\u".len());
        let second = self.hex(4)?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err("the second half of the character is missing");
        }
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).ok_or("this is not a character")
    }

    fn hex(&mut self, digits: usize) -> Result<u32, &'static str> {
        let rest = self.rest();
        let text = rest.get(..digits).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = text.and_then(|text| u32::from_str_radix(text, 16).ok());
        if value.is_some() {
            self.move_to(self.position() + digits);
        }
        value.ok_or("give all hexadecimal digits")
    }

    /// `<<MARK` or `<<-MARK`, lines, and a line with only `MARK`.
    pub(super) fn heredoc(&mut self, report: &mut Report<'_>) -> Token {
        let start = self.position();
        self.move_to(start + "<<".len());
        let indented = self.rest().starts_with('-');
        if indented {
            self.bump();
        }
        let mark_start = self.position();
        self.take_while(|c| c.is_alphanumeric() || c == '_');
        let mark = self.since(mark_start);
        let opening = Span::new(start, self.position());
        self.take_while(|c| c == '\r');
        if mark.is_empty() || self.peek() != Some('\n') {
            report.error(Code::Syntax, opening, "a heredoc begins with `<<NAME` at the end of a line");
            self.take_while(|c| c != '\n');
            return Token::Bad;
        }
        self.bump();
        match self.heredoc_lines(mark) {
            Some((lines, closing)) => Token::Text(join_heredoc(&lines, closing, indented)),
            None => {
                self.cut_short = true;
                let message = format!("the heredoc is not closed by a line with only `{mark}`");
                report.error(Code::Syntax, opening, message);
                Token::Bad
            }
        }
    }

    /// The lines up to the mark and the blanks before the mark; `None` at the end of the text.
    fn heredoc_lines(&mut self, mark: &str) -> Option<(Vec<String>, String)> {
        let mut lines = Vec::new();
        while self.peek().is_some() {
            let start = self.position();
            self.take_while(|c| c != '\n');
            let line = self.since(start);
            if line.trim() == mark {
                let closing = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
                return Some((lines, closing.to_owned()));
            }
            lines.push(line.to_owned());
            self.bump();
        }
        None
    }
}

/// Every line ends with a newline. With `<<-` the indentation of the mark is taken off, if all lines have it.
fn join_heredoc(lines: &[String], closing: String, indented: bool) -> String {
    let off = if indented && lines.iter().all(|line| line.starts_with(&closing)) {
        closing
    } else {
        String::new()
    };
    lines.iter().map(|line| format!("{}\n", line.strip_prefix(&off).unwrap_or(line))).collect()
}
