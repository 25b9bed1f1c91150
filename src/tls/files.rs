//! TLS from PEM files of the operator: certificates of names and addresses, not of the mesh.
//!
//! `app` uses it for the HTTPS port and the one for etcd clients, `cli` to call the first. The same protocol as everywhere (TLS 1.3, no
//! tickets), but the operator's authority decides who is who, so certificates with RSA keys are taken.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::ALPN_HTTP1;
use super::operators::OperatorVerifier;
use super::provider::{VERSIONS, provider};
use super::settings::FITS;

/// Largest PEM file that is read; the authorities of a whole system have about 220 KiB.
const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// Who else may use a key file: others not at all, its group may read it.
const FOREIGN: u32 = 0o037;

/// What is wrong with which file.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used for TLS: {why}", path = path.display())]
pub struct FileError {
    path: PathBuf,
    why: String,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM; for its owner alone.
    pub key: PathBuf,
}

/// What a server does about certificates of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthority {
    None,
    /// Clients may show a certificate of these authorities.
    Optional(PathBuf),
    /// Clients must.
    Required(PathBuf),
}

/// Settings of a server that speaks `protocol`, an ALPN name.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn server_config(
    keys: &KeyFiles,
    clients: &ClientAuthority,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, FileError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&OPERATORS));
    let builder = builder.with_protocol_versions(&VERSIONS).expect(FITS);
    let builder = match clients {
        ClientAuthority::None => builder.with_no_client_auth(),
        ClientAuthority::Optional(path) | ClientAuthority::Required(path) => {
            let RootCertStore { roots } = authorities(std::slice::from_ref(path))?;
            let algorithms = OPERATORS.signature_verification_algorithms;
            let mandatory = matches!(clients, ClientAuthority::Required(_));
            builder.with_client_cert_verifier(Arc::new(OperatorVerifier {
                roots,
                algorithms,
                mandatory,
            }))
        }
    };
    let (chain, key) = identity(keys)?;
    let mut config =
        builder.with_single_cert(chain, key).map_err(|fault| at(&keys.certificate, fault))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// Settings of a client that believes these authorities (files, or directories of them), for HTTP/1.1.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn client_config(
    authorities_at: &[PathBuf],
    keys: Option<&KeyFiles>,
) -> Result<Arc<ClientConfig>, FileError> {
    let roots = Arc::new(authorities(authorities_at)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&OPERATORS)).build();
    let first = authorities_at.first().map_or(Path::new(""), PathBuf::as_path);
    let verifier = verifier.map_err(|fault| at(first, fault))?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&OPERATORS));
    let builder = builder.with_protocol_versions(&VERSIONS).expect(FITS).with_webpki_verifier(verifier);
    let mut config = match keys {
        None => builder.with_no_client_auth(),
        Some(keys) => {
            let (chain, key) = identity(keys)?;
            builder.with_client_auth_cert(chain, key).map_err(|fault| at(&keys.certificate, fault))?
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// That of the mesh, with every signature that public authorities use.
static OPERATORS: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        signature_verification_algorithms: default_provider().signature_verification_algorithms,
        ..CryptoProvider::clone(&provider())
    })
});

fn authorities(places: &[PathBuf]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for place in places {
        for file in files_of(place)? {
            let found = certificates(&file)?;
            let (added, ignored) = roots.add_parsable_certificates(found);
            if added == 0 {
                return Err(at(&file, format!("none of its {ignored} certificates is an authority")));
            }
        }
    }
    Ok(roots)
}

/// The file itself, or all files in a directory.
fn files_of(place: &Path) -> Result<Vec<PathBuf>, FileError> {
    if !place.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let entries = std::fs::read_dir(place).map_err(|fault| at(place, fault))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(|fault| at(place, fault))?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

fn identity(
    keys: &KeyFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), FileError> {
    let chain = certificates(&keys.certificate)?;
    let text = read(&keys.key, FOREIGN)?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| at(&keys.key, "it holds no private key in PEM that is not encrypted"))?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path, 0)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|fault| at(path, fault))?;
    if found.is_empty() { Err(at(path, "it holds no certificate in PEM")) } else { Ok(found) }
}

/// Reads a file that others may not use in these ways.
fn read(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        if mode & forbidden != 0 {
            let mode = mode & 0o777;
            return Err(io::Error::other(format!(
                "others may use it (mode {mode:04o}); chmod it to 0600"
            )));
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|fault| at(path, fault))
}

fn at(path: &Path, why: impl ToString) -> FileError {
    FileError { path: path.to_owned(), why: why.to_string() }
}
