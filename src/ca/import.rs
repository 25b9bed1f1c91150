//! Roots from outside: one's own with its key, or the hand-off to an external authority by a request.
//!
//! Each enters by a rotation like any other root. Errors never repeat what was given: it may be a key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::authority::Authority;
use super::issue::{ALLOWED_KEYS, authority_name, authority_usages, common_name, uri};
use super::limits::MAX_PEM_BYTES;
use super::root::{Keys, Root};
use super::{Ca, CaError, pem};

impl Ca {
    /// Begins to replace the active root by one whose key comes from outside. Without a certificate a
    /// root is made for the key. Returns the id of the new root, or that of the active root when it has
    /// this key already.
    ///
    /// # Errors
    /// [`CaError::Import`] when the two do not fit each other or this mesh, and as [`Self::rotate`].
    pub async fn import(
        &self,
        certificate: Option<&str>,
        key: &str,
        patience: Duration,
    ) -> Result<String, CaError> {
        let mut pair = key_pair(key)?;
        let root = match certificate {
            Some(text) => {
                let [certificate] = &certificates(text)?[..] else {
                    return Err(import("give exactly one certificate, that of the root"));
                };
                let key = Zeroizing::new(pair.serialize_der());
                Root::own(certificate.clone(), key, self.trust_domain()).map_err(CaError::Import)
            }
            None => Root::create_for(&pair, self.trust_domain(), SystemTime::now()),
        };
        pair.zeroize();
        let root = root?;
        let active = Arc::clone(self.0.state.load().authority.active());
        if active.pin() == root.pin() && (certificate.is_none() || active.id() == root.id()) {
            return Ok(active.id().to_owned());
        }
        self.rotate_to(root, patience).await
    }

    /// A request (PKCS#10, PEM) for an intermediate of this mesh, to be signed by an external authority.
    /// Its key stays in the store; asking again makes a new one, and the old request is void.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request(&self) -> Result<String, CaError> {
        let mut pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&authority_name("sec", self.trust_domain())?);
        params.subject_alt_names = vec![uri(&self.trust_domain().id())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = authority_usages();
        let request = params.serialize_request(&pair)?;
        let key = Arc::new(Zeroizing::new(pair.serialize_der()));
        pair.zeroize();
        self.change(|current| {
            Ok(Some(Authority { requested: Some(Arc::clone(&key)), ..current.changed() }))
        })
        .await?;
        Ok(pem::encode("CERTIFICATE REQUEST", request.der()))
    }

    /// Takes what an external authority has made of [`Self::request`]: the intermediate, and after it the
    /// certificate that signed it. A new intermediate below the active root counts at once; a new root
    /// enters by a rotation. Returns the id of the root.
    ///
    /// # Errors
    /// [`CaError::Import`] when they do not fit the request or each other, and as [`Self::rotate`].
    pub async fn install(&self, chain: &str, patience: Duration) -> Result<String, CaError> {
        let [intermediate, certificate] = &certificates(chain)?[..] else {
            return Err(import("give the intermediate and, after it, the certificate that signed it"));
        };
        let requested = self.0.state.load().authority.requested.clone();
        let key = requested.ok_or_else(|| import("nothing was requested; see `weft ca csr`"))?;
        let root = Root::external(
            certificate.clone(),
            intermediate.clone(),
            Zeroizing::new(key.to_vec()),
            self.trust_domain(),
        );
        let root = Arc::new(root.map_err(CaError::Import)?);
        self.change(|current| {
            let active = &current.members[current.active];
            let mut next = if active.root.id() != root.id() {
                current.prepare(Arc::clone(&root), patience, SystemTime::now())?
            } else if matches!(active.root.keys(), Keys::External(_)) {
                let mut next = current.changed();
                next.members[next.active].root = Arc::clone(&root);
                next
            } else {
                return Err(import("the key of this root is here already; nothing was to be signed"));
            };
            next.requested = None;
            Ok(Some(next))
        })
        .await?;
        tracing::info!(root = root.id(), "an intermediate of an external authority was installed");
        Ok(root.id().to_owned())
    }
}

fn import(why: &str) -> CaError {
    CaError::Import(why.to_owned())
}

fn certificates(text: &str) -> Result<Vec<Vec<u8>>, CaError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(CaError::Import(format!("it has more than {MAX_PEM_BYTES} bytes")));
    }
    let all = CertificateDer::pem_slice_iter(text.as_bytes());
    let all = all.map(|one| one.map(|der| der.to_vec())).collect::<Result<Vec<_>, _>>();
    all.map_err(|_| import("the certificates are not PEM"))
}

fn key_pair(text: &str) -> Result<KeyPair, CaError> {
    if text.len() > MAX_PEM_BYTES {
        return Err(CaError::Import(format!("the key has more than {MAX_PEM_BYTES} bytes")));
    }
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| import("there is no private key in PEM"))?;
    let pair = KeyPair::try_from(&der);
    let pair = pair.map_err(|_| import("the private key is of a kind that is not supported"))?;
    if !ALLOWED_KEYS.contains(&pair.algorithm()) {
        return Err(import("the private key must be ECDSA P-256, ECDSA P-384 or Ed25519"));
    }
    Ok(pair)
}
