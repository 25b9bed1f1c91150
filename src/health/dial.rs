//! Connections for probes: resolve, refuse dangerous targets, connect, and TLS when asked for.
//!
//! Error texts follow Go's, because tools that read Consul's check outputs match on them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::net::socket;

/// Where Linux distributions keep the certificates of public authorities.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Addresses of one name that are tried; more than a dual-stack pair is rare.
const MAX_ADDRESSES: usize = 4;

/// The only metadata service with a fixed address outside the link-local ranges (AWS, IPv6).
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

/// A byte stream to a target, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("dial tcp: address {0}: missing port in address")]
    MissingPort(String),
    #[error("dial tcp: lookup {host}: {cause}")]
    Lookup { host: String, cause: String },
    #[error("dial tcp {0}: refused by policy: link-local and metadata addresses are not probed")]
    Forbidden(SocketAddr),
    #[error("dial tcp {address}: connect: {cause}")]
    Connect { address: SocketAddr, cause: String },
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(SocketAddr),
    #[error("tls: {0:?} is not a server name")]
    ServerName(String),
    #[error(
        "tls: no authorities in {SYSTEM_ROOTS}: {0}; install ca-certificates or set tls_skip_verify"
    )]
    NoRoots(String),
    #[error("tls: {0}")]
    Tls(io::Error),
}

/// How a probe speaks TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct TlsOptions {
    pub(super) skip_verify: bool,
    /// Empty offers none.
    pub(super) alpn: &'static [u8],
}

/// Makes connections; keeps the TLS settings that are costly to build.
pub(super) struct Dialer {
    provider: Arc<CryptoProvider>,
    trusting: Arc<ClientConfig>,
    verifying: OnceCell<Arc<ClientConfig>>,
}

impl Dialer {
    pub(super) fn new() -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(AcceptAny(Arc::clone(&provider)));
        let trusting = builder(&provider)
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Self { provider, trusting: Arc::new(trusting), verifying: OnceCell::new() }
    }

    /// Connects to `host:port`, trying the addresses of the name in turn.
    pub(super) async fn tcp(&self, target: &str, budget: Duration) -> Result<TcpStream, DialError> {
        let addresses = resolve(target).await?;
        let share = budget / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut first_error = None;
        for address in addresses {
            match connect(address, share).await {
                Ok(stream) => return Ok(stream),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        let host = target.to_owned();
        Err(first_error.unwrap_or(DialError::Lookup { host, cause: "no such host".to_owned() }))
    }

    /// Connects to `host:port` and, with `tls`, shakes hands for the name in it.
    pub(super) async fn stream(
        &self,
        target: &str,
        tls: Option<TlsOptions>,
        budget: Duration,
    ) -> Result<Box<dyn Stream>, DialError> {
        let stream = self.tcp(target, budget).await?;
        let Some(options) = tls else { return Ok(Box::new(stream)) };
        let name = server_name(target)?;
        let mut config = self.base_config(options.skip_verify).await?.as_ref().clone();
        if !options.alpn.is_empty() {
            config.alpn_protocols = vec![options.alpn.to_vec()];
        }
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        Ok(Box::new(handshake.await.map_err(DialError::Tls)?))
    }

    async fn base_config(&self, skip_verify: bool) -> Result<&Arc<ClientConfig>, DialError> {
        if skip_verify {
            return Ok(&self.trusting);
        }
        self.verifying
            .get_or_try_init(|| async {
                let roots = tokio::task::spawn_blocking(system_roots).await;
                let roots = roots.map_err(|error| DialError::NoRoots(error.to_string()))??;
                let config = builder(&self.provider).with_root_certificates(roots).with_no_client_auth();
                Ok(Arc::new(config))
            })
            .await
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
}

fn system_roots() -> Result<RootCertStore, DialError> {
    let certificates = CertificateDer::pem_file_iter(SYSTEM_ROOTS)
        .map_err(|error| DialError::NoRoots(error.to_string()))?
        .filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(DialError::NoRoots("no certificate in it can be read".to_owned()));
    }
    Ok(roots)
}

/// The addresses of `host:port` that may be probed.
pub(super) async fn resolve(target: &str) -> Result<Vec<SocketAddr>, DialError> {
    let (host, port) =
        target.rsplit_once(':').ok_or_else(|| DialError::MissingPort(target.to_owned()))?;
    if port.parse::<u16>().is_err() {
        return Err(DialError::MissingPort(target.to_owned()));
    }
    let found = lookup_host(target).await;
    let found =
        found.map_err(|error| DialError::Lookup { host: host.to_owned(), cause: error.to_string() })?;
    let (allowed, forbidden): (Vec<_>, Vec<_>) = found.partition(|address| !is_forbidden(address.ip()));
    match (allowed.is_empty(), forbidden.first()) {
        (true, Some(address)) => Err(DialError::Forbidden(*address)),
        _ => Ok(allowed.into_iter().take(MAX_ADDRESSES).collect()),
    }
}

/// Link-local ranges hold cloud metadata services, which must not be reachable by registering a check.
fn is_forbidden(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    }
}

async fn connect(address: SocketAddr, budget: Duration) -> Result<TcpStream, DialError> {
    socket::connect(address, budget).await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => DialError::Timeout(address),
        _ => DialError::Connect { address, cause: cause(&error) },
    })
}

/// Go's words for the usual causes.
pub(super) fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn server_name(target: &str) -> Result<ServerName<'static>, DialError> {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(bare.to_owned()).map_err(|_| DialError::ServerName(host.to_owned()))
}

/// For checks with `tls_skip_verify`: proves possession of the key and nothing else.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(5);

    #[test]
    fn metadata_addresses_are_forbidden_in_every_spelling() {
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert!(is_forbidden(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.1", "169.253.1.1", "::1", "fd00::1", "fec0::1"] {
            assert!(!is_forbidden(good.parse().unwrap()), "{good}");
        }
    }

    #[tokio::test]
    async fn bad_targets_are_explained() {
        let dialer = Dialer::new();
        for (target, expected) in [
            ("nohost", "dial tcp: address nohost: missing port in address"),
            ("host:http", "dial tcp: address host:http: missing port in address"),
            (
                "169.254.169.254:80",
                "dial tcp 169.254.169.254:80: refused by policy: link-local and metadata addresses are not probed",
            ),
            ("127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ] {
            let error = dialer.tcp(target, BUDGET).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn server_names_are_taken_from_the_target() {
        assert!(matches!(server_name("[::1]:443").unwrap(), ServerName::IpAddress(_)));
        assert!(matches!(server_name("example.test:443").unwrap(), ServerName::DnsName(_)));
        assert!(server_name("bad name:1").is_err());
    }
}
