//! What the parsers of both notations share: one token of look-ahead, values, lists and the ways
//! back after a fault.

use super::diagnostic::{Code, Diagnostic};
use super::lexer::{Lexeme, Lexer, Notation, Token};
use super::report::Report;
use super::value::{Kind, MAX_DEPTH, Span, Value};

/// A parsed file.
pub(super) struct Parsed {
    /// Always an object.
    pub(super) root: Value,
    /// Whether braces and brackets matched. If not, keys may have ended up in the wrong block, and
    /// faults found by decoding would mislead.
    pub(super) balanced: bool,
}

pub(super) struct Parser<'p, 's> {
    pub(super) report: &'p mut Report<'s>,
    lexer: Lexer<'s>,
    pub(super) next: Lexeme,
    pub(super) balanced: bool,
    depth: usize,
    /// The first block whose closing brace is indented unlike the line it was opened on: if a brace
    /// is missing, it is most likely this block's.
    suspect: Option<Span>,
}

impl<'p, 's> Parser<'p, 's> {
    pub(super) fn new(report: &'p mut Report<'s>, notation: Notation) -> Self {
        let text = report.source().text.as_str();
        let mut lexer = Lexer::new(text, notation);
        let next = lexer.next(report);
        Self { report, lexer, next, balanced: true, depth: 0, suspect: None }
    }

    /// Moves to the next token and returns the one that was next.
    pub(super) fn bump(&mut self) -> Lexeme {
        let following = self.lexer.next(self.report);
        std::mem::replace(&mut self.next, following)
    }

    pub(super) fn at(&self, token: &Token) -> bool {
        self.next.token == *token
    }

    pub(super) fn syntax(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        let message = message.into();
        let consul = format!("Request decode failed: {message}");
        self.report.error(Code::Syntax, span, message).consul(consul)
    }

    /// Reports that a brace or bracket has no partner. Only the first is worth a word.
    pub(super) fn unbalanced(&mut self, span: Span, message: &str, help: &str) {
        if self.balanced && !self.lexer.cut_short {
            self.syntax(span, message).help(help);
        }
        self.balanced = false;
    }

    /// Reports that the block or object opened at `open` is not closed.
    pub(super) fn unclosed(&mut self, open: Span, message: &str) {
        let open = self.suspect.unwrap_or(open);
        self.unbalanced(open, message, "end it with `}`");
    }

    /// Compares the closing brace, which is next, with the line of the opening one.
    pub(super) fn check_indentation(&mut self, open: Span) {
        if self.suspect.is_none() && self.next.starts_line {
            let text = self.report.source().text.as_str();
            if indentation(text, open.start) != indentation(text, self.next.span.start) {
                self.suspect = Some(open);
            }
        }
    }

    /// Goes one level down, unless that is too deep: then the rest of the text is given up.
    pub(super) fn descend(&mut self, span: Span) -> bool {
        if self.depth >= MAX_DEPTH {
            self.balanced = false;
            let message = format!("more than {MAX_DEPTH} levels of nesting");
            self.report.error(Code::Limit, span, message);
            while !self.at(&Token::End) {
                self.bump();
            }
            return false;
        }
        self.depth += 1;
        true
    }

    pub(super) const fn ascend(&mut self) {
        self.depth -= 1;
    }

    /// A value. A token that cannot begin one stays, and the result is `Kind::Invalid`.
    pub(super) fn value(&mut self) -> Value {
        match self.next.token {
            Token::OpenBrace => return self.object(),
            Token::OpenBracket => return self.list(),
            Token::CloseBrace
            | Token::CloseBracket
            | Token::Equals
            | Token::Colon
            | Token::Comma
            | Token::End => {
                let span = self.next.span;
                self.syntax(span, "expected a value");
                return Value::new(Kind::Invalid, span);
            }
            _ => {}
        }
        let lexeme = self.bump();
        let kind = match lexeme.token {
            Token::Text(text) => Kind::Text(text),
            Token::Int(value) => Kind::Int(value),
            Token::Float(value) => Kind::Float(value),
            Token::Name(name) if name == "true" => Kind::Bool(true),
            Token::Name(name) if name == "false" => Kind::Bool(false),
            Token::Name(name) if name == "null" && self.lexer.notation == Notation::Json => Kind::Null,
            Token::Name(_) => {
                self.syntax(lexeme.span, "this is not a value").help("put quotes around text");
                Kind::Invalid
            }
            _ => Kind::Invalid,
        };
        Value::new(kind, lexeme.span)
    }

    fn object(&mut self) -> Value {
        match self.lexer.notation {
            Notation::Hcl => self.hcl_object(),
            Notation::Json => self.json_object(),
        }
    }

    fn list(&mut self) -> Value {
        let open = self.bump().span;
        if !self.descend(open) {
            return Value::new(Kind::Invalid, open);
        }
        let before = self.report.errors();
        let mut items = Vec::new();
        let end = loop {
            match self.next.token {
                Token::CloseBracket => break self.bump().span,
                Token::End | Token::CloseBrace => {
                    self.unbalanced(open, "this list is not closed", "end it with `]`");
                    break open;
                }
                // An attribute on the next line: only the bracket is missing.
                Token::Name(_) if self.begins_attribute() => {
                    if self.report.errors() == before {
                        self.syntax(open, "this list is not closed").help("end it with `]`");
                    }
                    break open;
                }
                _ => items.push(self.list_item()),
            }
        };
        self.ascend();
        Value::new(Kind::List(items), open.to(end))
    }

    /// An item and the comma after it.
    fn list_item(&mut self) -> Value {
        let before = self.report.errors();
        let item = self.value();
        match self.next.token {
            Token::Comma => {
                self.bump();
            }
            Token::CloseBracket | Token::CloseBrace | Token::End => {}
            Token::Name(_) if self.begins_attribute() => {}
            _ => {
                if self.report.errors() == before {
                    self.syntax(self.next.span, "expected `,` or `]` in this list");
                }
                self.skip_to_list_end();
            }
        }
        item
    }

    /// Whether the next token, inside a list of HCL, can only be the key of an attribute after it.
    fn begins_attribute(&self) -> bool {
        let is_word = |name: &str| matches!(name, "true" | "false");
        self.lexer.notation == Notation::Hcl
            && self.next.starts_line
            && matches!(&self.next.token, Token::Name(name) if !is_word(name))
    }

    fn skip_to_list_end(&mut self) {
        while !matches!(self.next.token, Token::CloseBracket | Token::CloseBrace | Token::End)
            && !self.begins_attribute()
        {
            if self.at(&Token::Comma) {
                self.bump();
                return;
            }
            self.skip_one();
        }
    }

    /// Passes the next token, with all it encloses.
    fn skip_one(&mut self) {
        let mut open = 0_usize;
        loop {
            match self.bump().token {
                Token::OpenBrace | Token::OpenBracket => open += 1,
                Token::CloseBrace | Token::CloseBracket => open = open.saturating_sub(1),
                Token::End => return,
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }

    /// After a fault in an object: to the next line, a comma, or the end of the object.
    pub(super) fn recover(&mut self) {
        while !matches!(self.next.token, Token::CloseBrace | Token::Comma | Token::End) {
            self.skip_one();
            if self.next.starts_line {
                return;
            }
        }
    }
}

/// The white space at the beginning of the line that holds a byte offset.
fn indentation(text: &str, at: usize) -> &str {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let rest = text.get(line..).unwrap_or_default();
    let end = rest.find(|c| c != ' ' && c != '\t').unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}
