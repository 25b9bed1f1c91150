//! The one SPIFFE verifier: what both sides of every TLS connection of Weft check about the other.
//!
//! [`Trust::verify`] is the core, a function of the chain, the role, what is expected and the time. The
//! two structs after it adapt it to the traits of rustls and add nothing. Invariant: a handshake of
//! this crate completes only if that core said yes.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use super::TlsError;
use super::bans::BanList;
use super::leaf::{self, Facts};
use super::provider::SIGNATURES;
use super::reason::Rejection;
use crate::model::{Bundle, SpiffeId, TrustDomain, hex};

/// Most certificates in a chain: leaf, intermediate, a cross-signed one, the active and the oldest root.
pub(super) const MAX_CHAIN: usize = 5;
/// Most bytes in a chain; one with P-256 keys has about 600 a certificate.
pub(super) const MAX_CHAIN_BYTES: usize = 16 * 1024;
/// Most roots in a bundle; a mesh has two or three while it rotates.
const MAX_ROOTS: usize = 16;

/// On which side of the connection the holder of the certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

/// Who the peer must be, within the trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// This identity and no other.
    Exactly(SpiffeId),
    AnyService,
    AnyServer,
    AnyMember,
}

/// A trust domain and the keys that may sign in it.
#[derive(Debug)]
pub(super) struct Trust {
    domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
    bans: BanList,
}

impl Trust {
    pub(super) fn new(bundle: &Bundle, bans: &BanList) -> Result<Self, TlsError> {
        let (domain, roots) = (bundle.trust_domain.clone(), bundle.roots.len());
        if roots == 0 || roots > MAX_ROOTS {
            return Err(TlsError::Roots { domain, roots });
        }
        let anchors = bundle.roots.iter().enumerate().map(|(index, root)| {
            let der = CertificateDer::from(root.as_ref());
            match webpki::anchor_from_trusted_cert(&der) {
                Ok(anchor) => Ok(anchor.to_owned()),
                Err(error) => Err(TlsError::Root { index, detail: format!("{error:?}") }),
            }
        });
        let anchors = anchors.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { domain, anchors, bans: bans.clone() })
    }

    /// Trust in nothing but the root that signs now, which comes first in a bundle.
    pub(super) fn of_signing(bundle: &Bundle) -> Result<Self, TlsError> {
        let signing = Bundle { roots: bundle.roots.iter().take(1).cloned().collect(), ..bundle.clone() };
        Self::new(&signing, &BanList::default())
    }

    pub(super) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Verifies the chain of a peer that acts in `role`, leaf first.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        role: Role,
        expected: &Expected,
        now: UnixTime,
    ) -> Result<Facts, Rejection> {
        let facts = self.verify_chain(leaf, others, role, expected, now)?;
        self.bans.check(&facts)?;
        Ok(facts)
    }

    /// The same for our own certificate, which others may have banned: that is theirs to say.
    pub(super) fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        role: Role,
        expected: &Expected,
        now: UnixTime,
    ) -> Result<Facts, Rejection> {
        check_size(leaf, others)?;
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let end_entity = EndEntityCert::try_from(leaf)?;
        let path = end_entity.verify_for_usage(
            SIGNATURES.all,
            &self.anchors,
            others,
            now,
            usage,
            None,
            None,
        )?;
        for issuer in path.intermediate_certificates() {
            self.check_issuer(&issuer.der())?;
        }
        let facts = leaf::read(leaf, &[role])?;
        self.check_identity(&facts.id, expected)?;
        Ok(facts)
    }

    /// An issuer below a root names our trust domain: the root of an external authority may have others
    /// below it, and theirs must not sign for us.
    fn check_issuer(&self, der: &CertificateDer<'_>) -> Result<(), Rejection> {
        let id = leaf::spiffe_id(&leaf::parse(der)?).ok();
        match id.filter(|id| *id == self.domain.id()) {
            Some(_) => Ok(()),
            None => Err(Rejection::Issuer(self.domain.clone())),
        }
    }

    fn check_identity(&self, id: &SpiffeId, expected: &Expected) -> Result<(), Rejection> {
        if !id.is_member_of(&self.domain) {
            let domain = self.domain.clone();
            return Err(Rejection::ForeignDomain { id: id.clone(), domain });
        }
        // Paths are case-sensitive but service names are not: `…/svc/DB` must not pass for `db`.
        let upper = id.path().bytes().any(|byte| byte.is_ascii_uppercase());
        if upper && id.service().is_some() {
            return Err(Rejection::Spelling);
        }
        match expected {
            Expected::Exactly(expected) if id != expected => {
                Err(Rejection::Unexpected { found: id.clone(), expected: expected.clone() })
            }
            Expected::AnyService if id.service().is_none() => Err(Rejection::NotService(id.clone())),
            Expected::AnyServer if !id.is_server() => Err(Rejection::NotServer(id.clone())),
            _ => Ok(()),
        }
    }
}

