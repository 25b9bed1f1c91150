//! Text to expression: a parser without lookahead tables for the grammar of go-bexpr (a PEG).
//!
//! Consul tells a syntax fault by the farthest position that any alternative reached and by all tokens
//! that would have been taken there, so every failed try is noted here as well. Beside it there are
//! faults that name a rule; the first such fault makes the text invalid even if another alternative
//! would have matched. Chains of `and` and `or` are read in loops and nothing is read more often than a
//! few times, so the work grows with the length of the text alone; nesting is bounded.

use std::collections::BTreeSet;

use super::{Expression, FilterError, Match, Operator, Test, text};
use crate::api::limits::MAX_FILTER_DEPTH;

pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut parser = Parser {
        text,
        at: 0,
        farthest: 0,
        expected: BTreeSet::new(),
        faults: Vec::new(),
        depth: 0,
        is_too_deep: false,
    };
    let expression = parser.input();
    if parser.is_too_deep {
        return Err(FilterError::TooDeep);
    }
    match expression {
        Some(expression) if parser.faults.is_empty() => Ok(expression),
        _ => Err(FilterError::Invalid(parser.complaint())),
    }
}

/// A token that would have been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Literal(&'static str),
    Class(&'static str),
    End,
}

/// `None` from a rule means that it does not match; `at` then stands where the rule began.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// The farthest position at which something failed, and what would have been taken there.
    farthest: usize,
    expected: BTreeSet<Token>,
    /// Faults that name a rule, in the order they were found.
    faults: Vec<String>,
    depth: usize,
    is_too_deep: bool,
}

