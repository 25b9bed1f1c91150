//! Who may use the HTTP API and for what: scoped tokens kept as hashes, the table of all routes, and
//! the audit log of what was changed.
//!
//! `api` asks before each request, `app` says whether tokens are required. Invariants: the store holds
//! only a hash of each secret; nobody gives a token more than he has; a route that is not in the table
//! is refused. [`decide`] is the whole policy, and pure.

pub mod audit;
mod authority;
pub mod limits;
pub mod routes;
mod scope;
mod token;

use std::fmt;

pub use self::authority::Access;
pub use self::scope::{Scope, ScopeError, Scopes};
pub use self::token::{NewToken, TokenInfo, Wish};

use self::routes::{Need, Rule};
use crate::store::StoreError;

/// Why something about tokens cannot be done. Never shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the token cannot be made: {0}")]
    Wish(String),
    #[error("a token cannot be given what its author lacks: {0}")]
    Exceeds(Scopes),
    #[error("there are {0} tokens already; revoke some")]
    Full(usize),
    #[error("the operator token is too short: {0} bytes at least, such as `openssl rand -hex 32` makes")]
    Weak(usize),
    #[error("the system has no random numbers; nothing can be made in secret")]
    NoRandom,
    #[error("the record cannot be written: {0}")]
    Record(#[from] serde_json::Error),
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Nobody said who; the connection may tell where from.
    Anonymous,
    /// The token of the operator's file.
    Operator,
    /// A client certificate of the operator's authority, by its fingerprint and names.
    Certificate(String),
    Token {
        accessor: String,
        scopes: Scopes,
    },
}

impl Actor {
    /// What this actor may do where tokens are required.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        match self {
            Self::Anonymous => Scopes::NONE,
            Self::Operator | Self::Certificate(_) => Scopes::all(),
            Self::Token { scopes, .. } => *scopes,
        }
    }
}

/// As it stands in the audit log, and with the tokens it makes.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Operator => f.write_str("operator"),
            Self::Certificate(fingerprint) => write!(f, "cert:{fingerprint}"),
            Self::Token { accessor, .. } => write!(f, "token:{accessor}"),
        }
    }
}

/// Why a request is refused, in Consul's words as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A token was sent and is not known, revoked or over: which of them is nobody's business.
    #[error("ACL not found")]
    Unknown,
    #[error(
        "Permission denied: anonymous token lacks permission '{0}'. The anonymous token is used \
         implicitly when a request does not specify a token."
    )]
    Anonymous(String),
    #[error("Permission denied: {actor} lacks permission '{need}'")]
    Lacks { actor: String, need: String },
}

/// Whether an actor may do what a row of the table describes; `None` is a route without a row.
///
/// # Errors
/// What it lacks.
pub fn decide(rule: Option<&Rule>, actor: &Actor) -> Result<(), Refusal> {
    let (allowed, need) = match rule.map(|rule| rule.need) {
        Some(Need::Nothing) => return Ok(()),
        Some(Need::Token) => (*actor != Actor::Anonymous, "any".to_owned()),
        Some(Need::Scope(scope)) => return permit(scope, actor),
        None => (actor.scopes() == Scopes::all(), "*".to_owned()),
    };
    if allowed { Ok(()) } else { Err(lacks(actor, need)) }
}

/// Whether an actor may do what `scope` opens.
///
/// # Errors
/// When he lacks it.
pub fn permit(scope: Scope, actor: &Actor) -> Result<(), Refusal> {
    if actor.scopes().contains(scope) { Ok(()) } else { Err(lacks(actor, scope.to_string())) }
}

fn lacks(actor: &Actor, need: String) -> Refusal {
    match actor {
        Actor::Anonymous => Refusal::Anonymous(need),
        Actor::Token { accessor, .. } => {
            Refusal::Lacks { actor: format!("token with AccessorID '{accessor}'"), need }
        }
        actor => Refusal::Lacks { actor: actor.to_string(), need },
    }
}

/// The token in the headers of a request, from where Consul looks for it and in its order; an empty one is
/// none. `header` finds the text of a header by its name in lower case.
pub fn credential<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    let bearer = || {
        let (scheme, token) = header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    let is_there = |token: &&str| !token.is_empty();
    header("x-consul-token").filter(is_there).or_else(|| bearer().filter(is_there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_by_table() {
        let token = |words: &[&str]| Actor::Token {
            accessor: "a1".to_owned(),
            scopes: Scopes::parse(words.iter().copied()).unwrap(),
        };
        let register = routes::rule("/v1/agent/service/register", "PUT");
        let leader = routes::rule("/v1/status/leader", "GET");
        let live = routes::rule("/health/live", "GET");
        for (rule, actor, text) in [
            (live, Actor::Anonymous, ""),
            (leader, token(&["kv:read"]), ""),
            (leader, Actor::Operator, ""),
            (register, token(&["service:write"]), ""),
            (register, Actor::Operator, ""),
            (register, Actor::Certificate("f".to_owned()), ""),
            (
                register,
                token(&["service:read", "kv:*"]),
                "Permission denied: token with AccessorID 'a1' lacks permission 'service:write'",
            ),
            (None, Actor::Operator, ""),
            (
                None,
                token(&["service:*"]),
                "Permission denied: token with AccessorID 'a1' lacks permission '*'",
            ),
        ] {
            let said = decide(rule, &actor).err().map(|refusal| refusal.to_string());
            assert_eq!(said.unwrap_or_default(), text, "{rule:?} {actor}");
        }
        for rule in [register, leader, None] {
            let refusal = decide(rule, &Actor::Anonymous).unwrap_err().to_string();
            assert!(refusal.starts_with("Permission denied: anonymous token lacks"), "{refusal}");
        }
    }
}
