//! What two processes say to each other during an upgrade: JSON, so that either may be of a version that
//! knows more fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use super::UpgradeError;
use crate::agent;
use crate::model::{Bundle, CheckReport, CheckStatus, InstanceId, NodeName, ServiceName, TrustDomain};
use crate::net::handover::{Courier, Parcel};

/// Changes when an older process could not understand a newer one.
pub(super) const PROTOCOL: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// A successor has come.
    Hello {
        protocol: u32,
        version: String,
    },
    Estate(Estate),
    /// With the socket beside it; named as for a service manager.
    Listener {
        name: String,
        kept: bool,
    },
    /// The socket of the upgrade itself, beside it.
    Testator {},
    /// The latest result of a check.
    Check {
        id: String,
        status: CheckStatus,
        output: String,
    },
    /// That was all.
    Complete {},
    /// The successor serves.
    Ready {},
    /// The predecessor stops.
    Yours {},
}

/// Who the sidecar is, and the proof of it.
#[derive(Serialize, Deserialize)]
pub(super) struct Estate {
    pub version: String,
    pub who: Who,
    process: Bytes,
    chain: Vec<Bytes>,
    key: Bytes,
    trust_domain: String,
    bundle_version: u64,
    roots: Vec<Bytes>,
}

/// The instance that a sidecar stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub service: ServiceName,
    pub node: NodeName,
    pub instance: InstanceId,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "instance {} of {} on node {}", self.instance, self.service, self.node)
    }
}

impl Estate {
    pub(super) fn new(who: Who, estate: &agent::Estate) -> Self {
        let bytes = |bytes: &[u8]| Bytes(Zeroizing::new(bytes.to_vec()));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            who,
            process: bytes(&estate.process),
            chain: estate.chain.iter().map(|der| bytes(der)).collect(),
            key: bytes(&estate.key),
            trust_domain: estate.bundle.trust_domain.to_string(),
            bundle_version: estate.bundle.version,
            roots: estate.bundle.roots.iter().map(|der| bytes(der)).collect(),
        }
    }

    pub(super) fn into_agent(self, results: Vec<CheckReport>) -> Result<agent::Estate, UpgradeError> {
        let trust_domain = TrustDomain::new(&self.trust_domain)
            .map_err(|error| UpgradeError::Language { what: error.to_string() })?;
        let roots = self.roots.iter().map(|der| der.0.as_slice().into()).collect();
        Ok(agent::Estate {
            process: self.process.0.to_vec(),
            chain: self.chain.iter().map(|der| der.0.to_vec()).collect(),
            key: self.key.0,
            bundle: Bundle { trust_domain, version: self.bundle_version, roots },
            results,
        })
    }
}

/// Bytes as base64, wiped when dropped.
struct Bytes(Zeroizing<Vec<u8>>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.as_slice())))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map(Zeroizing::new).map(Self);
        text.zeroize();
        bytes.map_err(D::Error::custom)
    }
}

impl Message {
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, UpgradeError> {
        let text = serde_json::to_vec(self).map(Zeroizing::new);
        text.map_err(|error| UpgradeError::Language { what: error.to_string() })
    }

    pub(super) fn decode(text: &[u8]) -> Result<Self, UpgradeError> {
        // The place of the fault, not what stands there.
        serde_json::from_slice(text).map_err(|error| UpgradeError::Language {
            what: format!("a message makes no sense at byte {}", error.column()),
        })
    }
}

/// Sends a message without a socket.
pub(super) async fn say(courier: &Courier, message: &Message) -> Result<(), UpgradeError> {
    let text = message.encode()?;
    courier.send(&text, None).await.map_err(|source| UpgradeError::Lost { source })
}

/// The next message, and the socket beside it.
pub(super) async fn hear(
    courier: &Courier,
) -> Result<(Message, Option<std::os::fd::OwnedFd>), UpgradeError> {
    let parcel: Option<Parcel> =
        courier.receive().await.map_err(|source| UpgradeError::Lost { source })?;
    let (text, socket) = parcel.ok_or(UpgradeError::Gone)?;
    Ok((Message::decode(&text)?, socket))
}

/// A message that does not belong here.
pub(super) fn unexpected(expected: &str) -> UpgradeError {
    UpgradeError::Language { what: format!("it does not say {expected}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estate() -> Estate {
        let who = Who {
            service: ServiceName::new("web").unwrap(),
            node: NodeName::new("n1").unwrap(),
            instance: InstanceId::new("web-1").unwrap(),
        };
        let bundle = Bundle {
            trust_domain: TrustDomain::new("td.consul").unwrap(),
            version: 7,
            roots: vec![vec![5; 600].into()],
        };
        let left = agent::Estate {
            process: vec![1; 16],
            chain: vec![vec![2; 700], vec![3; 600]],
            key: Zeroizing::new(vec![4; 138]),
            bundle,
            results: Vec::new(),
        };
        Estate::new(who, &left)
    }

    #[test]
    fn an_estate_arrives_whole_and_from_a_version_that_knows_more() {
        let text = Message::Estate(estate()).encode().unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        value["estate"]["more"] = "news".into();
        let Message::Estate(read) = Message::decode(value.to_string().as_bytes()).unwrap() else {
            panic!("it is an estate");
        };
        let left = read.into_agent(Vec::new()).unwrap();
        assert_eq!((left.process, left.chain.len()), (vec![1; 16], 2));
        assert_eq!((*left.key).clone(), vec![4; 138]);
        assert_eq!((left.bundle.version, left.bundle.roots[0].len()), (7, 600));
    }

    #[test]
    fn a_fault_names_no_content() {
        let text = r#"{"estate":{"version":"1","key":"c2VjcmV0","who":7}}"#;
        let fault = Message::decode(text.as_bytes()).err().unwrap().to_string();
        assert!(fault.contains("at byte") && !fault.contains("c2VjcmV0"), "{fault}");
    }
}