impl Parser<'_> {
    fn input(&mut self) -> Option<Expression> {
        self.maybe_space();
        let expression = self.any()?;
        self.maybe_space();
        self.end().then_some(expression)
    }

    fn any(&mut self) -> Option<Expression> {
        self.chain("or", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Option<Expression> {
        self.chain("and", Self::not, Expression::All)
    }

    /// `part word part word part…`
    fn chain(
        &mut self,
        word: &'static str,
        part: fn(&mut Self) -> Option<Expression>,
        joined: fn(Vec<Expression>) -> Expression,
    ) -> Option<Expression> {
        let first = part(self)?;
        let mut parts = vec![first];
        while let Some(next) = self.attempt(|parser| {
            parser.words(&[word])?;
            part(parser)
        }) {
            parts.push(next);
        }
        if parts.len() == 1 { parts.pop() } else { Some(joined(parts)) }
    }

    fn not(&mut self) -> Option<Expression> {
        let negated = self.attempt(|parser| {
            parser.literal("not")?;
            parser.space()?;
            parser.nested(Self::not)
        });
        match negated {
            Some(Expression::Not(inner)) => Some(*inner),
            Some(inner) => Some(Expression::Not(Box::new(inner))),
            None => self.group(),
        }
    }

    fn group(&mut self) -> Option<Expression> {
        let start = self.at;
        if self.literal("(").is_none() {
            return self.matching();
        }
        self.maybe_space();
        if let Some(inner) = self.nested(Self::any) {
            self.maybe_space();
            if self.literal(")").is_some() {
                return Some(inner);
            }
            self.fault("grouping", self.at, "Unmatched parentheses");
        }
        self.at = start;
        None
    }

    fn nested(&mut self, rule: fn(&mut Self) -> Option<Expression>) -> Option<Expression> {
        if self.depth == MAX_FILTER_DEPTH {
            self.is_too_deep = true;
            return None;
        }
        self.depth += 1;
        let found = rule(self);
        self.depth -= 1;
        found
    }

    fn matching(&mut self) -> Option<Expression> {
        let found = self
            .attempt(|parser| {
                let selector = parser.selector()?;
                let operator = parser.comparison()?;
                Some(Match { selector, operator, value: Some(parser.value()?) })
            })
            .or_else(|| {
                self.attempt(|parser| {
                    let selector = parser.selector()?;
                    Some(Match { selector, operator: parser.emptiness()?, value: None })
                })
            })
            .or_else(|| self.attempt(Self::membership));
        found.map(Expression::Match)
    }

    /// `value in selector`
    fn membership(&mut self) -> Option<Match> {
        let value = self.value()?;
        let operator = self
            .first_of(&[(&["in"], Operator::is(Test::In)), (&["not", "in"], Operator::not(Test::In))])?;
        let Some(selector) = self.selector() else {
            self.fault("match", self.at, "Invalid selector");
            return None;
        };
        Some(Match { selector, operator, value: Some(value) })
    }

    fn comparison(&mut self) -> Option<Operator> {
        for (sign, operator) in [("==", Operator::is(Test::Equal)), ("!=", Operator::not(Test::Equal))] {
            let found = self.attempt(|parser| {
                parser.maybe_space();
                parser.literal(sign)?;
                parser.maybe_space();
                Some(operator)
            });
            if found.is_some() {
                return found;
            }
        }
        self.first_of(&[
            (&["contains"], Operator::is(Test::In)),
            (&["not", "contains"], Operator::not(Test::In)),
            (&["matches"], Operator::is(Test::Matches)),
            (&["not", "matches"], Operator::not(Test::Matches)),
        ])
    }

    /// `is empty` needs no space after it: the expression may end there.
    fn emptiness(&mut self) -> Option<Operator> {
        for (words, operator) in [
            (["is"].as_slice(), Operator::is(Test::Empty)),
            (&["is", "not"], Operator::not(Test::Empty)),
        ] {
            let found = self.attempt(|parser| {
                parser.words(words)?;
                parser.literal("empty")?;
                Some(operator)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn first_of(&mut self, choices: &[(&[&'static str], Operator)]) -> Option<Operator> {
        choices.iter().find_map(|(words, operator)| self.words(words).map(|()| *operator))
    }

    /// Words with space before, between and after them.
    fn words(&mut self, words: &[&'static str]) -> Option<()> {
        self.attempt(|parser| {
            parser.space()?;
            for word in words {
                parser.literal(word)?;
                parser.space()?;
            }
            Some(())
        })
    }

    fn selector(&mut self) -> Option<Vec<String>> {
        let mut path = vec![self.identifier()?];
        while let Some(next) = self
            .attempt(|parser| {
                parser.literal(".")?;
                parser.identifier()
            })
            .or_else(|| self.index())
        {
            path.push(next);
        }
        Some(path)
    }

    fn identifier(&mut self) -> Option<String> {
        let start = self.at;
        self.class("[a-zA-Z]", |c| c.is_ascii_alphabetic())?;
        while self.class("[a-zA-Z0-9_]", |c| c.is_ascii_alphanumeric() || c == '_').is_some() {}
        Some(self.text[start..self.at].to_owned())
    }

    /// `["key"]`
    fn index(&mut self) -> Option<String> {
        let start = self.at;
        self.literal("[")?;
        self.maybe_space();
        if let Some(key) = self.string() {
            self.maybe_space();
            if self.literal("]").is_some() {
                return Some(key);
            }
            self.fault("index", self.at, "Unclosed index expression");
        } else {
            self.fault("index", self.at, "Invalid index");
        }
        self.at = start;
        None
    }

    /// A bare word may have dots, as a selector has.
    fn value(&mut self) -> Option<String> {
        let word = self.selector().map(|path| path.join("."));
        word.or_else(|| self.number()).or_else(|| self.string())
    }

    fn number(&mut self) -> Option<String> {
        let start = self.at;
        let number = self.attempt(|parser| {
            parser.literal("-");
            if parser.literal("0").is_none() {
                parser.class("[1-9]", |c| matches!(c, '1'..='9'))?;
                while parser.digit().is_some() {}
            }
            parser.attempt(|parser| {
                parser.literal(".")?;
                parser.digit()?;
                while parser.digit().is_some() {}
                Some(())
            });
            Some(parser.text[start..parser.at].to_owned())
        })?;
        let end = self.at;
        let is_complete = self.space().is_some() || self.end() || self.literal(")").is_some();
        self.at = end;
        if is_complete {
            return Some(number);
        }
        self.fault("number", end, "Invalid number literal");
        self.at = start;
        None
    }

    fn digit(&mut self) -> Option<char> {
        self.class("[0-9]", |c| c.is_ascii_digit())
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        let quote = if self.literal("`").is_some() {
            '`'
        } else {
            self.literal("\"")?;
            '"'
        };
        let body = &self.text[self.at..];
        let Some(length) = body.find(quote) else {
            self.fault("string", self.text.len(), "Unterminated string literal");
            self.at = start;
            return None;
        };
        self.at += length + 1;
        let unquoted = text::unquote(quote, &body[..length]);
        if unquoted.is_none() {
            self.fault("string", start, "invalid syntax");
        }
        Some(unquoted.unwrap_or_default())
    }

    fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let found = rule(self);
        if found.is_none() {
            self.at = start;
        }
        found
    }

    fn literal(&mut self, literal: &'static str) -> Option<()> {
        if self.text[self.at..].starts_with(literal) {
            self.at += literal.len();
            return Some(());
        }
        self.missed(Token::Literal(literal));
        None
    }

    fn class(&mut self, name: &'static str, has: fn(char) -> bool) -> Option<char> {
        match self.text[self.at..].chars().next() {
            Some(c) if has(c) => {
                self.at += c.len_utf8();
                Some(c)
            }
            _ => {
                self.missed(Token::Class(name));
                None
            }
        }
    }

    fn space(&mut self) -> Option<()> {
        let is_space = |c| matches!(c, ' ' | '\t' | '\r' | '\n');
        self.class(r"[ \t\r\n]", is_space)?;
        while self.class(r"[ \t\r\n]", is_space).is_some() {}
        Some(())
    }

    fn maybe_space(&mut self) {
        // Its absence is noted like any other; it just does not end the rule.
        let _present = self.space();
    }

    fn end(&mut self) -> bool {
        let is_end = self.at == self.text.len();
        if !is_end {
            self.missed(Token::End);
        }
        is_end
    }

    fn missed(&mut self, token: Token) {
        if self.at > self.farthest {
            self.farthest = self.at;
            self.expected.clear();
        }
        if self.at == self.farthest {
            self.expected.insert(token);
        }
    }

    fn fault(&mut self, rule: &str, at: usize, detail: &str) {
        let fault = format!("{}: rule {rule:?}: {detail}", self.position(at));
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn complaint(&self) -> String {
        if !self.faults.is_empty() {
            return self.faults.join("\n");
        }
        let token = |token: &Token| match token {
            Token::Literal(literal) => Some(format!("{literal:?}")),
            Token::Class(class) => Some((*class).to_owned()),
            Token::End => None,
        };
        let mut expected: Vec<_> = self.expected.iter().filter_map(token).collect();
        expected.sort();
        if self.expected.contains(&Token::End) {
            expected.push("EOF".to_owned());
        }
        let list = match expected.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        format!("{}: no match found, expected: {list}", self.position(self.farthest))
    }

    /// `line:column (offset)`, counted as Consul does: columns in characters from 1, a line feed being
    /// column 0 of the line it opens; offsets in bytes.
    fn position(&self, at: usize) -> String {
        let next = self.text[at..].chars().next().map_or(0, char::len_utf8);
        let read = &self.text[..at + next];
        let line = 1 + read.matches('\n').count();
        let seen = read.rsplit('\n').next().map_or(0, |rest| rest.chars().count());
        let column = if next == 0 { seen + 1 } else { seen };
        format!("{line}:{column} ({at})")
    }
}
