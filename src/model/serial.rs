//! Serial numbers of leaves: which enrolment a leaf descends from, and how many renewals lie between.
//!
//! 20 bytes, as many as a certificate may have: 8 that name the enrolment, 4 that count its renewals,
//! 8 random ones. `ca` writes them; whoever sees a certificate can read them, so that an enrolment can
//! be banned by everybody without a further extension in the leaf. Other certificates of the mesh have
//! shorter numbers and descend from no enrolment.

use std::fmt;

use super::hex;

/// Hexadecimal digits of the parts.
const ENROLMENT_DIGITS: usize = 16;
const GENERATION_DIGITS: usize = 8;
const DIGITS: usize = 2 * Serial::BYTES;

/// The first certificate of a sidecar and all that renewed it. Named after the first one's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnrolmentId([u8; 8]);

impl EnrolmentId {
    /// Two bits are fixed, so that a serial number that begins with it is positive and as long as others.
    #[must_use]
    pub const fn new(mut bytes: [u8; 8]) -> Self {
        bytes[0] = (bytes[0] & 0x3f) | 0x40;
        Self(bytes)
    }

    /// Reads 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if !hex::is_lower_hex(text, ENROLMENT_DIGITS) {
            return None;
        }
        let number = u64::from_str_radix(text, 16).ok()?;
        let id = Self(number.to_be_bytes());
        (Self::new(id.0) == id).then_some(id)
    }
}

impl fmt::Display for EnrolmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for EnrolmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentId({self})")
    }
}

/// What the serial number of a leaf says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    pub enrolment: EnrolmentId,
    /// 1 for the first certificate, one more for each renewal; 0 for one that cannot be renewed.
    pub generation: u32,
}

impl Serial {
    pub const BYTES: usize = 20;

    /// The number itself, with random bytes of its own.
    #[must_use]
    pub fn to_bytes(self, random: [u8; 8]) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.enrolment.0);
        bytes[8..12].copy_from_slice(&self.generation.to_be_bytes());
        bytes[12..].copy_from_slice(&random);
        bytes
    }

    /// Reads a serial number in lower-case hex; `None` when it is of another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if !hex::is_lower_hex(text, DIGITS) {
            return None;
        }
        let (enrolment, rest) = text.split_at(ENROLMENT_DIGITS);
        let generation = u32::from_str_radix(rest.get(..GENERATION_DIGITS)?, 16).ok()?;
        Some(Self { enrolment: EnrolmentId::parse(enrolment)?, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_read_back() {
        for (bytes, generation) in [([0; 8], 0), ([0xff; 8], 1), ([7; 8], u32::MAX)] {
            let serial = Serial { enrolment: EnrolmentId::new(bytes), generation };
            let number = serial.to_bytes([0xab; 8]);
            assert!((0x40..0x80).contains(&number[0]), "positive, without a leading zero");
            assert_eq!(Serial::parse(&hex::encode(&number)), Some(serial));
            let name = serial.enrolment.to_string();
            assert_eq!(EnrolmentId::parse(&name), Some(serial.enrolment));
            assert!(hex::encode(&number).starts_with(&name));
        }
    }

    #[test]
    fn other_numbers_are_of_no_enrolment() {
        let good = "4102030405060708000000010a0b0c0d0e0f1011";
        assert!(Serial::parse(good).is_some());
        for bad in ["", "41", &good[2..], &good.to_uppercase(), &format!("81{}", &good[2..])] {
            assert_eq!(Serial::parse(bad), None, "{bad}");
        }
        for bad in ["", "0102030405060708", "410203040506070", "41020304050607GG"] {
            assert_eq!(EnrolmentId::parse(bad), None, "{bad}");
        }
    }
}
