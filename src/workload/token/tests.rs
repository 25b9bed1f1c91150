//! Tokens that hold, and every way in which one does not.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::model::{JwtKey, TrustDomain};

const WEB: &str = "spiffe://mesh/ns/default/dc/dc1/svc/web";

/// Somebody who signs.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn keys(&self) -> JwtBundle {
        let key = JwtKey::new("k1", self.0.public_key().as_ref()).unwrap();
        JwtBundle { trust_domain: TrustDomain::new("mesh").unwrap(), version: 1, keys: vec![key] }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" })
}

fn claims() -> Value {
    json!({ "sub": WEB, "aud": ["api", "other"], "exp": 1_000_300, "iat": 1_000_000, "extra": [1] })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

#[test]
fn a_good_token_holds_for_each_of_its_audiences() {
    let signer = Signer::new();
    let token = signer.sign(&header(), &claims());
    for audience in ["api", "other"] {
        let valid = validate(&token, audience, &signer.keys(), now()).unwrap();
        assert_eq!((valid.id.as_str(), &valid.claims["extra"]), (WEB, &json!([1])));
    }
    for header in [without(header(), "typ"), with(header(), "typ", json!("JOSE"))] {
        let single = with(claims(), "aud", json!("api"));
        assert!(validate(&signer.sign(&header, &single), "api", &signer.keys(), now()).is_ok());
    }
}

#[test]
fn a_bad_header_is_refused() {
    let (signer, keys) = (Signer::new(), Signer::new().keys());
    let own = signer.keys();
    let flaw = |header: &Value| {
        validate(&signer.sign(header, &claims()), "api", &own, now()).expect_err("it held")
    };
    for algorithm in ["none", "HS256", "RS256", "ES384", "es256", ""] {
        let header = with(header(), "alg", json!(algorithm));
        assert_eq!(flaw(&header), Flaw::Algorithm(algorithm.to_owned()));
    }
    assert_eq!(flaw(&with(header(), "typ", json!("JWT+x"))), Flaw::Type("JWT+x".to_owned()));
    assert_eq!(flaw(&with(header(), "kid", json!("k2"))), Flaw::Key("k2".to_owned()));
    for (name, value) in [("crit", json!(["exp"])), ("jwk", json!({})), ("jku", json!("http://x"))] {
        assert!(matches!(flaw(&with(header(), name, value)), Flaw::Form(_)), "{name}");
    }
    for name in ["alg", "kid"] {
        assert!(matches!(flaw(&without(header(), name)), Flaw::Form(_)), "{name}");
    }
    let token = signer.sign(&header(), &claims());
    assert_eq!(validate(&token, "api", &keys, now()).unwrap_err(), Flaw::Signature, "another's key");
    let none = JwtBundle { keys: Vec::new(), ..own };
    assert!(matches!(validate(&token, "api", &none, now()), Err(Flaw::Key(_))));
}

#[test]
fn bad_claims_are_refused() {
    let signer = Signer::new();
    let flaw = |claims: &Value| {
        let token = signer.sign(&header(), claims);
        validate(&token, "api", &signer.keys(), now()).expect_err("it held")
    };
    for name in ["sub", "aud", "exp"] {
        assert!(matches!(flaw(&without(claims(), name)), Flaw::Claim(found) if found == name));
        assert!(matches!(flaw(&with(claims(), name, json!(true))), Flaw::Claim(found) if found == name));
    }
    for subject in ["spiffe://other/web", "spiffe://mesh", "spiffe://mesh.evil/web"] {
        assert!(matches!(flaw(&with(claims(), "sub", json!(subject))), Flaw::Foreign(_)), "{subject}");
    }
    for subject in ["", "web", "http://mesh/web", "spiffe://mesh/a/../b"] {
        assert!(matches!(flaw(&with(claims(), "sub", json!(subject))), Flaw::Subject(_)), "{subject}");
    }
    for audience in [json!("API"), json!([]), json!(["apis"]), json!([1, null]), json!("")] {
        assert_eq!(flaw(&with(claims(), "aud", audience)), Flaw::Audience);
    }
    assert_eq!(flaw(&with(claims(), "exp", json!(999_970))), Flaw::Expired);
    assert_eq!(flaw(&with(claims(), "exp", json!(-1))), Flaw::Expired);
    assert_eq!(flaw(&with(claims(), "nbf", json!(1_000_031))), Flaw::Early);
    assert_eq!(flaw(&with(claims(), "nbf", json!("soon"))), Flaw::Claim("nbf"));
    assert!(matches!(flaw(&json!([1])), Flaw::Form(_)));
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let signer = Signer::new();
    let (token, keys) = (signer.sign(&header(), &claims()), signer.keys());
    assert!(validate(&token, "api", &keys, now()).is_ok());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(validate(&changed, "api", &keys, now()).is_err(), "byte {at}");
        assert!(validate(&token[..at], "api", &keys, now()).is_err(), "cut at {at}");
    }
    for bad in ["", ".", "..", "...", "a.b.c", &format!("{token}."), &format!("{token}=")] {
        assert!(validate(bad, "api", &keys, now()).is_err(), "{bad}");
    }
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    assert_eq!(validate(&long, "api", &keys, now()).unwrap_err(), Flaw::TooLong(long.len()));
}
