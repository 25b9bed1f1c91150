//! Whether a JWT-SVID is one (SPIFFE JWT-SVID, section 4). Pure: keys and time are arguments.
//!
//! Tokens of this trust domain are signed with ES256 and name their key; no other algorithm is believed,
//! whatever a token says of itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::limits::MAX_TOKEN_BYTES;
use crate::model::spiffe::SpiffeError;
use crate::model::{JwtBundle, SpiffeId};

const ALGORITHM: &str = "ES256";
/// What clocks may differ by: a token is signed on another machine.
const SLACK: Duration = Duration::from_secs(30);

/// A token that holds.
#[derive(Debug)]
pub(super) struct Valid {
    pub id: SpiffeId,
    pub claims: Map<String, Value>,
}

/// Why a token does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("it has {0} bytes; at most {MAX_TOKEN_BYTES} are looked at")]
    TooLong(usize),
    #[error("it is not a JWS in compact form: {0}")]
    Form(&'static str),
    #[error("its algorithm {0:?} is not {ALGORITHM}")]
    Algorithm(String),
    #[error("its type {0:?} is neither JWT nor JOSE")]
    Type(String),
    #[error("its key {0:?} is none of this trust domain's")]
    Key(String),
    #[error("its signature does not hold")]
    Signature,
    #[error("its claim `{0}` is missing or of the wrong kind")]
    Claim(&'static str),
    #[error("its subject is no SPIFFE ID: {0}")]
    Subject(#[from] SpiffeError),
    #[error("its subject {0} is no workload of this trust domain")]
    Foreign(SpiffeId),
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
}

/// The protected header. The standard allows nothing else in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
}

/// Checks a token against the keys of its trust domain.
pub(super) fn validate(
    token: &str,
    audience: &str,
    keys: &JwtBundle,
    now: SystemTime,
) -> Result<Valid, Flaw> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Flaw::TooLong(token.len()));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Flaw::Form("it has no parts"))?;
    let (header, claims) = signed.split_once('.').ok_or(Flaw::Form("it has two parts"))?;
    let header: Header = serde_json::from_slice(&decoded(header)?)
        .map_err(|_| Flaw::Form("its header has not exactly `alg`, `kid` and perhaps `typ`"))?;
    if header.alg != ALGORITHM {
        return Err(Flaw::Algorithm(header.alg));
    }
    if let Some(typ) = header.typ.filter(|typ| typ != "JWT" && typ != "JOSE") {
        return Err(Flaw::Type(typ));
    }
    let key = keys.keys.iter().find(|key| key.id() == header.kid).ok_or(Flaw::Key(header.kid))?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point())
        .verify(signed.as_bytes(), &decoded(signature)?)
        .map_err(|_| Flaw::Signature)?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&decoded(claims)?).map_err(|_| Flaw::Form("its claims are no object"))?;
    let id = subject(&claims, keys)?;
    check_times(&claims, now)?;
    if !is_for(&claims, audience)? {
        return Err(Flaw::Audience);
    }
    Ok(Valid { id, claims })
}

fn decoded(part: &str) -> Result<Vec<u8>, Flaw> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Form("a part is not base64url"))
}

fn subject(claims: &Map<String, Value>, keys: &JwtBundle) -> Result<SpiffeId, Flaw> {
    let subject = claims.get("sub").and_then(Value::as_str).ok_or(Flaw::Claim("sub"))?;
    let id = SpiffeId::parse(subject)?;
    if id.is_member_of(&keys.trust_domain) && !id.path().is_empty() {
        return Ok(id);
    }
    Err(Flaw::Foreign(id))
}

fn check_times(claims: &Map<String, Value>, now: SystemTime) -> Result<(), Flaw> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let end = claims.get("exp").and_then(Value::as_f64).ok_or(Flaw::Claim("exp"))?;
    if now >= end + SLACK.as_secs_f64() {
        return Err(Flaw::Expired);
    }
    match claims.get("nbf") {
        None => Ok(()),
        Some(start) => {
            let start = start.as_f64().ok_or(Flaw::Claim("nbf"))?;
            if now + SLACK.as_secs_f64() < start { Err(Flaw::Early) } else { Ok(()) }
        }
    }
}

fn is_for(claims: &Map<String, Value>, audience: &str) -> Result<bool, Flaw> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(one == audience),
        Some(Value::Array(all)) => Ok(all.iter().any(|one| one.as_str() == Some(audience))),
        _ => Err(Flaw::Claim("aud")),
    }
}

#[cfg(test)]
mod tests;
