//! Bans: certificates that count for nothing although they are genuine and have not expired.
//!
//! `catalog` keeps them, `tls` asks at every handshake, `proxy` and `control` ask again for what is open
//! when they change. Invariant: a certificate is banned as long as any of its three names is: its own
//! serial number, its identity, or the enrolment it descends from.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::hex;
use super::serial::{EnrolmentId, Serial};
use super::spiffe::{SpiffeError, SpiffeId};

/// Most digits of a serial number: a certificate may have 20 bytes.
const MAX_SERIAL_DIGITS: usize = 2 * Serial::BYTES;

/// Why a text names nothing that can be banned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    #[error("a serial number is 2 to {MAX_SERIAL_DIGITS} hexadecimal digits, an even number of them")]
    Serial,
    #[error("an enrolment is the first 16 hexadecimal digits of a leaf's serial number")]
    Enrolment,
    #[error("the identity is not a SPIFFE ID: {0}")]
    Identity(#[from] SpiffeError),
    #[error("{0} is not the identity of a service")]
    NotService(SpiffeId),
}

/// What is banned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Every certificate of a service.
    Identity(SpiffeId),
    /// A sidecar's first certificate and all that renewed it, in lower-case hex.
    Enrolment(String),
    /// One certificate, in lower-case hex.
    Serial(String),
}

impl Subject {
    /// Reads the identity of a service.
    ///
    /// # Errors
    /// When it is not one: without its servers a mesh cannot even lift a ban.
    pub fn identity(text: &str) -> Result<Self, BanError> {
        let id = SpiffeId::parse(text)?;
        if id.service().is_none() {
            return Err(BanError::NotService(id));
        }
        Ok(Self::Identity(id))
    }

    /// Reads a serial number as OpenSSL or a log line prints it.
    ///
    /// # Errors
    /// When it is not hexadecimal.
    pub fn serial(text: &str) -> Result<Self, BanError> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let count = digits.len();
        let fits = count > 0 && count.is_multiple_of(2) && count <= MAX_SERIAL_DIGITS;
        if fits && hex::is_lower_hex(&digits, count) {
            Ok(Self::Serial(digits))
        } else {
            Err(BanError::Serial)
        }
    }

    /// Reads the name of an enrolment.
    ///
    /// # Errors
    /// When it is not 16 digits that a leaf's serial number may begin with.
    pub fn enrolment(text: &str) -> Result<Self, BanError> {
        let id = EnrolmentId::parse(&text.to_ascii_lowercase()).ok_or(BanError::Enrolment)?;
        Ok(Self::Enrolment(id.to_string()))
    }

    /// Reads what [`Self::kind`] and [`Self::value`] say.
    ///
    /// # Errors
    /// `None` for a kind that this version does not know, an error for a value that is not of it.
    pub fn parse(kind: &str, value: &str) -> Option<Result<Self, BanError>> {
        match kind {
            "identity" => Some(Self::identity(value)),
            "enrolment" => Some(Self::enrolment(value)),
            "serial" => Some(Self::serial(value)),
            _ => None,
        }
    }

    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Enrolment(_) => "enrolment",
            Self::Serial(_) => "serial",
        }
    }

    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::Identity(id) => id.as_str(),
            Self::Enrolment(text) | Self::Serial(text) => text,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.value())
    }
}

/// A ban as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    pub subject: Subject,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
    pub created_ms: u64,
}

/// All bans, for looking up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bans(BTreeSet<Subject>);

impl Bans {
    pub fn insert(&mut self, subject: Subject) {
        self.0.insert(subject);
    }

    pub fn remove(&mut self, subject: &Subject) {
        self.0.remove(subject);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn has_identity(&self, id: &SpiffeId) -> bool {
        !self.0.is_empty() && self.0.contains(&Subject::Identity(id.clone()))
    }

    /// The ban that applies to a certificate with this identity and serial number (lower-case hex).
    #[must_use]
    pub fn find(&self, id: &SpiffeId, serial: &str) -> Option<&Subject> {
        if self.0.is_empty() {
            return None;
        }
        let enrolment = Serial::parse(serial).map(|serial| serial.enrolment.to_string());
        let names = [
            Some(Subject::Identity(id.clone())),
            enrolment.map(Subject::Enrolment),
            Some(Subject::Serial(serial.to_owned())),
        ];
        names.iter().flatten().find_map(|name| self.0.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "spiffe://t.consul/ns/default/dc/dc1/svc/web";
    const SERIAL: &str = "4102030405060708000000010a0b0c0d0e0f1011";

    #[test]
    fn any_of_the_three_names_is_enough() {
        let (web, db) =
            (SpiffeId::parse(WEB).unwrap(), SpiffeId::parse(&WEB.replace("web", "db")).unwrap());
        let subjects = [
            Subject::identity(WEB).unwrap(),
            Subject::enrolment("4102030405060708").unwrap(),
            Subject::serial(SERIAL).unwrap(),
        ];
        for subject in subjects {
            let mut bans = Bans::default();
            assert_eq!(bans.find(&web, SERIAL), None);
            bans.insert(subject.clone());
            assert_eq!(bans.find(&web, SERIAL), Some(&subject));
            assert_eq!(bans.has_identity(&web), matches!(subject, Subject::Identity(_)));
            // Another sidecar of another service.
            assert_eq!(bans.find(&db, "4902030405060708000000010a0b0c0d0e0f1011"), None, "{subject}");
            bans.remove(&subject);
            assert!(bans.is_empty() && bans.find(&web, SERIAL).is_none());
        }
        let mut bans = Bans::default();
        bans.insert(Subject::enrolment("4102030405060708").unwrap());
        assert!(bans.find(&db, SERIAL).is_some(), "whatever the identity");
        assert!(bans.find(&web, "41020304050607080000").is_none(), "of another form");
    }

    #[test]
    fn subjects_are_read_in_the_spellings_people_have() {
        let serial = Subject::serial("41:02:0A").unwrap();
        assert_eq!(serial, Subject::Serial("41020a".to_owned()));
        assert_eq!(Subject::enrolment("41020304050607FF").unwrap().value(), "41020304050607ff");
        for subject in [serial, Subject::identity(WEB).unwrap()] {
            assert_eq!(Subject::parse(subject.kind(), subject.value()), Some(Ok(subject)));
        }
        assert_eq!(Subject::parse("colour", "red"), None);
        for bad in ["", "4", "xy", "41 02", &"41".repeat(21)] {
            assert_eq!(Subject::serial(bad), Err(BanError::Serial), "{bad}");
        }
        for bad in ["", "0102030405060708", "410203040506070", SERIAL] {
            assert_eq!(Subject::enrolment(bad), Err(BanError::Enrolment), "{bad}");
        }
        let server = "spiffe://t.consul/agent/server/dc/dc1/id/s1";
        for bad in ["web", "spiffe://t.consul", server] {
            assert!(Subject::identity(bad).is_err(), "{bad}");
        }
    }
}
