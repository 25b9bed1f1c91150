//! PEM text (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Columns of base64 in a line (RFC 7468, section 2).
const COLUMNS: usize = 64;

/// `der` as a PEM block with this label, ending in a newline.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(COLUMNS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn another_parser_reads_it_back() {
        for length in [1, 47, 48, 49, 96, 500] {
            let der = vec![0xa5; length];
            let text = super::encode("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }
}
