//! JSON as people write it in configuration: with comments and trailing commas.

use super::lexer::{Notation, Token};
use super::parser::{Parsed, Parser};
use super::report::Report;
use super::value::{Entry, Form, Kind, Value};

/// Parses a whole text; faults go to `report`.
pub(super) fn parse(report: &mut Report<'_>) -> Parsed {
    let mut parser = Parser::new(report, Notation::Json);
    let span = parser.next.span;
    if !parser.at(&Token::OpenBrace) {
        if !parser.at(&Token::Bad) {
            parser.syntax(span, "expected an object").help("the file is one `{ … }`");
        }
        return Parsed { root: Value::new(Kind::Object(Vec::new()), span), balanced: false };
    }
    let root = parser.json_object();
    if !parser.at(&Token::End) && parser.balanced {
        let rest = parser.next.span;
        parser.unbalanced(rest, "expected nothing after the object", "a file is one object");
    }
    let root =
        if root.kind == Kind::Invalid { Value::new(Kind::Object(Vec::new()), span) } else { root };
    Parsed { root, balanced: parser.balanced }
}

impl Parser<'_, '_> {
    /// `{ "key": value, … }`.
    pub(super) fn json_object(&mut self) -> Value {
        let open = self.bump().span;
        if !self.descend(open) {
            return Value::new(Kind::Invalid, open);
        }
        let mut entries = Vec::new();
        let end = loop {
            match self.next.token {
                Token::CloseBrace => {
                    self.check_indentation(open);
                    break self.bump().span;
                }
                Token::End | Token::CloseBracket => {
                    self.unclosed(open, "this object is not closed");
                    break open;
                }
                _ => entries.extend(self.member()),
            }
        };
        self.ascend();
        Value::new(Kind::Object(entries), open.to(end))
    }

    /// A member and the comma after it.
    fn member(&mut self) -> Option<Entry> {
        if !matches!(self.next.token, Token::Text(_)) {
            if !self.at(&Token::Bad) {
                self.syntax(self.next.span, "expected a key in double quotes");
            }
            self.skip_member();
            return None;
        }
        let lexeme = self.bump();
        let Token::Text(key) = lexeme.token else { return None };
        if !self.at(&Token::Colon) {
            if !self.at(&Token::Bad) {
                self.syntax(self.next.span, "expected `:` after the key");
            }
            self.skip_member();
            return None;
        }
        self.bump();
        let before = self.report.errors();
        let value = self.value();
        self.after_member(before);
        Some(Entry { key, key_span: lexeme.span, form: Form::Assignment, value })
    }

    fn after_member(&mut self, errors_before: usize) {
        match self.next.token {
            Token::Comma => {
                self.bump();
            }
            Token::CloseBrace | Token::CloseBracket | Token::End => {}
            _ => {
                if self.report.errors() == errors_before {
                    let fault = self.syntax(self.next.span, "expected `,` or `}`");
                    fault.help("a comma is missing before this");
                }
                if !self.begins_member() {
                    self.skip_member();
                }
            }
        }
    }

    /// A key on a new line: most likely only the comma before it is missing.
    fn begins_member(&self) -> bool {
        self.next.starts_line && matches!(self.next.token, Token::Text(_))
    }

    fn skip_member(&mut self) {
        if !self.begins_member() {
            self.recover();
        }
        if self.at(&Token::Comma) {
            self.bump();
        }
    }
}
