//! The first version of HCL, the notation of Consul's files: blocks, assignments, lists.
//!
//! Commas and line breaks between attributes are optional, so that
//! `weights { passing = 10 warning = 1 }` is one block with two attributes. Keys may be quoted. A
//! file that begins with `{` is JSON.

use super::json;
use super::lexer::{Notation, Token};
use super::parser::{Parsed, Parser};
use super::report::Report;
use super::value::{Entry, Form, Kind, MAX_DEPTH, Span, Value};

/// Parses a whole text; faults go to `report`.
pub(super) fn parse(report: &mut Report<'_>) -> Parsed {
    let whole = Span::new(0, report.source().text.len());
    let mut parser = Parser::new(report, Notation::Hcl);
    if parser.at(&Token::OpenBrace) {
        return json::parse(report);
    }
    let entries = parser.entries(None);
    Parsed { root: Value::new(Kind::Object(entries), whole), balanced: parser.balanced }
}

/// A key or label and its place.
struct Key {
    text: String,
    span: Span,
}

impl Parser<'_, '_> {
    /// `{ … }` with HCL inside.
    pub(super) fn hcl_object(&mut self) -> Value {
        let open = self.bump().span;
        if !self.descend(open) {
            return Value::new(Kind::Invalid, open);
        }
        let entries = self.entries(Some(open));
        self.ascend();
        self.check_indentation(open);
        let end = if self.at(&Token::CloseBrace) { self.bump().span } else { open };
        Value::new(Kind::Object(entries), open.to(end))
    }

    /// Entries up to, not including, the closing brace, or the end of the file when `open` is `None`.
    fn entries(&mut self, open: Option<Span>) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            match (&self.next.token, open) {
                (Token::CloseBrace, Some(_)) | (Token::End, None) => return entries,
                (Token::CloseBrace, None) => {
                    self.unbalanced(self.next.span, "this `}` closes nothing", "take it out");
                    self.bump();
                }
                (Token::End, Some(open)) => {
                    self.unclosed(open, "this block is not closed");
                    return entries;
                }
                (Token::Comma, _) => {
                    self.bump();
                }
                (Token::Name(_) | Token::Text(_), _) => entries.extend(self.entry()),
                (Token::Bad, _) => self.recover(),
                _ => {
                    self.syntax(self.next.span, "expected a key");
                    self.recover();
                }
            }
        }
    }

    /// `key = value`, `key { … }` or `key "label" { … }`.
    fn entry(&mut self) -> Option<Entry> {
        let key = self.key()?;
        let labels = self.labels()?;
        match self.next.token {
            Token::OpenBrace => {
                let value = self.hcl_object();
                Some(block(key, labels, value))
            }
            Token::Equals | Token::Colon => self.assignment(key, &labels),
            _ => {
                self.syntax(key.span, format!("expected `=` or `{{` after `{}`", key.text));
                self.recover_line();
                None
            }
        }
    }

    fn assignment(&mut self, key: Key, labels: &[Key]) -> Option<Entry> {
        if let Some(label) = labels.first() {
            self.syntax(label.span, "expected `=` or `{` before this");
            self.recover();
            return None;
        }
        let sign = self.bump();
        if sign.token == Token::Colon {
            self.syntax(sign.span, "expected `=`").help("write `=` instead of `:`");
        }
        let begins_an_entry = matches!(self.next.token, Token::Name(_)) && self.next.starts_line;
        let value = if begins_an_entry || self.at(&Token::CloseBrace) {
            self.syntax(sign.span, "expected a value after this");
            Value::new(Kind::Invalid, sign.span)
        } else {
            self.value()
        };
        self.after_value(&value);
        Some(Entry { key: key.text, key_span: key.span, form: Form::Assignment, value })
    }

    /// Whatever cannot follow a value is passed, up to where the next entry may begin.
    fn after_value(&mut self, value: &Value) {
        let may_follow = matches!(
            self.next.token,
            Token::Name(_) | Token::Text(_) | Token::Comma | Token::CloseBrace | Token::End
        );
        if may_follow || self.next.starts_line {
            return;
        }
        if value.kind != Kind::Invalid && !self.at(&Token::Bad) {
            self.syntax(self.next.span, "expected a new attribute");
        }
        self.recover();
    }

    /// The names between a key and its block, all on the line of the key.
    fn labels(&mut self) -> Option<Vec<Key>> {
        let mut labels = Vec::new();
        while matches!(self.next.token, Token::Name(_) | Token::Text(_)) && !self.next.starts_line {
            if labels.len() >= MAX_DEPTH {
                self.syntax(self.next.span, "expected `{`");
                self.recover();
                return None;
            }
            labels.extend(self.key());
        }
        Some(labels)
    }

    fn key(&mut self) -> Option<Key> {
        let lexeme = self.bump();
        match lexeme.token {
            Token::Name(text) | Token::Text(text) => Some(Key { text, span: lexeme.span }),
            _ => None,
        }
    }

    /// Like `recover`, but stays where a line begins already.
    fn recover_line(&mut self) {
        if !self.next.starts_line {
            self.recover();
        }
    }
}

fn block(key: Key, labels: Vec<Key>, body: Value) -> Entry {
    let value = labels.into_iter().rev().fold(body, |value, label| {
        let span = label.span.to(value.span);
        let entry = Entry { key: label.text, key_span: label.span, form: Form::Label, value };
        Value::new(Kind::Object(vec![entry]), span)
    });
    Entry { key: key.text, key_span: key.span, form: Form::Block, value }
}
