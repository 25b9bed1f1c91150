//! Keys that sign JWT-SVIDs, as everybody may know them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::TrustDomain;

/// Bytes of a point on P-256 in uncompressed form: a 4, then both coordinates.
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;
const MAX_ID_BYTES: usize = 128;

/// A public key on P-256, for ES256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    id: String,
    point: [u8; POINT_BYTES],
}

/// The keys of a trust domain. None means that no token of it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtBundle {
    pub trust_domain: TrustDomain,
    /// Grows with every change.
    pub version: u64,
    pub keys: Vec<JwtKey>,
}

impl JwtKey {
    /// A key by its id and its point (SEC 1, uncompressed); `None` when one of them has not that form.
    #[must_use]
    pub fn new(id: &str, point: &[u8]) -> Option<Self> {
        let point: [u8; POINT_BYTES] = point.try_into().ok()?;
        let fits = point[0] == UNCOMPRESSED && !id.is_empty() && id.len() <= MAX_ID_BYTES;
        fits.then(|| Self { id: id.to_owned(), point })
    }

    /// The `kid` of tokens that it signed.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub const fn point(&self) -> &[u8; POINT_BYTES] {
        &self.point
    }

    /// As a JWK of a SPIFFE bundle.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let (x, y) = coordinates(&self.point);
        json!({ "kty": "EC", "use": "jwt-svid", "kid": self.id, "crv": "P-256", "x": x, "y": y })
    }
}

impl JwtBundle {
    /// As a JWK set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(JwtKey::jwk).collect();
        json!({ "keys": keys })
    }
}

/// Both coordinates of an uncompressed point, in base64url.
#[must_use]
pub fn coordinates(point: &[u8]) -> (String, String) {
    let both = point.get(1..).unwrap_or_default();
    let (x, y) = both.split_at(both.len() / 2);
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_form() {
        let mut point = [7; POINT_BYTES];
        assert!(JwtKey::new("k", &point).is_none(), "compressed or something else");
        point[0] = UNCOMPRESSED;
        let key = JwtKey::new("k", &point).unwrap();
        let jwk = key.jwk();
        assert_eq!((&jwk["kid"], &jwk["use"]), (&json!("k"), &json!("jwt-svid")));
        let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
        assert_eq!(x, [7; 32]);
        assert!(JwtKey::new("", &point).is_none());
        assert!(JwtKey::new(&"k".repeat(129), &point).is_none());
        assert!(JwtKey::new("k", &point[1..]).is_none());
    }
}
