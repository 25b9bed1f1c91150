//! The roots of the trust domain.

use serde::Serialize;

use crate::api::Index;
use crate::ca::RootInfo;
use crate::model::time::{epoch_ms, rfc3339};

/// The answer of `connect/ca/roots`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::api) struct RootsJson<'a> {
    #[serde(rename = "ActiveRootID")]
    active_root_id: &'a str,
    trust_domain: &'a str,
    roots: Vec<RootJson<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootJson<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    serial_number: u64,
    #[serde(rename = "SigningKeyID")]
    signing_key_id: &'a str,
    external_trust_domain: &'a str,
    not_before: String,
    not_after: String,
    root_cert: &'a str,
    intermediate_certs: Option<Vec<&'a str>>,
    active: bool,
    private_key_type: &'static str,
    private_key_bits: u16,
    create_index: Index,
    modify_index: Index,
}

impl<'a> RootsJson<'a> {
    /// `version` is the authority's, the only index roots have.
    pub(in crate::api) fn new(trust_domain: &'a str, roots: &'a [RootInfo], version: Index) -> Self {
        let cluster = trust_domain.strip_suffix(".consul").unwrap_or(trust_domain);
        let shape = |root: &'a RootInfo| RootJson {
            id: &root.id,
            name: &root.name,
            serial_number: low_bits(&root.serial),
            signing_key_id: &root.key_id,
            external_trust_domain: cluster,
            not_before: rfc3339(epoch_ms(root.not_before)),
            not_after: rfc3339(epoch_ms(root.not_after)),
            root_cert: &root.pem,
            intermediate_certs: root.cross_pem.as_deref().map(|pem| vec![pem]),
            active: root.active,
            private_key_type: "ec",
            private_key_bits: 256,
            create_index: version,
            modify_index: version,
        };
        let active = roots.iter().find(|root| root.active);
        Self {
            active_root_id: active.map_or("", |root| &root.id),
            trust_domain,
            roots: roots.iter().map(shape).collect(),
        }
    }
}

/// The last 64 bits of a serial number in hex: Consul's clients keep it in such a number.
fn low_bits(serial: &str) -> u64 {
    let digits: Vec<u64> = serial.chars().filter_map(|c| c.to_digit(16).map(u64::from)).collect();
    digits.iter().fold(0, |number: u64, digit| (number << 4) | digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_fit_64_bits() {
        assert_eq!(low_bits("07"), 7);
        assert_eq!(low_bits("ffffffffffffffff0000000000000102"), 258);
        assert_eq!(low_bits(""), 0);
    }
}
