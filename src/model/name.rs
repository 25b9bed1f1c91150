//! Names of services, instances and nodes.
//!
//! All three are cheap to clone, bounded in length and free of characters that would be dangerous in
//! a path, a log line or a certificate. Service names compare without regard to ASCII case, because
//! Consul looks them up that way (`big_name` finds `Big_Name`), but keep the spelling they were given.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name in bytes. DNS labels end at 63; Consul has no limit of its own.
pub const MAX_NAME_BYTES: usize = 128;

/// Why a text is not a usable name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the {what} is empty")]
    Empty { what: &'static str },
    #[error("the {what} is {bytes} bytes long; at most {MAX_NAME_BYTES} are allowed")]
    TooLong { what: &'static str, bytes: usize },
    #[error("the {what} contains {found:?}; control characters, spaces, `/` and `*` are not allowed")]
    Character { what: &'static str, found: char },
    #[error("the {what} must not be `.` or `..`")]
    Dots { what: &'static str },
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { what, bytes: text.len() });
    }
    if text == "." || text == ".." {
        return Err(NameError::Dots { what });
    }
    match text.chars().find(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '*')) {
        Some(found) => Err(NameError::Character { what, found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name.
            ///
            /// # Errors
            /// When the text is empty, too long or has a forbidden character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                check($what, text.as_ref())?;
                Ok(Self(Arc::from(text.as_ref())))
            }

            /// The name as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

macro_rules! exact_comparison {
    ($type:ident) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.0.cmp(&other.0)
            }
        }
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Name of a service, such as `web`. Compared without regard to ASCII case.
    ServiceName,
    "service name"
);
name!(
    /// Identifier of one instance of a service, unique on its node.
    InstanceId,
    "instance id"
);
name!(
    /// Name of the machine an instance runs on.
    NodeName,
    "node name"
);
exact_comparison!(InstanceId);
exact_comparison!(NodeName);

impl ServiceName {
    /// The spelling used in SPIFFE IDs and DNS answers.
    #[must_use]
    pub fn to_lowercase(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|b| b.to_ascii_lowercase())
    }
}

impl PartialEq for ServiceName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for ServiceName {}

impl PartialOrd for ServiceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServiceName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}

impl Hash for ServiceName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.folded() {
            state.write_u8(byte);
        }
        state.write_u8(0xff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_ignore_case_but_keep_spelling() {
        let a = ServiceName::new("Big_Name").unwrap();
        let b = ServiceName::new("big_name").unwrap();
        assert_eq!(a, b);
        assert_eq!(a.cmp(&b), Ordering::Equal);
        assert_eq!(a.as_str(), "Big_Name");
        assert_ne!(a, ServiceName::new("big_nam").unwrap());
    }

    #[test]
    fn dangerous_names_are_refused() {
        for bad in ["", "..", ".", "a/b", "a b", "a\0b", "a\nb", "*", &"x".repeat(129)] {
            assert!(ServiceName::new(bad).is_err(), "{bad:?} was accepted");
            assert!(InstanceId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
