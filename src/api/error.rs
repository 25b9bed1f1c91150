//! How a request fails: a status and a text, in the form Consul's clients know.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::filter::FilterError;
use super::reply;
use crate::ca::CaError;
use crate::catalog::CatalogError;
use crate::kv::KvError;

/// An answer that is not a success. The body is the text, without a newline at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// Whether Consul's headers go along, as with faults found after the query was read.
    with_index: bool,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), with_index: false }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// Adds the headers of a read that reached nobody: index 1, no known leader.
    pub(super) fn with_index(self) -> Self {
        Self { with_index: true, ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.text).into_response();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        if self.with_index {
            reply::add_index(&mut response, 1, false);
        }
        response
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        let status = match &error {
            CatalogError::Name(_) | CatalogError::Invalid(_) => StatusCode::BAD_REQUEST,
            CatalogError::NoLease(_) | CatalogError::NoCheck(_) | CatalogError::NoInstance(_) => {
                StatusCode::NOT_FOUND
            }
            CatalogError::Contended => StatusCode::SERVICE_UNAVAILABLE,
            CatalogError::Store(_) | CatalogError::NoRandom => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// Consul 1.8.7 calls a bad expression a fault of its own; bounds are ours.
impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        let status = match &error {
            FilterError::Invalid(_) => StatusCode::INTERNAL_SERVER_ERROR,
            FilterError::TooLong | FilterError::TooDeep | FilterError::TooManyPatterns => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        let status = match &error {
            KvError::Store(_) | KvError::Catalog(_) | KvError::Session(_) | KvError::Full(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            KvError::Contended => StatusCode::SERVICE_UNAVAILABLE,
            KvError::KeyTooLong(_) => StatusCode::BAD_REQUEST,
            KvError::ValueTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<CaError> for ApiError {
    fn from(error: CaError) -> Self {
        let status = match &error {
            CaError::TokenLimit(_) | CaError::Name { .. } | CaError::Request(_) | CaError::Import(_) => {
                StatusCode::BAD_REQUEST
            }
            CaError::Rotating(_) => StatusCode::CONFLICT,
            CaError::TokenRefused | CaError::TokenForOther { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
