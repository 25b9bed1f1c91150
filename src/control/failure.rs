//! Errors of the catalog as gRPC statuses.

use tonic::Status;

use crate::catalog::CatalogError;

pub(super) fn of_catalog(error: &CatalogError) -> Status {
    let message = error.to_string();
    match error {
        CatalogError::Store(_) => Status::unavailable(message),
        CatalogError::Contended => Status::aborted(message),
        CatalogError::NoRandom => Status::internal(message),
        CatalogError::Name(_) | CatalogError::Invalid(_) => Status::invalid_argument(message),
        CatalogError::NoLease(_) | CatalogError::NoCheck(_) | CatalogError::NoInstance(_) => {
            Status::not_found(message)
        }
    }
}
