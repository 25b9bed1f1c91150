//! Sessions: what a client asks for, what is kept of it, and whether it may live. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SessionId;
use super::limits::{MAX_CHECKS, MAX_NAME_BYTES, MAX_SESSIONS, SESSION_TTL};
use crate::model::{CheckId, CheckStatus, NodeName, duration};
use crate::store::Revision;

/// What becomes of the locks of a session that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Behavior {
    /// They are free again.
    #[default]
    Release,
    /// Their keys are deleted.
    Delete,
}

impl Behavior {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Delete => "delete",
        }
    }
}

/// What a client asks for. Texts as they came.
#[derive(Debug, Clone)]
pub struct Wish {
    pub name: String,
    pub node: String,
    /// A Go duration; empty or zero means without end.
    pub ttl: String,
    pub lock_delay: Duration,
    /// Empty means release.
    pub behavior: String,
    pub node_checks: Vec<CheckId>,
    pub service_checks: Vec<CheckId>,
}

/// A session. It ends when its time is over, when a check it depends on turns critical or vanishes, and
/// when its node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    #[serde(skip)]
    pub id: SessionId,
    pub name: String,
    pub node: NodeName,
    /// As it was given.
    pub ttl: String,
    pub lock_delay: Duration,
    pub behavior: Behavior,
    pub node_checks: Vec<CheckId>,
    pub service_checks: Vec<CheckId>,
    #[serde(skip)]
    pub created: Revision,
    #[serde(skip)]
    pub modified: Revision,
}

/// Why there is no such session, in Consul's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    #[error("Invalid Behavior setting '{0}'")]
    Behavior(String),
    #[error("Session TTL '{text}' invalid: {fault}")]
    Ttl { text: String, fault: duration::DurationError },
    #[error("Invalid Session TTL '{ns}', must be between [{least}=24h0m0s]", least = least_ttl())]
    TtlRange { ns: u128 },
    #[error("Missing node registration")]
    NoNode,
    #[error("Missing check '{0}' registration")]
    NoCheck(CheckId),
    #[error("Check '{0}' is in critical state")]
    Critical(CheckId),
    #[error("a session has at most {MAX_CHECKS} checks and {MAX_NAME_BYTES} bytes of name")]
    TooLarge,
    #[error("there are {MAX_SESSIONS} sessions; destroy some")]
    TooMany,
}

fn least_ttl() -> String {
    duration::format(*SESSION_TTL.start())
}

/// The checks of a node by id, without which a session on it cannot be.
pub(super) type NodeChecks = BTreeMap<CheckId, CheckStatus>;

impl Session {
    /// A session as asked for. `checks` are those of its node, `None` when there is no such node.
    pub(super) fn new(
        id: SessionId,
        wish: Wish,
        checks: Option<&NodeChecks>,
    ) -> Result<Self, SessionFault> {
        let behavior = match wish.behavior.as_str() {
            "" | "release" => Behavior::Release,
            "delete" => Behavior::Delete,
            _ => return Err(SessionFault::Behavior(wish.behavior)),
        };
        check_ttl(&wish.ttl)?;
        let count = wish.node_checks.len() + wish.service_checks.len();
        if count > MAX_CHECKS || wish.name.len() > MAX_NAME_BYTES {
            return Err(SessionFault::TooLarge);
        }
        let session = Self {
            id,
            name: wish.name,
            node: NodeName::new(&wish.node).map_err(|_| SessionFault::NoNode)?,
            ttl: wish.ttl,
            lock_delay: wish.lock_delay,
            behavior,
            node_checks: wish.node_checks,
            service_checks: wish.service_checks,
            created: 0,
            modified: 0,
        };
        session.may_live(checks)?;
        Ok(session)
    }

