//! Roots: what the store keeps of the certificate authority.
//!
//! One document under [`KEY`] holds the trust domain, a version and every root with its key, so that
//! one compare-and-set decides which server's first root counts and later changes are whole. The
//! store's file is readable by its owner only; no API ever returns a key.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::issue::{Validity, authority_name, authority_usages, common_name, params, random, uri};
use super::{CaError, RootInfo, pem};
use crate::model::{Bundle, TrustDomain, hex};
use crate::store::{Op, Outcome, Revision, Store, StoreError, Txn};

/// Where the document lies in the store.
pub(super) const KEY: &str = "ca/authority";
/// Lifetime of a root: 10 years, as in Consul.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Most roots a document may have: an old, an active and a prepared one, and some slack.
const MAX_ROOTS: usize = 8;
/// How often creating may lose a race before it is an error; losing once already means that a
/// document is there.
const CREATE_ATTEMPTS: usize = 4;

/// The trust domain and its roots, exactly one of them active.
pub(super) struct Authority {
    pub(super) domain: TrustDomain,
    /// Grows with every change of the document; also the version of the bundle.
    pub(super) version: u64,
    roots: Vec<Root>,
    active: usize,
}

/// A root certificate and its key.
pub(super) struct Root {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
    info: RootInfo,
    pin: String,
}

/// The authority in `store`, made first when there is none, and the revision at which it was read.
pub(super) async fn load_or_create(
    store: &dyn Store,
    now: SystemTime,
) -> Result<(Authority, Revision), CaError> {
    for _ in 0..CREATE_ATTEMPTS {
        let image = store.load(KEY).await?;
        if let Some(entry) = image.entries.iter().find(|entry| entry.key == KEY) {
            return Ok((Authority::decode(&entry.value)?, image.revision));
        }
        let value = Authority::create(now)?.encode()?;
        let txn = Txn {
            conditions: vec![(KEY.to_owned(), 0)],
            ops: vec![Op::Put { key: KEY.to_owned(), value }],
        };
        // Whether this server or another made it: what counts is what the store has now.
        if let Outcome::Committed(_) = store.commit(txn).await? {
            tracing::info!("made the first root certificate of this mesh");
        }
    }
    Err(damaged("it vanishes as soon as it is written"))
}

impl Authority {
    /// A new trust domain with its first root.
    pub(super) fn create(now: SystemTime) -> Result<Self, CaError> {
        let domain = TrustDomain::new(&format!("{}.consul", uuid_v4(random()?)))
            .map_err(|error| CaError::Signing(error.to_string()))?;
        let root = Root::create(&domain, now)?;
        Ok(Self { domain, version: 1, roots: vec![root], active: 0 })
    }

    /// The root that signs.
    pub(super) fn active(&self) -> &Root {
        // `active` is checked where an authority is made.
        &self.roots[self.active]
    }

    /// What peers are to trust.
    pub(super) fn bundle(&self) -> Bundle {
        Bundle {
            trust_domain: self.domain.clone(),
            version: self.version,
            roots: self.roots.iter().map(|root| Arc::from(root.certificate.as_slice())).collect(),
        }
    }

    pub(super) fn infos(&self) -> Vec<RootInfo> {
        self.roots.iter().map(|root| root.info.clone()).collect()
    }

    /// For the store; holds the keys.
    fn encode(&self) -> Result<Bytes, CaError> {
        let roots = self.roots.iter().enumerate().map(|(index, root)| RootDocument {
            certificate: STANDARD.encode(&root.certificate),
            key: STANDARD.encode(&*root.key),
            active: index == self.active,
        });
        let document = Document {
            trust_domain: self.domain.clone(),
            version: self.version,
            roots: roots.collect(),
        };
        let text = serde_json::to_vec(&document).map_err(|error| damaged(&error.to_string()))?;
        Ok(text.into())
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, CaError> {
        let document: Document =
            serde_json::from_slice(value).map_err(|error| damaged(&error.to_string()))?;
        let found = document.roots.len();
        if found > MAX_ROOTS {
            return Err(damaged(&format!("it has {found} roots; at most {MAX_ROOTS} are possible")));
        }
        let active = document.roots.iter().position(|root| root.active);
        if document.roots.iter().filter(|root| root.active).count() > 1 {
            return Err(damaged("more than one root is active"));
        }
        let active = active.ok_or_else(|| damaged("no root is active"))?;
        let domain = document.trust_domain;
        let roots = document.roots.iter().map(|root| Root::decode(root, &domain));
        let roots = roots.collect::<Result<_, _>>()?;
        Ok(Self { domain, version: document.version, roots, active })
    }
}

impl Root {
    fn create(domain: &TrustDomain, now: SystemTime) -> Result<Self, CaError> {
        let limit = now + ROOT_LIFETIME;
        let mut params = params(&Validity::new(now, ROOT_LIFETIME, limit)?)?;
        params.distinguished_name = common_name(&authority_name("pri", domain)?);
        params.subject_alt_names = vec![uri(&domain.id())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = authority_usages();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().to_vec();
        let pkcs8 = Zeroizing::new(key.serialize_der());
        Self::from_parts(certificate, pkcs8, domain, true).map_err(CaError::Signing)
    }

    fn decode(document: &RootDocument, domain: &TrustDomain) -> Result<Self, CaError> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| damaged(&error.to_string()));
        let certificate = bytes(&document.certificate)?;
        let key = Zeroizing::new(bytes(&document.key)?);
        Self::from_parts(certificate, key, domain, document.active).map_err(|detail| damaged(&detail))
    }

