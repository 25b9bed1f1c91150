//! Whether a request is well formed, before anybody looks at the keys: etcd's rules. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use super::fault::Fault;
use super::limits::{MAX_KEY_BYTES, MAX_NESTING, MAX_OPERATIONS, MAX_REQUEST_BYTES};
use super::record::stored_len;
use super::span::Span;
use crate::pb::etcd::etcdserverpb::request_op::Request;
use crate::pb::etcd::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

pub(super) fn size(request: &impl Message) -> Result<(), Fault> {
    if request.encoded_len() > MAX_REQUEST_BYTES { Err(Fault::TooLarge) } else { Ok(()) }
}

pub(super) fn range(request: &RangeRequest) -> Result<(), Fault> {
    key(&request.key)
}

pub(super) fn put(request: &PutRequest) -> Result<(), Fault> {
    key(&request.key)?;
    if stored_len(&request.key) > MAX_KEY_BYTES {
        return Err(Fault::TooLarge);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Fault::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Fault::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete(request: &DeleteRangeRequest) -> Result<(), Fault> {
    key(&request.key)
}

pub(super) fn txn(request: &TxnRequest) -> Result<(), Fault> {
    nested(request, MAX_NESTING)?;
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

fn key(key: &Bytes) -> Result<(), Fault> {
    if key.is_empty() { Err(Fault::EmptyKey) } else { Ok(()) }
}

fn nested(request: &TxnRequest, levels: usize) -> Result<(), Fault> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    if most > MAX_OPERATIONS || levels == 0 {
        return Err(Fault::TooManyOperations);
    }
    request.compare.iter().try_for_each(|compare| key(&compare.key))?;
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            // etcd's word for an operation that is none.
            None => return Err(Fault::KeyNotFound),
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete(request)?,
            Some(Request::RequestTxn(request)) => nested(request, levels - 1)?,
        }
    }
    Ok(())
}

/// What operations may write.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Vec<Span>,
}

impl Written {
    fn put(&mut self, key: &Bytes) -> Result<(), Fault> {
        if self.deletes.iter().any(|span| span.contains(key)) || !self.puts.insert(key.clone()) {
            return Err(Fault::DuplicateKey);
        }
        Ok(())
    }
}

/// A transaction may not put a key twice, nor put one and delete it. Of the two branches of a nested
/// transaction only one runs, so those may put the same key.
fn written(operations: &[RequestOp]) -> Result<Written, Fault> {
    let requests = || operations.iter().filter_map(|operation| operation.request.as_ref());
    let mut all = Written::default();
    for request in requests() {
        // etcd does not see the overlap with a range that has no end; clients may live by that.
        if let Request::RequestDeleteRange(delete) = request
            && delete.range_end.as_ref() != [0]
        {
            all.deletes.push(Span::new(&delete.key, &delete.range_end));
        }
    }
    for request in requests() {
        let Request::RequestTxn(nested) = request else { continue };
        let (then, otherwise) = (written(&nested.success)?, written(&nested.failure)?);
        for key in then.puts.union(&otherwise.puts) {
            all.put(key)?;
        }
        all.deletes.extend(then.deletes);
        all.deletes.extend(otherwise.deletes);
    }
    for request in requests() {
        if let Request::RequestPut(put) = request {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}
