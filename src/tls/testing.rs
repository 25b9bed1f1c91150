//! For tests only: a certificate authority that signs whatever it is told, and handshakes in memory.
//!
//! Other modules may use [`Forge::identity`] to have two proxies talk to each other without a control
//! plane.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName as Subject, ServerConfig,
    ServerConnection, SignatureScheme,
};

use super::{Identity, no_server_name};
use crate::model::{Bundle, ServiceName, SpiffeId, TrustDomain};

pub(crate) const DATACENTER: &str = "dc1";
const HOUR: Duration = Duration::from_secs(3600);
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

/// A chain (DER, leaf first) and its key.
pub(crate) struct Presented {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: KeyPair,
}

/// An authority with a root and an intermediate.
pub(crate) struct Forge {
    pub(crate) domain: TrustDomain,
    pub(crate) root: Signer,
    pub(crate) intermediate: Signer,
}

/// A certificate that signs others.
pub(crate) struct Signer {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

impl Forge {
    pub(crate) fn new(domain: &str) -> Self {
        let domain = TrustDomain::new(domain).unwrap();
        let root = Signer::root(authority(&domain, "root"));
        let params = authority(&domain, "intermediate");
        let intermediate = Signer::under(&root, params);
        Self { domain, root, intermediate }
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let roots = vec![Arc::from(self.root.der.as_slice())];
        Bundle { trust_domain: self.domain.clone(), version: 1, roots }
    }

    pub(crate) fn service_id(&self, service: &str) -> SpiffeId {
        SpiffeId::for_service(&self.domain, DATACENTER, &ServiceName::new(service).unwrap()).unwrap()
    }

    /// What a proper leaf for `service` says.
    pub(crate) fn params(&self, service: &str) -> CertificateParams {
        leaf_params(self.service_id(service).as_str())
    }

    /// A leaf with these parameters and a new P-256 key, signed by the intermediate.
    pub(crate) fn sign(&self, params: &CertificateParams) -> Presented {
        self.sign_key(params, KeyPair::generate().unwrap())
    }

    pub(crate) fn sign_key(&self, params: &CertificateParams, key: KeyPair) -> Presented {
        let leaf = params.signed_by(&key, &self.intermediate.issuer).unwrap().der().to_vec();
        Presented { chain: vec![leaf, self.intermediate.der.clone()], key }
    }

    /// What a proper leaf for a server says.
    pub(crate) fn server_params(&self) -> CertificateParams {
        let id = SpiffeId::for_server(&self.domain, DATACENTER, "server-1").unwrap();
        leaf_params(id.as_str())
    }

    /// A server's leaf with the root in its chain.
    pub(crate) fn server(&self) -> Presented {
        let mut presented = self.sign(&self.server_params());
        presented.chain.push(self.root.der.clone());
        presented
    }

    /// A proxy's identity as the control plane would give it.
    pub(crate) fn identity(&self, service: &str) -> Identity {
        self.sign(&self.params(service)).identity(&self.bundle(), SystemTime::now()).unwrap()
    }
}

impl Signer {
    pub(crate) fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn under(above: &Self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &above.issuer).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }
}

impl Presented {
    pub(crate) fn identity(self, bundle: &Bundle, now: SystemTime) -> Result<Identity, super::TlsError> {
        Identity::new(1, self.chain, self.key.serialized_der(), bundle, now)
    }

    /// A server that presents this and accepts any client, with or without a certificate.
    pub(crate) fn careless_server(&self) -> Arc<ServerConfig> {
        self.careless_server_by(default_provider())
    }

    pub(crate) fn careless_server_by(&self, provider: CryptoProvider) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(Careless))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified())));
        Arc::new(config)
    }

    /// A client that presents this, accepts any server, and would like to resume sessions.
    pub(crate) fn careless_client(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Careless))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified())));
        Arc::new(config)
    }

    fn certified(&self) -> CertifiedKey {
        let chain = self.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        CertifiedKey::new(chain, default_provider().key_provider.load_private_key(key).unwrap())
    }
}

/// A client that accepts any server and has no certificate.
pub(crate) fn nameless_client() -> Arc<ClientConfig> {
    nameless_client_by(default_provider())
}

pub(crate) fn nameless_client_by(provider: CryptoProvider) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless))
        .with_no_client_auth();
    Arc::new(config)
}

/// An authority's parameters: named after the trust domain, valid for ten hours, path length 0 unless it
/// is a root.
pub(crate) fn authority(domain: &TrustDomain, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{name} of {domain}"));
    let constraints = match name {
        "root" => BasicConstraints::Unconstrained,
        _ => BasicConstraints::Constrained(0),
    };
    params.subject_alt_names = vec![uri(domain.id().as_str())];
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    valid(params, SystemTime::now() - HOUR, 10 * HOUR)
}

/// A workload's parameters with this URI name, valid from an hour ago for two hours.
pub(crate) fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid(params, SystemTime::now() - HOUR, 2 * HOUR)
}

pub(crate) fn valid(
    mut params: CertificateParams,
    from: SystemTime,
    long: Duration,
) -> CertificateParams {
    params.not_before = from.into();
    params.not_after = (from + long).into();
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Names that rcgen would not write: context tag and raw bytes of each.
pub(crate) fn raw_names(names: &[(u8, &[u8])]) -> CustomExtension {
    let mut body = Vec::new();
    for (tag, bytes) in names {
        body.push(0x80 | tag);
        body.push(u8::try_from(bytes.len()).ok().filter(|length| *length < 0x80).expect("a short name"));
        body.extend_from_slice(bytes);
    }
    let mut content =
        vec![0x30, u8::try_from(body.len()).ok().filter(|l| *l < 0x80).expect("few names")];
    content.append(&mut body);
    let mut extension = CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, content);
    extension.set_criticality(true);
    extension
}

/// Two ends after as much of a handshake as they would do.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    /// What made an end give up, if it did.
    pub(crate) client_error: Option<rustls::Error>,
    pub(crate) server_error: Option<rustls::Error>,
}

impl Pair {
    pub(crate) fn completed(&self) -> bool {
        let done = !self.client.is_handshaking() && !self.server.is_handshaking();
        done && self.client_error.is_none() && self.server_error.is_none()
    }
}

/// Lets both ends talk until neither has anything left to say.
pub(crate) fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Pair {
    let client = ClientConnection::new(Arc::clone(client), no_server_name()).unwrap();
    let server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut pair = Pair { client, server, client_error: None, server_error: None };
    loop {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while pair.client.wants_write() {
            pair.client.write_tls(&mut up).unwrap();
        }
        deliver(&up, &mut pair.server, &mut pair.server_error);
        while pair.server.wants_write() {
            pair.server.write_tls(&mut down).unwrap();
        }
        deliver(&down, &mut pair.client, &mut pair.client_error);
        if up.is_empty() && down.is_empty() {
            return pair;
        }
    }
}

fn deliver<Data>(
    mut bytes: &[u8],
    end: &mut rustls::ConnectionCommon<Data>,
    error: &mut Option<rustls::Error>,
) {
    while !bytes.is_empty() && error.is_none() {
        end.read_tls(&mut bytes).unwrap();
        *error = end.process_new_packets().err();
    }
}

/// Accepts every certificate, as no code outside tests may.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Careless {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[Subject] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
