//! Certificates of operators: who may use a port for people and tools, as an authority of theirs says.
//!
//! `files` puts the verifier into the settings of such a port. A workload of a mesh is never an operator,
//! not even where somebody takes the root of the mesh for that authority.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;

use super::leaf;
use super::reason::Rejection;
use super::verify::check_size;
use crate::model::hex;

/// Longest subject that is shown.
const MAX_SUBJECT_CHARS: usize = 128;

/// Verifies clients of a port of the operator.
#[derive(Debug)]
pub(super) struct OperatorVerifier {
    pub(super) roots: Vec<TrustAnchor<'static>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// Whether a client without a certificate is turned away.
    pub(super) mandatory: bool,
}

impl ClientCertVerifier for OperatorVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Empty: strangers need not learn who signs here.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        check_size(end_entity, intermediates)?;
        let chain = EndEntityCert::try_from(end_entity).and_then(|leaf| {
            let (usage, algorithms) = (KeyUsage::client_auth(), self.algorithms.all);
            leaf.verify_for_usage(algorithms, &self.roots, intermediates, now, usage, None, None)
                .map(drop)
        });
        chain.map_err(Rejection::from)?;
        check_operator(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn check_operator(der: &CertificateDer<'_>) -> Result<(), Rejection> {
    let certificate = leaf::parse(der)?;
    let usage = certificate.key_usage().map_err(|_| Rejection::Malformed)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature() || usage.value.key_cert_sign()) {
        return Err(Rejection::KeyUsage);
    }
    let names = certificate.subject_alternative_name().map_err(|_| Rejection::Malformed)?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) if is_spiffe(uri) => return Err(Rejection::Workload),
            GeneralName::Invalid(..) => return Err(Rejection::Malformed),
            _ => {}
        }
    }
    Ok(())
}

fn is_spiffe(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe"))
}

/// How logs name a certificate: its fingerprint (SHA-256), subject and serial number.
#[must_use]
pub fn certificate_name(der: &CertificateDer<'_>) -> String {
    let print = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref());
    let Ok(certificate) = leaf::parse(der) else { return print };
    let subject: String = certificate.subject().to_string().chars().take(MAX_SUBJECT_CHARS).collect();
    format!("{print} ({subject}; serial {})", hex::encode(certificate.raw_serial()))
}
