//! What is wrong with a text that is no JSON, in the words of Go's parser, which Consul's clients see.
//!
//! Asked by `decode` after the real parser refused a body; it decides nothing. Pure, one pass, and its
//! memory is a byte for each level of nesting.

/// The first fault that Go would tell; `None` if the text is JSON.
pub(super) fn fault(json: &[u8]) -> Option<String> {
    let mut scanner = Scanner { state: State::Value, within: Vec::new() };
    for byte in json {
        if let Err(context) = scanner.step(*byte) {
            return Some(format!("invalid character {} {context}", quote(*byte)));
        }
    }
    // A number ends where the text ends.
    let ended = scanner.step(b' ').is_ok() && matches!(scanner.state, State::End);
    if ended && scanner.within.is_empty() {
        return None;
    }
    let is_blank = json.iter().all(|byte| is_space(*byte));
    Some(if is_blank { "EOF" } else { "unexpected EOF" }.to_owned())
}

/// What is expected next.
#[derive(Debug, Clone, Copy)]
enum State {
    Value,
    /// Or the end of an empty list.
    ValueOrEnd,
    Key,
    /// Or the end of an empty object.
    KeyOrEnd,
    /// A value has ended.
    End,
    Text,
    Escape,
    Hex(u8),
    /// A number after its minus, its zero or digits, its point, its fraction, its `e`, the sign of its
    /// exponent, its exponent.
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
    /// `true`, `false` or `null`, of which so many letters are read.
    Word(&'static str, usize),
}

/// What the current value is part of.
#[derive(Debug, Clone, Copy)]
enum Within {
    Key,
    Member,
    List,
}

struct Scanner {
    state: State,
    within: Vec<Within>,
}

type Step = Result<State, String>;

impl Scanner {
    fn step(&mut self, byte: u8) -> Result<(), String> {
        self.state = match self.state {
            State::Value => self.value(byte),
            State::ValueOrEnd if byte == b']' => self.close(),
            State::ValueOrEnd if is_space(byte) => Ok(State::ValueOrEnd),
            State::ValueOrEnd => self.value(byte),
            State::KeyOrEnd if byte == b'}' => self.close(),
            State::KeyOrEnd if is_space(byte) => Ok(State::KeyOrEnd),
            State::KeyOrEnd | State::Key => key(byte),
            State::End => self.end(byte),
            State::Text | State::Escape | State::Hex(_) => text(self.state, byte),
            State::Word(word, read) => letter(word, read, byte),
            number => match digit(number, byte) {
                Some(next) => next,
                None => self.end(byte),
            },
        }?;
        Ok(())
    }

    fn value(&mut self, byte: u8) -> Step {
        Ok(match byte {
            _ if is_space(byte) => State::Value,
            b'{' => {
                self.within.push(Within::Key);
                State::KeyOrEnd
            }
            b'[' => {
                self.within.push(Within::List);
                State::ValueOrEnd
            }
            b'"' => State::Text,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Word("true", 1),
            b'f' => State::Word("false", 1),
            b'n' => State::Word("null", 1),
            _ => return Err("looking for beginning of value".to_owned()),
        })
    }

    fn end(&mut self, byte: u8) -> Step {
        if is_space(byte) {
            return Ok(State::End);
        }
        match (self.within.last_mut(), byte) {
            (Some(within @ Within::Key), b':') => {
                *within = Within::Member;
                Ok(State::Value)
            }
            (Some(within @ Within::Member), b',') => {
                *within = Within::Key;
                Ok(State::Key)
            }
            (Some(Within::List), b',') => Ok(State::Value),
            (Some(Within::Member), b'}') | (Some(Within::List), b']') => self.close(),
            (Some(Within::Key), _) => Err("after object key".to_owned()),
            (Some(Within::Member), _) => Err("after object key:value pair".to_owned()),
            (Some(Within::List), _) => Err("after array element".to_owned()),
            (None, _) => Err("after top-level value".to_owned()),
        }
    }

