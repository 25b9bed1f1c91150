//! Why a request is refused: etcd's words and codes, which clients compare. Pure.

use tonic::{Code, Status};

use super::limits::MAX_ANSWER_BYTES;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    TtlTooLarge,
    #[error("etcdserver: too many leases")]
    TooManyLeases,
    #[error(
        "the answer would be larger than {MAX_ANSWER_BYTES} bytes; ask for a part of it with a limit"
    )]
    AnswerTooLarge,
    /// The store is gone, or everybody writes at once.
    #[error("etcdserver: the store cannot be written: {0}")]
    Unavailable(String),
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault::EmptyKey
            | Fault::KeyNotFound
            | Fault::ValueProvided
            | Fault::LeaseProvided
            | Fault::TooManyOperations
            | Fault::DuplicateKey
            | Fault::TooLarge => Code::InvalidArgument,
            Fault::Compacted | Fault::FutureRevision | Fault::TtlTooLarge => Code::OutOfRange,
            Fault::NoSpace | Fault::AnswerTooLarge | Fault::TooManyLeases => Code::ResourceExhausted,
            Fault::LeaseNotFound => Code::NotFound,
            Fault::LeaseExists => Code::FailedPrecondition,
            Fault::Unavailable(_) => Code::Unavailable,
        };
        Self::new(code, fault.to_string())
    }
}
