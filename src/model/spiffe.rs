//! SPIFFE IDs and trust domains, parsed strictly.
//!
//! The rules are those of the SPIFFE-ID standard (sections 2.1–2.3): what is parsed here is compared
//! byte for byte afterwards, so anything with two spellings is refused rather than normalised. Only
//! the scheme and the trust domain may arrive in upper case; they are stored in lower case.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::ServiceName;

/// Longest SPIFFE ID that must be accepted, in bytes, scheme included (SPIFFE-ID 2.3).
pub const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain, in bytes (SPIFFE-ID 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// The only namespace Weft has, in Consul's path layout.
const NAMESPACE: &str = "default";

/// Why a text is not a SPIFFE ID or a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("the SPIFFE ID is {0} bytes long; at most {MAX_ID_BYTES} are allowed")]
    TooLong(usize),
    #[error("a SPIFFE ID must begin with `spiffe://`")]
    Scheme,
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    #[error("the trust domain is {0} bytes long; at most {MAX_TRUST_DOMAIN_BYTES} are allowed")]
    TrustDomainTooLong(usize),
    #[error("the trust domain contains {0:?}; only a-z, 0-9, `.`, `-` and `_` are allowed")]
    TrustDomainCharacter(char),
    #[error("a SPIFFE path contains {0:?}; only letters, digits, `.`, `-` and `_` are allowed")]
    PathCharacter(char),
    #[error("a SPIFFE path must not have empty, `.` or `..` segments, nor end with `/`")]
    PathSegment,
}

/// A trust domain such as `9f3c…​.consul`: lower case, at most 255 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// A SPIFFE ID: a trust domain and a path, which is empty for a signing authority.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    path_start: u16,
}

impl TrustDomain {
    /// Parses a trust domain; upper-case letters are lowered.
    ///
    /// # Errors
    /// When it is empty, too long or has a forbidden character.
    pub fn new(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::EmptyTrustDomain);
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(SpiffeError::TrustDomainTooLong(text.len()));
        }
        let lower = text.to_ascii_lowercase();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        match lower.chars().find(|c| !allowed(*c)) {
            Some(found) => Err(SpiffeError::TrustDomainCharacter(found)),
            None => Ok(Self(lower.into())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the domain's signing authority: `spiffe://<domain>`, without a path.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId::from_parts(self, "")
    }
}

impl SpiffeId {
    /// Parses `spiffe://<trust domain>[/<path>]`.
    ///
    /// # Errors
    /// When any rule of the standard is broken; see [`SpiffeError`].
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong(text.len()));
        }
        let scheme = text.get(..9).ok_or(SpiffeError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("spiffe://") {
            return Err(SpiffeError::Scheme);
        }
        let rest = &text[9..];
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let domain = TrustDomain::new(domain)?;
        check_path(path)?;
        Ok(Self::from_parts(&domain, path))
    }

    /// The identity of a service in Consul's layout:
    /// `spiffe://<domain>/ns/default/dc/<dc>/svc/<service>`, in lower case.
    ///
    /// # Errors
    /// When a name has a character that SPIFFE paths do not allow.
    pub fn for_service(
        domain: &TrustDomain,
        datacenter: &str,
        service: &ServiceName,
    ) -> Result<Self, SpiffeError> {
        let datacenter = datacenter.to_ascii_lowercase();
        let path = format!("/ns/{NAMESPACE}/dc/{datacenter}/svc/{}", service.to_lowercase());
        Self::with_path(domain, &path)
    }

    /// The identity of a control plane server: `spiffe://<domain>/agent/server/dc/<dc>/id/<id>`.
    ///
    /// # Errors
    /// When a name has a character that SPIFFE paths do not allow.
    pub fn for_server(domain: &TrustDomain, datacenter: &str, id: &str) -> Result<Self, SpiffeError> {
        let datacenter = datacenter.to_ascii_lowercase();
        Self::with_path(domain, &format!("/agent/server/dc/{datacenter}/id/{id}"))
    }

    fn with_path(domain: &TrustDomain, path: &str) -> Result<Self, SpiffeError> {
        check_path(path)?;
        let id = Self::from_parts(domain, path);
        if id.text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong(id.text.len()));
        }
        Ok(id)
    }

    #[allow(clippy::cast_possible_truncation, reason = "a trust domain has at most 255 bytes")]
    fn from_parts(domain: &TrustDomain, path: &str) -> Self {
        let text = format!("spiffe://{}{path}", domain.as_str());
        let path_start = (9 + domain.as_str().len()) as u16;
        Self { text: text.into(), path_start }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path with its leading `/`; empty for a signing authority.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path_start)..]
    }

    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.text[9..usize::from(self.path_start)].into())
    }

    /// Whether this ID belongs to `domain`; allocates nothing.
    #[must_use]
    pub fn is_member_of(&self, domain: &TrustDomain) -> bool {
        &self.text[9..usize::from(self.path_start)] == domain.as_str()
    }

    /// The datacenter and service, when this is a service identity in Consul's layout.
    #[must_use]
    pub fn service(&self) -> Option<(&str, ServiceName)> {
        let mut parts = self.path().strip_prefix('/')?.split('/');
        let fixed = (parts.next()?, parts.next()?, parts.next()?);
        let (datacenter, svc, name) = (parts.next()?, parts.next()?, parts.next()?);
        if fixed != ("ns", NAMESPACE, "dc") || svc != "svc" || parts.next().is_some() {
            return None;
        }
        Some((datacenter, ServiceName::new(name).ok()?))
    }

    /// Whether this is the identity of a control plane server.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.path().starts_with("/agent/server/dc/")
    }
}

