//! The tokens of the API: `/v1/weft/api-tokens`, in snake case. The CLI reads the same shapes.

use serde::{Deserialize, Serialize};

use crate::access::TokenInfo;
use crate::model::time::{epoch_ms, rfc3339};

/// One of `GET /v1/weft/api-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    pub accessor: String,
    pub description: String,
    pub scopes: Vec<String>,
    /// Who made it.
    pub author: String,
    pub created: String,
    /// Absent when it lives until it is revoked.
    pub expires: Option<String>,
}

/// `POST /v1/weft/api-tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewApiToken {
    pub token: String,
    #[serde(flatten)]
    pub about: ApiToken,
}

impl From<&TokenInfo> for ApiToken {
    fn from(info: &TokenInfo) -> Self {
        let time = |time| rfc3339(epoch_ms(time));
        Self {
            accessor: info.accessor.clone(),
            description: info.description.clone(),
            scopes: info.scopes.names().into_iter().map(str::to_owned).collect(),
            author: info.author.clone(),
            created: time(info.created),
            expires: info.expires.map(time),
        }
    }
}
