//! Literals by Go's rules.

/// The text of a quoted literal; `None` if it is not a Go string. Bytes that are no UTF-8 are refused:
/// nothing in an answer could equal them.
pub(super) fn unquote(quote: char, body: &str) -> Option<String> {
    if quote == '`' {
        return Some(body.replace('\r', ""));
    }
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' => return None,
            '\\' => escape(&mut rest, &mut bytes)?,
            other => push(&mut bytes, other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// What stands behind a backslash.
fn escape(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let first = rest.next()?;
    match first {
        'a' => bytes.push(0x07),
        'b' => bytes.push(0x08),
        'f' => bytes.push(0x0c),
        'n' => bytes.push(b'\n'),
        'r' => bytes.push(b'\r'),
        't' => bytes.push(b'\t'),
        'v' => bytes.push(0x0b),
        '\\' | '"' => push(bytes, first),
        'x' => bytes.push(u8::try_from(number(rest, 0, 2, 16)?).ok()?),
        'u' => push(bytes, char::from_u32(number(rest, 0, 4, 16)?)?),
        'U' => push(bytes, char::from_u32(number(rest, 0, 8, 16)?)?),
        '0'..='7' => bytes.push(u8::try_from(number(rest, first.to_digit(8)?, 2, 8)?).ok()?),
        _ => return None,
    }
    Some(())
}

fn number(rest: &mut std::str::Chars<'_>, start: u32, digits: u32, radix: u32) -> Option<u32> {
    let mut value = start;
    for _ in 0..digits {
        value = value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
    }
    Some(value)
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A whole number, with Go's prefixes of a base. The error is the end of Go's text.
pub(super) fn parse_int(text: &str) -> Result<i64, &'static str> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = [("0x", 16), ("0b", 2), ("0o", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((radix, lower.strip_prefix(prefix)?)))
        .unwrap_or_else(|| match lower.strip_prefix('0') {
            Some(rest) if !rest.is_empty() => (8, rest),
            _ => (10, lower.as_str()),
        });
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err("invalid syntax");
    }
    let value = i128::from_str_radix(digits, radix).map_err(|_| "value out of range")?;
    i64::try_from(if is_negative { -value } else { value }).map_err(|_| "value out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_by_table() {
        for (quote, body, expected) in [
            ('"', "plain", Some("plain")),
            ('"', r"a\tb\n\\\a", Some("a\tb\n\\\x07")),
            ('"', r"\x41\u00e9\U0001F600\101", Some("A\u{e9}\u{1F600}A")),
            ('"', r"\xc3\xa9", Some("\u{e9}")),
            ('"', r"\xff", None),
            ('"', r"\ud800", None),
            ('"', r"\'", None),
            ('"', r"\q", None),
            ('"', r"\x4", None),
            ('"', r"\777", None),
            ('"', r"\", None),
            ('"', "a\nb", None),
            ('`', "a\\q\r\nb", Some("a\\q\nb")),
        ] {
            assert_eq!(unquote(quote, body).as_deref(), expected, "{quote}{body}{quote}");
        }
    }

    #[test]
    fn numbers_by_table() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-8080", Ok(-8080)),
            ("+7", Ok(7)),
            ("0x1F", Ok(31)),
            ("0b101", Ok(5)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err("value out of range")),
            ("99999999999999999999999999999999999999999999", Err("value out of range")),
            ("", Err("invalid syntax")),
            ("-", Err("invalid syntax")),
            ("0x", Err("invalid syntax")),
            ("09", Err("invalid syntax")),
            ("--1", Err("invalid syntax")),
            ("1.5", Err("invalid syntax")),
        ] {
            assert_eq!(parse_int(text), expected, "{text}");
        }
    }
}