/// `path` is empty, or `/` and non-empty segments.
fn check_path(path: &str) -> Result<(), SpiffeError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(()); // only the empty path has no leading slash
    };
    for segment in segments.split('/') {
        if matches!(segment, "" | "." | "..") {
            return Err(SpiffeError::PathSegment);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if let Some(found) = segment.chars().find(|c| !allowed(*c)) {
            return Err(SpiffeError::PathCharacter(found));
        }
    }
    Ok(())
}

macro_rules! text_conversions {
    ($type:ident, $parse:path) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = SpiffeError;
            fn from_str(text: &str) -> Result<Self, SpiffeError> {
                $parse(text)
            }
        }
        impl TryFrom<String> for $type {
            type Error = SpiffeError;
            fn try_from(text: String) -> Result<Self, SpiffeError> {
                $parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }
    };
}
text_conversions!(TrustDomain, TrustDomain::new);
text_conversions!(SpiffeId, SpiffeId::parse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ids_have_consuls_layout() {
        let domain = TrustDomain::new("1234.Consul").unwrap();
        let id = SpiffeId::for_service(&domain, "DC1", &ServiceName::new("Web").unwrap()).unwrap();
        assert_eq!(id.as_str(), "spiffe://1234.consul/ns/default/dc/dc1/svc/web");
        let (datacenter, service) = id.service().unwrap();
        assert_eq!((datacenter, service.as_str()), ("dc1", "web"));
        assert!(id.is_member_of(&domain));
        assert_eq!(SpiffeId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn two_spellings_never_pass() {
        for bad in [
            "",
            "spiffe:/",
            "http://a/b",
            "spiffe://",
            "spiffe:///a",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/%62",
            "spiffe://ä/b",
            "spiffe://a/b\0",
            "spiffe://a/b c",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?} was accepted");
        }
        let long = format!("spiffe://a/{}", "x".repeat(2048));
        assert!(matches!(SpiffeId::parse(&long), Err(SpiffeError::TooLong(_))));
        let domain = format!("spiffe://{}/x", "d".repeat(256));
        assert!(matches!(SpiffeId::parse(&domain), Err(SpiffeError::TrustDomainTooLong(256))));
    }

    #[test]
    fn case_matters_in_the_path_only() {
        let id = SpiffeId::parse("SPIFFE://Example.ORG/Web").unwrap();
        assert_eq!(id.as_str(), "spiffe://example.org/Web");
        assert_ne!(id, SpiffeId::parse("spiffe://example.org/web").unwrap());
    }

    #[test]
    fn only_exact_service_paths_are_services() {
        for path in
            ["", "/ns/other/dc/d/svc/a", "/ns/default/dc/d/svc/a/b", "/ns/default/dc/d/svc", "/svc/a"]
        {
            let id = SpiffeId::parse(&format!("spiffe://t{path}")).unwrap();
            assert!(id.service().is_none(), "{path}");
        }
    }
}
