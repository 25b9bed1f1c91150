//! What Go's JSON decoder says of a text that is no JSON: Consul's clients and users know these words.
//!
//! Follows the scanner of Go's `encoding/json`, which names the first byte that cannot be and what was
//! being read. Used where a body was found faulty already; time and memory are linear in its length.

/// What Go says, or nothing when the text is one JSON value.
#[must_use]
pub fn fault(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Ok(()) => None,
        Err(Fault::Byte(byte, context)) => Some(format!("invalid character {} {context}", quoted(byte))),
        Err(Fault::End) if text.iter().all(u8::is_ascii_whitespace) => Some("EOF".to_owned()),
        Err(Fault::End) => Some("unexpected EOF".to_owned()),
    }
}

enum Fault {
    Byte(u8, String),
    End,
}

/// What the value that was begun and not ended is, innermost last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Object,
    Array,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        let mut open = Vec::new();
        loop {
            if !self.value(&mut open)? {
                continue;
            }
            if !self.after_value(&mut open)? {
                break;
            }
        }
        // A decoder of a stream does not look further.
        Ok(())
    }

    /// Reads a value, or the beginning of one that holds others; says whether a value has ended.
    fn value(&mut self, open: &mut Vec<Open>) -> Result<bool, Fault> {
        match self.next_visible()? {
            b'{' => {
                if self.peek_visible()? == b'}' {
                    self.at += 1;
                    return Ok(true);
                }
                open.push(Open::Object);
                self.key()?;
                Ok(false)
            }
            b'[' => {
                if self.peek_visible()? == b']' {
                    self.at += 1;
                    return Ok(true);
                }
                open.push(Open::Array);
                Ok(false)
            }
            b'"' => self.string().map(|()| true),
            b't' => self.literal("true").map(|()| true),
            b'f' => self.literal("false").map(|()| true),
            b'n' => self.literal("null").map(|()| true),
            byte @ (b'-' | b'0'..=b'9') => self.number(byte).map(|()| true),
            byte => Err(found(byte, "looking for beginning of value")),
        }
    }

    /// What follows a value; says whether another one has to come.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Result<bool, Fault> {
        while let Some(within) = open.last().copied() {
            match (within, self.next_visible()?) {
                (Open::Array, b',') => return Ok(true),
                (Open::Object, b',') => {
                    self.key()?;
                    return Ok(true);
                }
                (Open::Array, b']') | (Open::Object, b'}') => drop(open.pop()),
                (Open::Array, byte) => return Err(found(byte, "after array element")),
                (Open::Object, byte) => return Err(found(byte, "after object key:value pair")),
            }
        }
        Ok(false)
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), Fault> {
        match self.next_visible()? {
            b'"' => self.string()?,
            byte => return Err(found(byte, "looking for beginning of object key string")),
        }
        match self.next_visible()? {
            b':' => Ok(()),
            byte => Err(found(byte, "after object key")),
        }
    }

    /// The rest of a string.
    fn string(&mut self) -> Result<(), Fault> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                byte @ 0..0x20 => return Err(found(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.next()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    let byte = self.next()?;
                    if !byte.is_ascii_hexdigit() {
                        return Err(found(byte, "in \\u hexadecimal character escape"));
                    }
                }
                Ok(())
            }
            byte => Err(found(byte, "in string escape code")),
        }
    }

    /// The rest of a word whose first letter was read.
    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        for wanted in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != wanted {
                let wanted = char::from(wanted);
                return Err(found(byte, format!("in literal {word} (expecting '{wanted}')")));
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<(), Fault> {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<u8, Fault> {
        let byte = self.next()?;
        if byte.is_ascii_digit() { Ok(byte) } else { Err(found(byte, context)) }
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek().ok_or(Fault::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn peek_visible(&mut self) -> Result<u8, Fault> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.peek().ok_or(Fault::End)
    }

    fn next_visible(&mut self) -> Result<u8, Fault> {
        let byte = self.peek_visible()?;
        self.at += 1;
        Ok(byte)
    }
}

fn found(byte: u8, context: impl Into<String>) -> Fault {
    Fault::Byte(byte, context.into())
}

/// A byte as Go quotes it in its messages: each stands for the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..0xa1 | 0xad => format!(r"'\u00{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gos_words_by_table() {
        for (text, expected) in [
            ("zz", "invalid character 'z' looking for beginning of value"),
            ("notjson", "invalid character 'o' in literal null (expecting 'u')"),
            ("", "EOF"),
            (" \n", "EOF"),
            (r#"{"a":"#, "unexpected EOF"),
            (r#"{"a":1"#, "unexpected EOF"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g0""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e+x", "invalid character 'x' in exponent of numeric literal"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("'a'", r"invalid character '\'' looking for beginning of value"),
            ("// x", "invalid character '/' looking for beginning of value"),
            ("ä", "invalid character 'Ã' looking for beginning of value"),
        ] {
            assert_eq!(fault(text.as_bytes()).as_deref(), Some(expected), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_json_has_no_fault(depth in 0usize..50, text in ".{0,20}", number in any::<f64>()) {
            let number = if number.is_finite() { number } else { 0.0 };
            let mut value = serde_json::json!({ "a": [text, number, null, true], "b": {} });
            for _ in 0..depth {
                value = serde_json::json!([value, {}]);
            }
            prop_assert_eq!(fault(value.to_string().as_bytes()), None);
        }

        #[test]
        fn what_is_none_has_one(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let is_first_value = serde_json::Deserializer::from_slice(&bytes)
                .into_iter::<serde_json::Value>()
                .next()
                .is_some_and(|value| value.is_ok());
            if !is_first_value && std::str::from_utf8(&bytes).is_ok() {
                // Numbers too large and lone surrogates are no fault of the form.
                let formal = fault(&bytes).is_some();
                let number = bytes.iter().any(u8::is_ascii_digit);
                prop_assert!(formal || number || bytes.contains(&b'\\'), "{:?}", bytes);
            }
        }
    }
}
