//! API tokens as values: their text, their record, who is right.
//!
//! A token is `wa1.<accessor>.<secret>`: the accessor names it in logs and listings, the secret proves
//! possession. Pure; `authority` moves records in and out of the store.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, digest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AccessError;
use super::limits::{MAX_DESCRIPTION_BYTES, MAX_TTL, MIN_TTL};
use super::scope::Scopes;
use crate::model::hex;

/// What every API token begins with, so that scanners for secrets find it.
const PREFIX: &str = "wa1";
const ACCESSOR_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;

/// Whom a credential names, and what proves it.
pub(super) struct Credential<'a> {
    pub(super) accessor: &'a str,
    pub(super) secret: &'a str,
}

impl<'a> Credential<'a> {
    /// `None` when the text is no token of ours.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('.');
        if parts.next() != Some(PREFIX) {
            return None;
        }
        let (accessor, secret) = (parts.next()?, parts.next()?);
        let fits = |part: &str, digits| part.len() == digits && part.bytes().all(is_hex);
        let whole = fits(accessor, ACCESSOR_DIGITS) && fits(secret, SECRET_DIGITS);
        (whole && parts.next().is_none()).then_some(Self { accessor, secret })
    }
}

/// Whether a text has the form of an accessor.
#[must_use]
pub(super) fn is_accessor(text: &str) -> bool {
    text.len() == ACCESSOR_DIGITS && text.bytes().all(is_hex)
}

const fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// What somebody wants a token for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub description: String,
    pub scopes: Scopes,
    /// `None` lives until it is revoked.
    pub ttl: Option<Duration>,
}

impl Wish {
    /// Checks a wish against the limits, and against what its author has: nobody gives more.
    pub(super) fn check(&self, author: Scopes) -> Result<(), AccessError> {
        let fault = |text: String| Err(AccessError::Wish(text));
        if self.scopes.is_empty() {
            return fault("a token needs at least one scope".to_owned());
        }
        if self.description.len() > MAX_DESCRIPTION_BYTES
            || self.description.chars().any(char::is_control)
        {
            return fault(format!(
                "a description has at most {MAX_DESCRIPTION_BYTES} bytes and no control characters"
            ));
        }
        if self.ttl.is_some_and(|ttl| ttl < MIN_TTL || ttl > MAX_TTL) {
            return fault(format!(
                "a token lives at least {} s and at most {} days",
                MIN_TTL.as_secs(),
                MAX_TTL.as_secs() / 86_400
            ));
        }
        let lacking = self.scopes.without(author);
        if lacking.is_empty() { Ok(()) } else { Err(AccessError::Exceeds(lacking)) }
    }
}

/// A token as it is stored, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Lower-case hex.
    secret_sha256: String,
    pub(super) scopes: Scopes,
    description: String,
    /// Seconds since the Unix epoch.
    created: u64,
    /// The actor that made it.
    author: String,
    /// Seconds since the Unix epoch.
    expires: Option<u64>,
}

impl Record {
    pub(super) fn new(secret: &str, wish: Wish, author: String, now: SystemTime) -> Self {
        let created = seconds(now);
        Self {
            secret_sha256: hash(secret),
            scopes: wish.scopes,
            description: wish.description,
            created,
            author,
            expires: wish.ttl.map(|ttl| created + ttl.as_secs()),
        }
    }

    /// Whether the secret is right and its time not over.
    pub(super) fn admits(&self, secret: &str, now: SystemTime) -> bool {
        let right = same(&hash(secret), &self.secret_sha256);
        right && !self.is_over(now)
    }

    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| seconds(now) >= expires)
    }

    pub(super) fn info(self, accessor: &str) -> TokenInfo {
        let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        TokenInfo {
            accessor: accessor.to_owned(),
            description: self.description,
            scopes: self.scopes,
            author: self.author,
            created: time(self.created),
            expires: self.expires.map(time),
        }
    }
}

/// A public view of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub accessor: String,
    pub description: String,
    pub scopes: Scopes,
    /// The actor that made it.
    pub author: String,
    pub created: SystemTime,
    pub expires: Option<SystemTime>,
}

/// A new token, with the secret that is shown this once.
pub struct NewToken {
    pub info: TokenInfo,
    pub text: Zeroizing<String>,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A fresh accessor and secret.
pub(super) fn fresh() -> Result<(String, Zeroizing<String>), AccessError> {
    let mut bytes = Zeroizing::new([0; (ACCESSOR_DIGITS + SECRET_DIGITS) / 2]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| AccessError::NoRandom)?;
    let (accessor, secret) = bytes.split_at(ACCESSOR_DIGITS / 2);
    Ok((hex::encode(accessor), Zeroizing::new(hex::encode(secret))))
}

/// The whole token, as it is handed over.
pub(super) fn text(accessor: &str, secret: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{PREFIX}.{accessor}.{secret}"))
}

/// Lower-case hex of the SHA-256.
pub(super) fn hash(secret: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref())
}

/// Compares hashes in a time that tells nothing of where they differ.
pub(super) fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wish(scopes: &[&str], ttl: Option<u64>) -> Wish {
        Wish {
            description: "ci".to_owned(),
            scopes: Scopes::parse(scopes.iter().copied()).unwrap(),
            ttl: ttl.map(Duration::from_secs),
        }
    }

    #[test]
    fn credentials_by_table() {
        let (accessor, secret) = ("a".repeat(16), "0".repeat(64));
        let good = format!("wa1.{accessor}.{secret}");
        assert!(Credential::parse(&good).is_some());
        for bad in [
            String::new(),
            "wa1".to_owned(),
            format!("wt1.{accessor}.{secret}"),
            format!("wa1.{accessor}"),
            format!("{good}.x"),
            format!("wa1.{}.{secret}", "A".repeat(16)),
            format!("wa1.{}.{secret}", "a".repeat(15)),
            format!("wa1.../{secret}"),
        ] {
            assert!(Credential::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_record_admits_by_table() {
        let forever = Record::new("right", wish(&["kv:read"], None), "x".into(), at(100));
        let short = Record::new("right", wish(&["kv:read"], Some(60)), "x".into(), at(100));
        for (record, secret, now, admitted) in [
            (&forever, "right", 100, true),
            (&forever, "right", 4_000_000_000, true),
            (&forever, "wrong", 100, false),
            (&forever, "", 100, false),
            (&short, "right", 159, true),
            (&short, "right", 160, false),
            (&short, "wrong", 100, false),
        ] {
            assert_eq!(record.admits(secret, at(now)), admitted, "{secret} {now}");
        }
        assert!(!serde_json::to_string(&forever).unwrap().contains("right"));
    }

    #[test]
    fn wishes_by_table() {
        let some = Scopes::parse(["kv:*", "operator:write"]).unwrap();
        for (wish, author, good) in [
            (wish(&["kv:read"], None), some, true),
            (wish(&["kv:write"], Some(60)), some, true),
            (wish(&["service:read"], None), some, false),
            (wish(&["*"], None), some, false),
            (wish(&["*"], None), Scopes::all(), true),
            (wish(&[], None), Scopes::all(), false),
            (wish(&["kv:read"], Some(59)), Scopes::all(), false),
            (wish(&["kv:read"], Some(u64::MAX / 2)), Scopes::all(), false),
            (Wish { description: "a\nb".into(), ..wish(&["kv:read"], None) }, some, false),
            (Wish { description: "x".repeat(257), ..wish(&["kv:read"], None) }, some, false),
        ] {
            assert_eq!(wish.check(author).is_ok(), good, "{wish:?}");
        }
    }
}
