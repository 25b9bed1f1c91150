//! The trust bundle as SPIFFE's document for other trust domains (SPIFFE Trust Domain and Bundle).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::Ca;
use crate::model::JwtKey;
use crate::model::jwt::coordinates;

/// How often readers are asked to look again.
const BUNDLE_REFRESH: Duration = Duration::from_secs(300);

impl Ca {
    /// The roots and the keys for tokens as one JWK set. Its sequence grows with every change of either.
    #[must_use]
    pub fn spiffe_bundle(&self) -> Value {
        let bundle = self.bundle().borrow().clone();
        let jwt = self.jwt_bundle().borrow().clone();
        let roots = bundle.roots.iter().filter_map(|root| root_jwk(root));
        let keys: Vec<Value> = roots.chain(jwt.keys.iter().map(JwtKey::jwk)).collect();
        json!({
            "keys": keys,
            // Both only grow, so that their sum does.
            "spiffe_sequence": bundle.version + jwt.version,
            "spiffe_refresh_hint": BUNDLE_REFRESH.as_secs(),
        })
    }
}

/// A root as a JWK; `None` for a key of a type that JWK has no words for.
fn root_jwk(der: &[u8]) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let key = certificate.public_key();
    let bytes = &*key.subject_public_key.data;
    let mut jwk = if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let curve = match () {
            () if curve == OID_EC_P256 => "P-256",
            () if curve == OID_NIST_EC_P384 => "P-384",
            () => return None,
        };
        let (x, y) = coordinates(bytes);
        json!({ "kty": "EC", "use": "x509-svid", "crv": curve, "x": x, "y": y })
    } else if key.algorithm.algorithm == OID_SIG_ED25519 {
        json!({ "kty": "OKP", "use": "x509-svid", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(bytes) })
    } else if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
        let number = |bytes: &[u8]| {
            let leading = bytes.iter().take_while(|byte| **byte == 0).count();
            URL_SAFE_NO_PAD.encode(&bytes[leading..])
        };
        json!({ "kty": "RSA", "use": "x509-svid", "n": number(rsa.modulus), "e": number(rsa.exponent) })
    } else {
        return None;
    };
    jwk["x5c"] = json!([STANDARD.encode(der)]);
    Some(jwk)
}
