//! AES-GCM from the library that is faster on this processor. Only [`super::provider`] asks.
//!
//! All cryptography is AWS-LC's but for this. It has code for AVX-512 and for the narrow AES instructions,
//! and none for the wide ones without AVX-512, which AMD's Zen 3 and most desktop processors of Intel have
//! (its issue 2283). ring has, and takes a quarter less CPU for a bulk stream there (docs/performance.md).
//! A record is the same, whoever made it. To be removed once AWS-LC has that code.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs;
#[cfg(target_arch = "x86_64")]
use rustls::crypto::ring;

/// The two suites with AES-GCM, the preferred one first: AES-128 is the faster, and as strong as the P-256
/// certificates around it.
#[cfg(target_arch = "x86_64")]
pub(super) fn suites() -> [SupportedCipherSuite; 2] {
    use std::arch::is_x86_feature_detected as has;
    let wide = has!("avx2") && has!("vaes") && has!("vpclmulqdq");
    let wider = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    if wide && !wider { RING } else { AWS_LC }
}

/// See above; elsewhere AWS-LC is never the slower.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn suites() -> [SupportedCipherSuite; 2] {
    AWS_LC
}

const AWS_LC: [SupportedCipherSuite; 2] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
];

#[cfg(target_arch = "x86_64")]
const RING: [SupportedCipherSuite; 2] =
    [ring::cipher_suite::TLS13_AES_128_GCM_SHA256, ring::cipher_suite::TLS13_AES_256_GCM_SHA384];

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::io::{Read, Write};

    use rustls::crypto::CryptoProvider;

    use super::super::testing::{Forge, Pair, handshake, nameless_client_by};
    use super::*;

    fn pair(client: SupportedCipherSuite, server: SupportedCipherSuite) -> Pair {
        let with =
            |suite| CryptoProvider { cipher_suites: vec![suite], ..aws_lc_rs::default_provider() };
        let server = Forge::new("mesh.example").server().careless_server_by(with(server));
        let pair = handshake(&nameless_client_by(with(client)), &server);
        assert!(pair.completed(), "{:?} {:?}", pair.client_error, pair.server_error);
        pair
    }

    #[test]
    fn either_library_reads_what_the_other_wrote() {
        for [client, server] in
            (0..2).flat_map(|n| [[AWS_LC[n], RING[n]], [RING[n], AWS_LC[n]], [RING[n], RING[n]]])
        {
            let mut pair = pair(client, server);
            for length in [1, 15, 16, 17, 255, 256, 1350, 16_383, 16_384] {
                let text: Vec<u8> = (0..=250).cycle().take(length).collect();
                let (mut wire, mut read) = (Vec::new(), vec![0; length]);
                pair.client.writer().write_all(&text).unwrap();
                while pair.client.wants_write() {
                    pair.client.write_tls(&mut wire).unwrap();
                }
                let mut rest = wire.as_slice();
                while !rest.is_empty() {
                    pair.server.read_tls(&mut rest).unwrap();
                    pair.server.process_new_packets().unwrap();
                }
                pair.server.reader().read_exact(&mut read).unwrap();
                assert!(read == text, "{length} bytes by {:?}", client.suite());
            }
        }
    }

    #[test]
    fn neither_takes_a_record_that_was_changed() {
        for (client, server) in AWS_LC.into_iter().zip(RING).chain(RING.into_iter().zip(AWS_LC)) {
            for at in [5, 300, 1_500] {
                let mut pair = pair(client, server);
                let mut wire = Vec::new();
                pair.client.writer().write_all(&[7; 1_500]).unwrap();
                pair.client.write_tls(&mut wire).unwrap();
                wire[at] ^= 1;
                pair.server.read_tls(&mut wire.as_slice()).unwrap();
                let verdict = pair.server.process_new_packets();
                assert_eq!(verdict.err(), Some(rustls::Error::DecryptError), "byte {at}");
            }
        }
    }
}
