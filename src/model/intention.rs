//! Intentions: who may open connections to whom.
//!
//! `Intentions::decide` is the only place that answers the question, on the server and in every
//! sidecar. Precedence is Consul's: exact to exact (9), any to exact (8), exact to any (6), any to
//! any (5); the first that exists wins, and without one the default decides.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{NameError, ServiceName};

/// One end of an intention: a service, or every service (`*`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Party {
    Any,
    Service(ServiceName),
}

impl Party {
    /// Reads `*` or a service name.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "*" { Ok(Self::Any) } else { ServiceName::new(text).map(Self::Service) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Service(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Party {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Party> for String {
    fn from(party: Party) -> Self {
        party.as_str().to_owned()
    }
}

/// What an intention, or the default, says.
///
/// `Audit` lets connections pass and marks each as one that `Deny` would refuse: the way to a stricter
/// policy without an outage. Consul has no such word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
    Audit,
}

impl Action {
    const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Audit];

    /// Reads `allow`, `deny` or `audit`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule. There is at most one for each pair of source and destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intention {
    /// UUID of Consul's legacy API; stable for the life of the rule.
    pub id: String,
    pub source: Party,
    pub destination: Party,
    pub action: Action,
    pub description: String,
    pub meta: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub updated_ms: u64,
}

impl Intention {
    /// Consul's precedence number; the highest matching rule wins.
    #[must_use]
    pub const fn precedence(&self) -> u8 {
        precedence(&self.source, &self.destination)
    }
}

/// Consul's precedence number of a pair.
#[must_use]
pub const fn precedence(source: &Party, destination: &Party) -> u8 {
    match (source, destination) {
        (Party::Service(_), Party::Service(_)) => 9,
        (Party::Any, Party::Service(_)) => 8,
        (Party::Service(_), Party::Any) => 6,
        (Party::Any, Party::Any) => 5,
    }
}

/// The answer to "may source connect to destination?", with the rule that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    /// The rule that decided; `None` when the default did.
    pub rule: Option<Rule>,
}

/// Names the rule behind a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub source: Party,
    pub destination: Party,
    pub precedence: u8,
}

impl Verdict {
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.action != Action::Deny
    }

    /// Allowed, but to be told of: `deny` in its place would refuse.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.action == Action::Audit
    }
}

impl fmt::Display for Verdict {
    /// `intention web -> db deny (precedence 9)` or `default policy allow`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(
                f,
                "intention {} -> {} {} (precedence {})",
                rule.source, rule.destination, self.action, rule.precedence
            ),
            None => write!(f, "default policy {}", self.action),
        }
    }
}

/// All rules somebody knows, and the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intentions {
    rules: BTreeMap<(Party, Party), Action>,
    default: Action,
}

impl Intentions {
    #[must_use]
    pub const fn new(default: Action) -> Self {
        Self { rules: BTreeMap::new(), default }
    }

    #[must_use]
    pub const fn default_action(&self) -> Action {
        self.default
    }

    pub fn set_default(&mut self, default: Action) {
        self.default = default;
    }

    /// Adds a rule or replaces the one of the same pair.
    pub fn insert(&mut self, source: Party, destination: Party, action: Action) {
        self.rules.insert((source, destination), action);
    }

    /// Removes the rule of a pair; says whether there was one.
    pub fn remove(&mut self, source: &Party, destination: &Party) -> bool {
        self.rules.remove(&(source.clone(), destination.clone())).is_some()
    }

    /// All rules, ordered by pair.
    pub fn iter(&self) -> impl Iterator<Item = (&Party, &Party, Action)> {
        self.rules.iter().map(|((source, destination), action)| (source, destination, *action))
    }

    /// Decides whether `source` may connect to `destination`.
    #[must_use]
    pub fn decide(&self, source: &ServiceName, destination: &ServiceName) -> Verdict {
        let source = Party::Service(source.clone());
        let destination = Party::Service(destination.clone());
        let candidates = [
            (source.clone(), destination.clone()),
            (Party::Any, destination),
            (source, Party::Any),
            (Party::Any, Party::Any),
        ];
        for pair in candidates {
            if let Some(action) = self.rules.get(&pair) {
                let precedence = precedence(&pair.0, &pair.1);
                let rule = Rule { source: pair.0, destination: pair.1, precedence };
                return Verdict { action: *action, rule: Some(rule) };
            }
        }
        Verdict { action: self.default, rule: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    #[test]
    fn actions_by_table() {
        for (action, allowed, audited) in
            [(Action::Allow, true, false), (Action::Deny, false, false), (Action::Audit, true, true)]
        {
            let verdict = Intentions::new(action).decide(&name("web"), &name("db"));
            assert_eq!((verdict.is_allowed(), verdict.is_audited()), (allowed, audited), "{action}");
        }
    }

    /// With sixteen questions each, 100,000 verdicts.
    const MODELS: u32 = 100_000 / 16;

    /// The rule book read literally: every matching rule, the highest number wins.
    fn naive(
        rules: &[(Party, Party, Action)],
        default: Action,
        s: &ServiceName,
        d: &ServiceName,
    ) -> Action {
        let matches = |party: &Party, name: &ServiceName| match party {
            Party::Any => true,
            Party::Service(other) => other == name,
        };
        rules
            .iter()
            .filter(|(from, to, _)| matches(from, s) && matches(to, d))
            .max_by_key(|(from, to, _)| precedence(from, to))
            .map_or(default, |(_, _, action)| *action)
    }

    fn party() -> impl Strategy<Value = Party> {
        prop_oneof![
            Just(Party::Any),
            prop::sample::select(vec!["a", "b", "c", "A"]).prop_map(|n| Party::Service(name(n)))
        ]
    }

    fn action() -> impl Strategy<Value = Action> {
        prop::sample::select(Action::ALL.to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(MODELS))]
        #[test]
        fn agrees_with_the_naive_model(
            rules in prop::collection::vec((party(), party(), action()), 0..12),
            default in action(),
        ) {
            let mut engine = Intentions::new(default);
            let mut model: Vec<(Party, Party, Action)> = Vec::new();
            for (from, to, action) in rules {
                model.retain(|(f, t, _)| (f, t) != (&from, &to));
                model.push((from.clone(), to.clone(), action));
                engine.insert(from, to, action);
            }
            for source in ["a", "B", "c", "d"] {
                for destination in ["a", "b", "C", "d"] {
                    let (s, d) = (name(source), name(destination));
                    prop_assert_eq!(engine.decide(&s, &d).action, naive(&model, default, &s, &d));
                }
            }
        }
    }

    #[test]
    fn the_verdict_names_its_rule() {
        let mut rules = Intentions::new(Action::Allow);
        assert_eq!(rules.decide(&name("web"), &name("db")).to_string(), "default policy allow");
        rules.insert(Party::Any, Party::parse("db").unwrap(), Action::Deny);
        assert_eq!(
            rules.decide(&name("web"), &name("db")).to_string(),
            "intention * -> db deny (precedence 8)"
        );
    }
}