    fn close(&mut self) -> Step {
        self.within.pop();
        Ok(State::End)
    }
}

fn key(byte: u8) -> Step {
    match byte {
        _ if is_space(byte) => Ok(State::Key),
        b'"' => Ok(State::Text),
        _ => Err("looking for beginning of object key string".to_owned()),
    }
}

fn text(state: State, byte: u8) -> Step {
    match (state, byte) {
        (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => Ok(State::Text),
        (State::Escape, b'u') => Ok(State::Hex(0)),
        (State::Escape, _) => Err("in string escape code".to_owned()),
        (State::Hex(3), _) if byte.is_ascii_hexdigit() => Ok(State::Text),
        (State::Hex(read), _) if byte.is_ascii_hexdigit() => Ok(State::Hex(read + 1)),
        (State::Hex(_), _) => Err(r"in \u hexadecimal character escape".to_owned()),
        (_, b'"') => Ok(State::End),
        (_, b'\\') => Ok(State::Escape),
        (_, ..b' ') => Err("in string literal".to_owned()),
        _ => Ok(State::Text),
    }
}

fn letter(word: &'static str, read: usize, byte: u8) -> Step {
    let expected = word.as_bytes().get(read).copied().unwrap_or_default();
    if byte != expected {
        return Err(format!("in literal {word} (expecting {})", quote(expected)));
    }
    Ok(if read + 1 == word.len() { State::End } else { State::Word(word, read + 1) })
}

/// `None` if the number ends before this byte.
fn digit(state: State, byte: u8) -> Option<Step> {
    Some(Ok(match (state, byte) {
        (State::Minus, b'0') => State::Zero,
        (State::Minus, b'1'..=b'9') | (State::Digits, b'0'..=b'9') => State::Digits,
        (State::Zero | State::Digits, b'.') => State::Point,
        (State::Zero | State::Digits | State::Fraction, b'e' | b'E') => State::E,
        (State::Point | State::Fraction, b'0'..=b'9') => State::Fraction,
        (State::E, b'+' | b'-') => State::Sign,
        (State::E | State::Sign | State::Exponent, b'0'..=b'9') => State::Exponent,
        (State::Minus, _) => return Some(Err("in numeric literal".to_owned())),
        (State::Point, _) => return Some(Err("after decimal point in numeric literal".to_owned())),
        (State::E | State::Sign, _) => return Some(Err("in exponent of numeric literal".to_owned())),
        _ => return None,
    }))
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A byte as Go shows it: in single quotes, which only escape themselves.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        other => format!("'{}'", char::from(other).escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn faults_by_table() {
        for (json, expected) in [
            // The first two were captured from Consul 1.8.7.
            ("zz", Some("invalid character 'z' looking for beginning of value")),
            ("notjson", Some("invalid character 'o' in literal null (expecting 'u')")),
            ("", Some("EOF")),
            (" \n", Some("EOF")),
            ("{", Some("unexpected EOF")),
            (r#"{"a":1"#, Some("unexpected EOF")),
            (r#""a"#, Some("unexpected EOF")),
            ("tru", Some("unexpected EOF")),
            ("{a", Some("invalid character 'a' looking for beginning of object key string")),
            (r#"{"a" 1}"#, Some("invalid character '1' after object key")),
            (r#"{"a":1 "b"}"#, Some("invalid character '\"' after object key:value pair")),
            (r#"{"a":1,}"#, Some("invalid character '}' looking for beginning of object key string")),
            ("[1 2]", Some("invalid character '2' after array element")),
            ("[1,]", Some("invalid character ']' looking for beginning of value")),
            ("1 x", Some("invalid character 'x' after top-level value")),
            ("{}}", Some("invalid character '}' after top-level value")),
            ("01", Some("invalid character '1' after top-level value")),
            ("-x", Some("invalid character 'x' in numeric literal")),
            ("1.x", Some("invalid character 'x' after decimal point in numeric literal")),
            ("1e'", Some(r"invalid character '\'' in exponent of numeric literal")),
            ("\"a\nb\"", Some(r"invalid character '\n' in string literal")),
            (r#""\q""#, Some("invalid character 'q' in string escape code")),
            (r#""\u00x0""#, Some(r"invalid character 'x' in \u hexadecimal character escape")),
            (r#" {"a":[1,-0.5e+3,true,false,null,"\u00e9\n"],"b":{},"c":[]} "#, None),
            ("0", None),
        ] {
            assert_eq!(fault(json.as_bytes()).as_deref(), expected, "{json}");
        }
    }

    proptest! {
        /// Go and our parser know the same JSON.
        #[test]
        fn what_our_parser_reads_has_no_fault(json in r#"[ \[\]{},:"a0-9.eE+\\ntrulfs-]{0,16}"#) {
            let read = serde_json::from_str::<serde::de::IgnoredAny>(&json);
            prop_assert_eq!(read.is_ok(), fault(json.as_bytes()).is_none(), "{:?}", read);
        }
    }
}