    /// Checks that the parts fit each other and reads what is needed later.
    fn from_parts(
        certificate: Vec<u8>,
        key: Zeroizing<Vec<u8>>,
        domain: &TrustDomain,
        active: bool,
    ) -> Result<Self, String> {
        let pair = KeyPair::try_from(key.as_slice()).map_err(|error| error.to_string())?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|error| error.to_string())?;
        let public_key = parsed.public_key().raw;
        if public_key != rcgen::PublicKeyData::subject_public_key_info(&pair) {
            return Err("the key of a root does not fit its certificate".to_owned());
        }
        if !names(&parsed, domain) {
            return Err(format!("a root is not of the trust domain {domain}"));
        }
        let (info, not_after) = describe(&certificate, &parsed, active)?;
        let pin = hex::encode(digest::digest(&digest::SHA256, public_key).as_ref());
        let issuer = Issuer::from_ca_cert_der(&certificate.as_slice().into(), pair)
            .map_err(|error| error.to_string())?;
        Ok(Self { certificate, key, issuer, not_after, info, pin })
    }

    pub(super) fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(super) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Lower-case hex of the SHA-256 of the root's `SubjectPublicKeyInfo`.
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    pub(super) fn pem(&self) -> &str {
        &self.info.pem
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("id", &self.info.id).finish_non_exhaustive()
    }
}

/// Whether the only name of a certificate is that of the trust domain.
fn names(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    match names.value.general_names[..] {
        [GeneralName::URI(uri)] => uri == domain.id().as_str(),
        _ => false,
    }
}

fn describe(
    der: &[u8],
    parsed: &X509Certificate<'_>,
    active: bool,
) -> Result<(RootInfo, SystemTime), String> {
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let not_after = time(parsed.validity().not_after.timestamp())?;
    let info = RootInfo {
        id: hex::encode_with_colons(sha1.as_ref()),
        name: name.unwrap_or_default().to_owned(),
        serial: hex::encode(parsed.raw_serial()),
        key_id: hex::encode_with_colons(key_id.unwrap_or_default()),
        not_before: time(parsed.validity().not_before.timestamp())?,
        not_after,
        pem: pem::encode("CERTIFICATE", der),
        active,
    };
    Ok((info, not_after))
}

fn time(seconds: i64) -> Result<SystemTime, String> {
    let seconds = u64::try_from(seconds).map_err(|_| "a root is dated before 1970".to_owned())?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// RFC 9562, version 4.
fn uuid_v4(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex::encode(&bytes);
    let part = |from: usize, to: usize| &digits[from..to];
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn damaged(detail: &str) -> CaError {
    StoreError::Damaged { key: KEY.to_owned(), detail: detail.to_owned() }.into()
}

#[derive(Serialize, Deserialize)]
struct Document {
    trust_domain: TrustDomain,
    version: u64,
    roots: Vec<RootDocument>,
}

/// Both in base64; the key is PKCS#8.
#[derive(Serialize, Deserialize)]
struct RootDocument {
    certificate: String,
    key: String,
    active: bool,
}

#[cfg(test)]
impl Authority {
    /// As a rotation begins: one more root, trusted but not yet signing.
    pub(super) fn with_prepared_root(mut self, now: SystemTime) -> Self {
        self.roots.push(Root::create(&self.domain, now).unwrap());
        self.version += 1;
        self
    }

    pub(super) fn to_stored(&self) -> Bytes {
        self.encode().unwrap()
    }
}
