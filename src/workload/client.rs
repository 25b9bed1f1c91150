//! A client of the Workload API: follows the X.509-SVID of the process that runs it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::pb::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::pb::spiffe::{X509svidRequest, X509svidResponse};

/// Time for the connection and for the first answer; the server takes a while when it has just started.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Certificates of a chain or a bundle.
const MAX_CERTIFICATES: usize = 64;

/// Why there is no SVID.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is not the address of a Workload API; use unix:///PATH or /PATH")]
    Address(String),
    #[error("no Workload API at {path}: {cause}", path = path.display())]
    Unreachable { path: PathBuf, cause: String },
    #[error("the Workload API gives this user nothing: {0}")]
    Refused(String),
    #[error("the Workload API cannot answer: {0}")]
    Unavailable(String),
    #[error("the answer of the Workload API is not usable: {0}")]
    Unusable(&'static str),
}

impl From<Status> for FetchError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented => {
                Self::Refused(message)
            }
            _ => Self::Unavailable(message),
        }
    }
}

impl FetchError {
    /// Whether waiting may help.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable(_))
    }
}

/// The default identity of an answer.
pub struct Fetched {
    pub id: String,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// DER.
    pub roots: Vec<Vec<u8>>,
}

/// An open stream of them.
pub struct Svids(Streaming<X509svidResponse>);

/// The path in an address such as `unix:///run/weft/workload.sock`.
///
/// # Errors
/// When it is of another kind, or not absolute.
pub fn socket_of(address: &str) -> Result<PathBuf, FetchError> {
    let refused = || FetchError::Address(address.to_owned());
    let path = match address.split_once(':') {
        Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((_, rest)) if rest.starts_with("//") => return Err(refused()),
        _ => address,
    };
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err(refused()) }
}

impl Svids {
    /// Connects to the socket of a Workload API and asks for the own SVID.
    ///
    /// # Errors
    /// When nobody answers there, or not with an SVID.
    pub async fn follow(path: PathBuf) -> Result<Self, FetchError> {
        let unreachable = |cause: String| FetchError::Unreachable { path: path.clone(), cause };
        let silent = || unreachable(format!("no answer within {ANSWER_LIMIT:?}"));
        // The channel would hide why it cannot connect.
        let stream = UnixStream::connect(&path).await.map_err(|error| unreachable(error.to_string()))?;
        let mut stream = Some(TokioIo::new(stream));
        let once = tower::service_fn(move |_| {
            let stream = stream.take();
            std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
        });
        let endpoint = Endpoint::from_static("http://workload");
        let channel = endpoint.connect_with_connector(once);
        let channel = timeout(ANSWER_LIMIT, channel).await.map_err(|_| silent())?;
        let channel = channel.map_err(|error| unreachable(error.to_string()))?;
        let answer = timeout(ANSWER_LIMIT, ask(channel)).await.map_err(|_| silent())?;
        Ok(Self(answer?))
    }

    /// The next SVID: the present one first.
    ///
    /// # Errors
    /// When the stream ends, as it does with the sidecar.
    pub async fn next(&mut self) -> Result<Fetched, FetchError> {
        let ended = || FetchError::Unavailable("the stream has ended".to_owned());
        let response = self.0.message().await?.ok_or_else(ended)?;
        let svid = response.svids.into_iter().next().ok_or(FetchError::Unusable("it has no SVID"))?;
        let key = Zeroizing::new(svid.x509_svid_key);
        let chain = certificates(&svid.x509_svid)?;
        let roots = certificates(&svid.bundle)?;
        Ok(Fetched { id: svid.spiffe_id, chain, key, roots })
    }
}

async fn ask(channel: Channel) -> Result<Streaming<X509svidResponse>, Status> {
    let mut request = Request::new(X509svidRequest {});
    request
        .metadata_mut()
        .insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    Ok(SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner())
}

/// Certificates that stand one after the other, at least one.
fn certificates(mut der: &[u8]) -> Result<Vec<Vec<u8>>, FetchError> {
    let unusable = || FetchError::Unusable("its certificates are malformed");
    let mut found = Vec::new();
    while !der.is_empty() && found.len() < MAX_CERTIFICATES {
        let (rest, _) = X509Certificate::from_der(der).map_err(|_| unusable())?;
        found.push(der.get(..der.len() - rest.len()).ok_or_else(unusable)?.to_vec());
        der = rest;
    }
    if found.is_empty() || !der.is_empty() { Err(unusable()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_standard_and_plain_paths() {
        for good in ["unix:///run/w.sock", "unix:/run/w.sock", "/run/w.sock"] {
            assert_eq!(socket_of(good).unwrap(), PathBuf::from("/run/w.sock"), "{good}");
        }
        for bad in ["", "w.sock", "unix:w.sock", "unix://w.sock", "tcp://127.0.0.1:80", "http:///x"] {
            assert!(matches!(socket_of(bad), Err(FetchError::Address(_))), "{bad}");
        }
    }

    #[test]
    fn malformed_certificates_are_no_certificates() {
        for bad in [&b""[..], b"junk", &[0x30, 0x82, 0xff, 0xff]] {
            assert!(certificates(bad).is_err(), "{bad:x?}");
        }
    }
}
