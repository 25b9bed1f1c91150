//! The closed set of scopes: what a token may be good for.
//!
//! A scope is a kind of thing and `read` or `write`; to write includes to read. Each row of the table of
//! routes names the one scope that its route needs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a route may need, and a token may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    ServiceRead,
    ServiceWrite,
    IntentionRead,
    IntentionWrite,
    KvRead,
    KvWrite,
    SessionRead,
    SessionWrite,
    CaRead,
    CaWrite,
    /// To make enrolment tokens, and to be handed leaves: as good as every service's identity.
    EnrolWrite,
    OperatorRead,
    OperatorWrite,
}

use Scope::{
    CaRead, CaWrite, EnrolWrite, IntentionRead, IntentionWrite, KvRead, KvWrite, OperatorRead,
    OperatorWrite, ServiceRead, ServiceWrite, SessionRead, SessionWrite,
};

/// All scopes, their names, and what else each of them includes.
const ALL: [(Scope, &str, Option<Scope>); 13] = [
    (ServiceRead, "service:read", None),
    (ServiceWrite, "service:write", Some(ServiceRead)),
    (IntentionRead, "intention:read", None),
    (IntentionWrite, "intention:write", Some(IntentionRead)),
    (KvRead, "kv:read", None),
    (KvWrite, "kv:write", Some(KvRead)),
    (SessionRead, "session:read", None),
    (SessionWrite, "session:write", Some(SessionRead)),
    (CaRead, "ca:read", None),
    (CaWrite, "ca:write", Some(CaRead)),
    (EnrolWrite, "enrol:write", None),
    (OperatorRead, "operator:read", None),
    (OperatorWrite, "operator:write", Some(OperatorRead)),
];

impl Scope {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ALL.iter().find(|(scope, ..)| *scope == self).map_or("", |(_, name, _)| name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes, closed under what they include.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Scopes(u16);

/// A word that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a scope; use {known}, KIND:* or *", known = names().join(", "))]
pub struct ScopeError {
    word: String,
}

impl Scopes {
    /// No scope at all.
    pub const NONE: Self = Self(0);

    /// Every scope there is.
    #[must_use]
    pub fn all() -> Self {
        ALL.iter().fold(Self::NONE, |scopes, (scope, ..)| scopes.with(*scope))
    }

    /// Reads scopes, `kind:*` for all of a kind, and `*` for all there are.
    ///
    /// # Errors
    /// Which word is none of these.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopeError> {
        let mut scopes = Self::NONE;
        for word in words {
            let kind = word.strip_suffix('*');
            let fits = |name: &str| {
                name == word
                    || kind.is_some_and(|k| k.is_empty() || (k.ends_with(':') && name.starts_with(k)))
            };
            let mut found = ALL.iter().filter(|(_, name, _)| fits(name)).peekable();
            if found.peek().is_none() {
                return Err(ScopeError { word: word.chars().take(64).collect() });
            }
            scopes = found.fold(scopes, |scopes, (scope, ..)| scopes.with(*scope));
        }
        Ok(scopes)
    }

    #[must_use]
    pub fn with(self, scope: Scope) -> Self {
        let included = ALL.iter().find(|(one, ..)| *one == scope).and_then(|(.., included)| *included);
        Self(self.0 | bit(scope) | included.map_or(0, bit))
    }

    #[must_use]
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of `self` that `other` has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names, in the order of the table.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let ours = ALL.iter().filter(|(scope, ..)| self.contains(*scope));
        ours.map(|(_, name, _)| *name).collect()
    }
}

impl TryFrom<Vec<String>> for Scopes {
    type Error = ScopeError;

    fn try_from(words: Vec<String>) -> Result<Self, ScopeError> {
        Self::parse(words.iter().map(String::as_str))
    }
}

impl From<Scopes> for Vec<String> {
    fn from(scopes: Scopes) -> Self {
        scopes.names().into_iter().map(str::to_owned).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

const fn bit(scope: Scope) -> u16 {
    1 << scope as u8
}

fn names() -> Vec<&'static str> {
    Scopes::all().names()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_by_table() {
        for (words, names) in [
            (vec!["service:read"], Some("service:read")),
            (vec!["service:write"], Some("service:read, service:write")),
            (vec!["kv:*", "ca:read"], Some("kv:read, kv:write, ca:read")),
            (vec!["enrol:*"], Some("enrol:write")),
            (vec![], Some("")),
            (vec!["service"], None),
            (vec!["service*"], None),
            (vec!["ser*"], None),
            (vec![":*"], None),
            (vec![""], None),
            (vec!["kv:read", "no:such"], None),
            (vec!["Service:read"], None),
        ] {
            let scopes = Scopes::parse(words.iter().copied()).ok();
            assert_eq!(scopes.map(|s| s.to_string()).as_deref(), names, "{words:?}");
        }
        assert_eq!(Scopes::parse(["*"]), Ok(Scopes::all()));
        assert_eq!(Scopes::all().names().len(), ALL.len());
    }

    #[test]
    fn a_set_comes_back_from_json() {
        let scopes = Scopes::parse(["kv:write", "operator:read"]).unwrap();
        let json = serde_json::to_string(&scopes).unwrap();
        assert_eq!(json, r#"["kv:read","kv:write","operator:read"]"#);
        assert_eq!(serde_json::from_str::<Scopes>(&json).unwrap(), scopes);
        assert!(serde_json::from_str::<Scopes>(r#"["kv:rule"]"#).is_err());
    }
}