    /// The time within which it has to be renewed.
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        duration::parse(&self.ttl).ok().filter(|ttl| !ttl.is_zero())
    }

    /// Whether everything it depends on is there and not critical.
    pub(super) fn may_live(&self, checks: Option<&NodeChecks>) -> Result<(), SessionFault> {
        let checks = checks.ok_or(SessionFault::NoNode)?;
        for id in self.node_checks.iter().chain(&self.service_checks).collect::<BTreeSet<_>>() {
            match checks.get(id) {
                None => return Err(SessionFault::NoCheck(id.clone())),
                Some(CheckStatus::Critical) => return Err(SessionFault::Critical(id.clone())),
                Some(CheckStatus::Passing | CheckStatus::Warning) => {}
            }
        }
        Ok(())
    }
}

fn check_ttl(text: &str) -> Result<(), SessionFault> {
    if text.is_empty() {
        return Ok(());
    }
    let ttl =
        duration::parse(text).map_err(|fault| SessionFault::Ttl { text: text.to_owned(), fault })?;
    if ttl.is_zero() || SESSION_TTL.contains(&ttl) {
        return Ok(());
    }
    Err(SessionFault::TtlRange { ns: ttl.as_nanos() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::limits::DEFAULT_LOCK_DELAY;

    fn wish() -> Wish {
        Wish {
            name: "s".to_owned(),
            node: "n1".to_owned(),
            ttl: String::new(),
            lock_delay: DEFAULT_LOCK_DELAY,
            behavior: String::new(),
            node_checks: vec!["serfHealth".to_owned()],
            service_checks: Vec::new(),
        }
    }

    #[test]
    fn wishes_by_table() {
        use CheckStatus::{Critical, Passing, Warning};
        let known = [("serfHealth", Passing), ("low", Warning), ("dead", Critical)];
        let known: NodeChecks = known.map(|(id, status)| (id.to_owned(), status)).into();
        type Change = fn(&mut Wish);
        let table: [(Change, Option<&str>); 13] = [
            (|_| {}, None),
            (|w| w.ttl = "10s".to_owned(), None),
            (|w| w.ttl = "0s".to_owned(), None),
            (|w| w.behavior = "delete".to_owned(), None),
            (|w| w.node_checks = Vec::new(), None),
            (|w| w.service_checks = vec!["low".to_owned()], None),
            (|w| w.behavior = "keep".to_owned(), Some("Invalid Behavior setting 'keep'")),
            (|w| w.ttl = "x".to_owned(), Some("Session TTL 'x' invalid: time: invalid duration \"x\"")),
            (
                |w| w.ttl = "1s".to_owned(),
                Some("Invalid Session TTL '1000000000', must be between [10s=24h0m0s]"),
            ),
            (
                |w| w.ttl = "25h".to_owned(),
                Some("Invalid Session TTL '90000000000000', must be between [10s=24h0m0s]"),
            ),
            (|w| w.node_checks = vec!["no".to_owned()], Some("Missing check 'no' registration")),
            (|w| w.service_checks = vec!["dead".to_owned()], Some("Check 'dead' is in critical state")),
            (|w| w.node = "a/b".to_owned(), Some("Missing node registration")),
        ];
        for (change, fault) in table {
            let mut wish = wish();
            change(&mut wish);
            let made = Session::new("id".to_owned(), wish.clone(), Some(&known));
            assert_eq!(made.err().map(|fault| fault.to_string()).as_deref(), fault, "{wish:?}");
        }
        let lost = Session::new("id".to_owned(), wish(), None);
        assert_eq!(lost, Err(SessionFault::NoNode));
    }

    #[test]
    fn the_period_is_what_was_given() {
        let known = NodeChecks::from([("serfHealth".to_owned(), CheckStatus::Passing)]);
        let period = |ttl: &str| {
            let wish = Wish { ttl: ttl.to_owned(), ..wish() };
            Session::new("id".to_owned(), wish, Some(&known)).unwrap().period()
        };
        assert_eq!((period(""), period("0s")), (None, None));
        assert_eq!(period("1m30s"), Some(Duration::from_secs(90)));
    }
}