pub(super) fn check_size(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
) -> Result<(), Rejection> {
    let certificates = 1 + others.len();
    let bytes = leaf.len() + others.iter().map(|other| other.len()).sum::<usize>();
    if certificates > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
        return Err(Rejection::ChainTooLarge { certificates, bytes });
    }
    Ok(())
}

/// Trust in the authority that a server itself presents, for a client that has nothing but a token.
///
/// With a pin, only one with exactly that key counts: a root, or the intermediate that an external
/// authority has signed. Without, the last certificate of the chain is taken at its word, which is for a
/// server in dev mode on loopback only.
fn presented_trust(
    others: &[CertificateDer<'_>],
    pin: Option<&str>,
    now: UnixTime,
) -> Result<Trust, Rejection> {
    let candidate = match pin {
        Some(pin) => others.iter().find(|der| key_hash(der).as_deref() == Some(pin)),
        None => others.last(),
    };
    let root = candidate.ok_or(if pin.is_some() { Rejection::Pin } else { Rejection::Root })?;
    let certificate = leaf::parse(root)?;
    leaf::check_validity(&certificate, now)?;
    // A root vouches for what it says by its own key. What an external authority has signed says nothing
    // to us, as anyone could wrap the pinned public key in a certificate with another name: then the
    // server's leaf vouches for the trust domain, being of it and signed by the pinned key.
    let is_root = certificate.subject().as_raw() == certificate.issuer().as_raw();
    let is_vouched = if is_root { certificate.verify_signature(None).is_ok() } else { pin.is_some() };
    let id = leaf::spiffe_id(&certificate)?;
    if !is_vouched || !leaf::may_issue(&certificate) || !id.path().is_empty() {
        return Err(Rejection::Root);
    }
    let anchor = webpki::anchor_from_trusted_cert(root)?.to_owned();
    // Whoever has no certificate has heard of no ban either.
    Ok(Trust { domain: id.trust_domain(), anchors: vec![anchor], bans: BanList::default() })
}

/// Lower-case hex of the SHA-256 of a certificate's `SubjectPublicKeyInfo`.
fn key_hash(der: &CertificateDer<'_>) -> Option<String> {
    let certificate = leaf::parse(der).ok()?;
    Some(hex::encode(digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref()))
}

/// Where a client finds its trust.
#[derive(Debug)]
pub(super) enum TrustSource {
    Bundle(Arc<Trust>),
    /// In the chain that the server presents; see [`presented_trust`].
    Presented {
        pin: Option<String>,
    },
}

/// Verifies servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) trust: TrustSource,
    pub(super) expected: Expected,
}

/// Verifies clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) trust: Arc<Trust>,
    pub(super) expected: Expected,
    /// Whether a client without a certificate is turned away.
    pub(super) mandatory: bool,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented;
        let trust = match &self.trust {
            TrustSource::Bundle(trust) => trust.as_ref(),
            TrustSource::Presented { pin } => {
                check_size(end_entity, intermediates)?; // before looking into it for the root
                presented = presented_trust(intermediates, pin.as_deref(), now)?;
                &presented
            }
        };
        trust.verify(end_entity, intermediates, Role::Server, &self.expected, now)?;
        Ok(ServerCertVerified::assertion())
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
        verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Empty: a client has one certificate, and strangers need not learn who signs here.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.trust.verify(end_entity, intermediates, Role::Client, &self.expected, now)?;
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
        verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// The time as rustls and webpki want it.
pub(super) fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
