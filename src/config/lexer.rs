//! Cuts the text of both notations into tokens, on demand.
//!
//! Both share comments, punctuation and numbers; strings are in `strings`. A faulty piece is
//! reported here and comes out as `Token::Bad`, so that the parser goes on without a second word.

use super::diagnostic::Code;
use super::report::Report;
use super::value::Span;

/// Which notation a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    Hcl,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    Equals,
    Colon,
    Comma,
    /// Already reported.
    Bad,
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) span: Span,
    /// Whether it is the first of its line: the place to take up again after a fault.
    pub(super) starts_line: bool,
}

pub(super) struct Lexer<'s> {
    text: &'s str,
    at: usize,
    pub(super) notation: Notation,
    /// Whether a comment or heredoc ran to the end of the text, and took closing braces with it.
    pub(super) cut_short: bool,
}

impl<'s> Lexer<'s> {
    pub(super) const fn new(text: &'s str, notation: Notation) -> Self {
        Self { text, at: 0, notation, cut_short: false }
    }

    /// The next token; `Token::End` for ever once the text is used up.
    pub(super) fn next(&mut self, report: &mut Report<'_>) -> Lexeme {
        let starts_line = self.skip_blanks(report);
        let start = self.at;
        let token = match self.peek() {
            None => Token::End,
            Some('{') => self.single(Token::OpenBrace),
            Some('}') => self.single(Token::CloseBrace),
            Some('[') => self.single(Token::OpenBracket),
            Some(']') => self.single(Token::CloseBracket),
            Some('=') => self.single(Token::Equals),
            Some(':') => self.single(Token::Colon),
            Some(',') => self.single(Token::Comma),
            Some('"') => self.string(report),
            Some('<') if self.rest().starts_with("<<") && self.notation == Notation::Hcl => {
                self.heredoc(report)
            }
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(report),
            Some(c) if c.is_alphabetic() || c == '_' => self.name(),
            Some(c) => self.illegal(c, report),
        };
        Lexeme { token, span: Span::new(start, self.at), starts_line }
    }

    pub(super) fn rest(&self) -> &'s str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) const fn position(&self) -> usize {
        self.at
    }

    /// Moves to a byte offset, which must be on a character boundary.
    pub(super) const fn move_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The text from a byte offset up to here.
    pub(super) fn since(&self, start: usize) -> &'s str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    pub(super) fn take_while(&mut self, accept: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !accept(c)).unwrap_or(rest.len());
    }

    fn single(&mut self, token: Token) -> Token {
        self.bump();
        token
    }

    /// Passes white space and comments; says whether a line began, or the text.
    fn skip_blanks(&mut self, report: &mut Report<'_>) -> bool {
        let start = self.at;
        loop {
            self.take_while(|c| c.is_ascii_whitespace());
            let rest = self.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if rest.starts_with("/*") {
                self.block_comment(report);
            } else {
                return start == 0 || self.since(start).contains('\n');
            }
        }
    }

    fn block_comment(&mut self, report: &mut Report<'_>) {
        let start = self.at;
        if let Some(end) = self.rest().find("*/") {
            self.at += end + "*/".len();
            return;
        }
        self.at = self.text.len();
        self.cut_short = true;
        let open = Span::new(start, start + "/*".len());
        report.error(Code::Syntax, open, "the comment is not closed").help("end it with `*/`");
    }

    fn name(&mut self) -> Token {
        let start = self.at;
        self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
        Token::Name(self.since(start).to_owned())
    }

    fn illegal(&mut self, c: char, report: &mut Report<'_>) -> Token {
        let start = self.at;
        self.bump();
        let span = Span::new(start, self.at);
        let fault = report.error(Code::Syntax, span, format!("illegal character {c:?}"));
        fault.consul(format!("Request decode failed: invalid character '{}'", c.escape_debug()));
        match c {
            ';' => fault.help("put attributes on separate lines, or a comma between them"),
            '\'' => fault.help("use double quotes"),
            _ => fault,
        };
        Token::Bad
    }

    fn number(&mut self, report: &mut Report<'_>) -> Token {
        let start = self.at;
        self.bump();
        self.take_while(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '+' | '-'));
        let text = self.since(start);
        let span = Span::new(start, self.at);
        match parse_number(text, self.notation) {
            Ok(token) => token,
            Err(help) => {
                report.error(Code::Syntax, span, "this is not a number").help(help);
                Token::Bad
            }
        }
    }
}

/// Reads a number, or says how to write it.
fn parse_number(text: &str, notation: Notation) -> Result<Token, &'static str> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if let Some(hex) = digits.strip_prefix("0x").filter(|_| notation == Notation::Hcl) {
        let unsigned = hex.bytes().all(|b| b.is_ascii_hexdigit());
        let value =
            i64::from_str_radix(hex, 16).ok().filter(|_| unsigned).ok_or("write it in decimal")?;
        return Ok(Token::Int(if negative { -value } else { value }));
    }
    if !is_decimal(digits) {
        return Err("put quotes around it");
    }
    if matches!(digits.as_bytes(), [b'0', b'0'..=b'9', ..]) {
        return Err("leave out the leading zero");
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Token::Int).map_err(|_| "it does not fit into 64 bits");
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Token::Float(value)),
        _ => Err("it is too large"),
    }
}

/// Digits, perhaps a fraction, perhaps an exponent.
fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let unsigned = |part: &str| digits(part.strip_prefix(['+', '-']).unwrap_or(part));
    digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        use Notation::{Hcl, Json};
        for (text, notation, value) in [
            ("0", Json, Token::Int(0)),
            ("-12", Hcl, Token::Int(-12)),
            ("0x1F", Hcl, Token::Int(31)),
            ("1.5", Json, Token::Float(1.5)),
            ("2e3", Json, Token::Float(2000.0)),
            ("-9223372036854775808", Json, Token::Int(i64::MIN)),
        ] {
            assert_eq!(parse_number(text, notation), Ok(value), "{text}");
        }
        for bad in [
            "10s",
            "-",
            "1.",
            "1e",
            "007",
            "1_000",
            "9223372036854775808",
            "1e999",
            "1.2.3",
            "0x",
            "-0x-8000000000000000",
        ] {
            assert!(parse_number(bad, Hcl).is_err(), "{bad} was accepted");
        }
        assert!(parse_number("0x1F", Json).is_err());
    }
}
