//! Lower-case hexadecimal, for serial numbers, key pins and token parts.

/// Two lower-case digits for each byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
    text
}

/// Two lower-case digits for each byte, parted by colons: how Consul and OpenSSL print identifiers.
#[must_use]
pub fn encode_with_colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| encode(&[*byte])).collect::<Vec<_>>().join(":")
}

/// Whether `text` is exactly `digits` long and made of lower-case digits only.
#[must_use]
pub fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_lower_case_and_keep_leading_zeroes() {
        assert_eq!(encode(&[0, 0x0a, 0xff]), "000aff");
        assert_eq!(encode_with_colons(&[0, 0x0a, 0xff]), "00:0a:ff");
        assert_eq!(encode_with_colons(&[]), "");
        assert!(is_lower_hex("00af", 4));
        for bad in ["00aF", "00a", "00ag", "00é"] {
            assert!(!is_lower_hex(bad, 4), "{bad}");
        }
    }
}
