//! Enrolment tokens: `wt1.<id>.<secret>.<pin>`.
//!
//! The server makes them and the sidecar presents them once. The id names the token in logs and
//! listings; the secret proves possession; the pin is the SHA-256 of the root's public key, so that a
//! sidecar knows its control plane before it sends the secret to anyone.

use std::fmt;

use zeroize::Zeroizing;

use super::hex;

/// What every token of this layout begins with.
const PREFIX: &str = "wt1";
/// Hexadecimal digits of an id: 64 random bits.
pub const ID_DIGITS: usize = 16;
/// Hexadecimal digits of a secret: 256 random bits.
pub const SECRET_DIGITS: usize = 64;
/// Hexadecimal digits of a pin: a SHA-256 hash.
pub const PIN_DIGITS: usize = 64;

/// Why a text is not a token. Says nothing of the text itself, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token has four parts: `wt1.<id>.<secret>.<pin>`; copy it whole")]
    Shape,
    #[error("a token must begin with `wt1.`; this one is of another version or is not a token")]
    Version,
    #[error("the {part} of the token is not {digits} hexadecimal digits; copy the token whole")]
    Part { part: &'static str, digits: usize },
}

/// An enrolment token. Its `Debug` and its errors never show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: Zeroizing<String>,
    pin: String,
}

impl Token {
    /// Puts a token together.
    ///
    /// # Errors
    /// When a part is not lower-case hexadecimal of its exact length.
    pub fn new(id: &str, secret: &str, pin: &str) -> Result<Self, TokenError> {
        check_part("id", id, ID_DIGITS)?;
        check_part("secret", secret, SECRET_DIGITS)?;
        check_part("pin", pin, PIN_DIGITS)?;
        Ok(Self { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()), pin: pin.to_owned() })
    }

    /// Parses a token as it was printed; white space around it is ignored.
    ///
    /// # Errors
    /// When the text is not a whole token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError::Version);
        }
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(id), Some(secret), Some(pin), None) => Self::new(id, secret, pin),
            _ => Err(TokenError::Shape),
        }
    }

    /// Names the token; no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Proves possession. Never log it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Lower-case hex of the SHA-256 of the root's `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn pin(&self) -> &str {
        &self.pin
    }

    /// The whole token, to be shown to its owner once.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}.{}.{}.{}", self.id, self.secret.as_str(), self.pin))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.<secret>.{}", self.id, self.pin)
    }
}

fn check_part(part: &'static str, text: &str, digits: usize) -> Result<(), TokenError> {
    if hex::is_lower_hex(text, digits) { Ok(()) } else { Err(TokenError::Part { part, digits }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Token {
        Token::new(&"1".repeat(16), &"a".repeat(64), &"c".repeat(64)).unwrap()
    }

    #[test]
    fn tokens_round_trip() {
        let token = sample();
        assert_eq!(Token::parse(&token.to_text()), Ok(token.clone()));
        assert_eq!(Token::parse(&format!(" {}\n", token.to_text().as_str())), Ok(token));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert!(!format!("{:?}", sample()).contains("aaa"));
    }

    #[test]
    fn broken_tokens_are_refused() {
        let text = sample().to_text();
        for bad in [
            "",
            "wt1",
            "wt1.a.b.c",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{}.x", text.as_str()),
            &text.to_uppercase(),
            &text.replace("wt1", "wt2"),
            &text.replace('a', "g"),
        ] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
    }
}
