//! Requests that become one commit: the keys as they will be after them. Pure.
//!
//! Each request that changes something takes a revision of its own. A request that is refused has
//! changed nothing, because everything is checked before the first change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::compare::holds;
use super::fault::Fault;
use super::keyspace::{Keyspace, weight};
use super::limits::{
    MAX_BYTES, MAX_DELETED_BYTES, MAX_KEYS, MAX_LEASE_TTL_S, MAX_LEASES, MIN_LEASE_TTL_S,
};
use super::range;
use super::record::{REVISION, delete_key, delete_lease, put_key, put_lease, put_revision, stored_len};
use super::span::Span;
use crate::pb::etcd::etcdserverpb::request_op::Request;
use crate::pb::etcd::etcdserverpb::response_op::Response;
use crate::pb::etcd::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::pb::etcd::mvccpb::KeyValue;
use crate::store::{Op, Txn};

pub(super) struct Draft<'a> {
    space: &'a Keyspace,
    /// After the requests so far.
    revision: i64,
    /// Whether the request under way has changed something.
    changed: bool,
    written: BTreeMap<Bytes, Option<Arc<KeyValue>>>,
    leases: BTreeMap<i64, Option<i64>>,
    ops: Vec<Op>,
}

/// Which branches of a transaction run, found before any of them does.
struct Path {
    succeeded: bool,
    /// Of the transactions in that branch, in order.
    nested: Vec<Self>,
}

impl Path {
    fn branch<'a>(&self, txn: &'a TxnRequest) -> impl Iterator<Item = &'a Request> + use<'a> {
        let branch = if self.succeeded { &txn.success } else { &txn.failure };
        branch.iter().filter_map(|operation| operation.request.as_ref())
    }

    /// Every request that will run, those of nested transactions too.
    fn running<'a>(&self, txn: &'a TxnRequest) -> Vec<&'a Request> {
        let mut nested = self.nested.iter();
        let mut running = Vec::new();
        for request in self.branch(txn) {
            running.push(request);
            if let Request::RequestTxn(txn) = request
                && let Some(path) = nested.next()
            {
                running.extend(path.running(txn));
            }
        }
        running
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(space: &'a Keyspace) -> Self {
        let (written, leases) = (BTreeMap::new(), BTreeMap::new());
        Self { space, revision: space.revision, changed: false, written, leases, ops: Vec::new() }
    }

    /// What to commit; nothing when nothing is changed. It rests on the revision, which every commit
    /// writes, and so on everything that was looked at.
    pub(super) fn finish(self) -> Txn {
        if self.ops.is_empty() {
            return Txn::default();
        }
        let conditions = vec![(REVISION.to_owned(), self.space.revision_version())];
        Txn { conditions, ops: self.ops }
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Fault> {
        let answer = self.read(request)?;
        range::check_size(&answer)?;
        Ok(answer)
    }

    fn read(&self, request: &RangeRequest) -> Result<RangeResponse, Fault> {
        let span = Span::new(&request.key, &request.range_end);
        let revision = self.seen_revision();
        let found = match request.revision {
            past if past > 0 && past < revision => self.space.at(&span, past)?,
            future if future > revision => return Err(Fault::FutureRevision),
            _ => self.find(&span),
        };
        Ok(range::answer(request, found, header(revision)))
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Fault> {
        self.check_lease(request)?;
        self.check_previous(request)?;
        self.check_space([request].into_iter())?;
        Ok(self.step(|draft| draft.do_put(request)))
    }

    pub(super) fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Fault> {
        self.check_deleted([request].into_iter())?;
        Ok(self.step(|draft| draft.do_delete(request)))
    }

    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Fault> {
        let path = self.path(request);
        self.check(&path.running(request))?;
        let mut answer = self.step(|draft| draft.do_txn(request, &path));
        answer.header = Some(header(self.revision));
        Ok(answer)
    }

    /// Starts a lease. `fresh` is its id if the client leaves the choice to us.
    pub(super) fn grant(
        &mut self,
        request: &LeaseGrantRequest,
        fresh: i64,
    ) -> Result<LeaseGrantResponse, Fault> {
        if request.ttl > MAX_LEASE_TTL_S {
            return Err(Fault::TtlTooLarge);
        }
        let id = if request.id == 0 { fresh } else { request.id };
        if self.has_lease(id) {
            return Err(Fault::LeaseExists);
        }
        if self.space.leases.len() + self.leases.len() >= MAX_LEASES {
            return Err(Fault::TooManyLeases);
        }
        let ttl = request.ttl.max(MIN_LEASE_TTL_S);
        self.leases.insert(id, Some(ttl));
        self.ops.push(put_lease(id, ttl));
        self.ops.push(put_revision(self.revision));
        Ok(LeaseGrantResponse { header: Some(header(self.revision)), id, ttl, error: String::new() })
    }

    /// Ends a lease and deletes its keys; says whether some had to be left for another commit. Until
    /// then the lease stays.
    pub(super) fn revoke(&mut self, lease: i64) -> Result<(ResponseHeader, bool), Fault> {
        if !self.has_lease(lease) {
            return Err(Fault::LeaseNotFound);
        }
        let mut bytes = 0;
        let mut keys = self.attached(lease);
        let all = keys.len();
        keys.retain(|key| {
            bytes += stored_len(key);
            bytes <= MAX_DELETED_BYTES
        });
        let more = keys.len() < all;
        self.step(|draft| {
            for key in keys {
                draft.remove(&key);
            }
        });
        if !more {
            self.leases.insert(lease, None);
            self.ops.push(delete_lease(lease));
            self.ops.push(put_revision(self.revision));
        }
        Ok((header(self.revision), more))
    }

    /// Runs changes that belong to one revision.
    fn step<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        self.changed = false;
        let result = change(self);
        if std::mem::take(&mut self.changed) {
            self.revision += 1;
            self.ops.push(put_revision(self.revision));
        }
        result
    }

    /// The revision that the request under way sees: the next one as soon as it has changed something.
    fn seen_revision(&self) -> i64 {
        self.revision + i64::from(self.changed)
    }

    fn path(&self, txn: &TxnRequest) -> Path {
        let succeeded = txn.compare.iter().all(|compare| {
            let found = self.find(&Span::new(&compare.key, &compare.range_end));
            holds(compare, found.iter().map(|kv| &**kv))
        });
        let mut path = Path { succeeded, nested: Vec::new() };
        path.nested = path
            .branch(txn)
            .filter_map(|request| match request {
                Request::RequestTxn(txn) => Some(self.path(txn)),
                _ => None,
            })
            .collect();
        path
    }

    /// Looks at everything that will run, in etcd's order: puts, then ranges.
    fn check(&self, running: &[&Request]) -> Result<(), Fault> {
        let (mut puts, mut ranges, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
        for request in running {
            match request {
                Request::RequestPut(put) => puts.push(put),
                Request::RequestRange(range) => ranges.push(range),
                Request::RequestDeleteRange(delete) => deletes.push(delete),
                Request::RequestTxn(_) => {} // what runs of it is here as well
            }
        }
        for put in &puts {
            self.check_previous(put)?;
            self.check_lease(put)?;
        }
        for range in ranges {
            self.range(range)?;
        }
        self.check_space(puts.into_iter())?;
        self.check_deleted(deletes.into_iter())
    }

    fn check_lease(&self, put: &PutRequest) -> Result<(), Fault> {
        if put.lease == 0 || self.has_lease(put.lease) { Ok(()) } else { Err(Fault::LeaseNotFound) }
    }

    fn check_previous(&self, put: &PutRequest) -> Result<(), Fault> {
        let needed = put.ignore_value || put.ignore_lease;
        if needed && self.get(&put.key).is_none() { Err(Fault::KeyNotFound) } else { Ok(()) }
    }

    fn check_space<'r>(&self, puts: impl Iterator<Item = &'r PutRequest>) -> Result<(), Fault> {
        let (mut keys, mut bytes) = (self.space.keys.len(), self.space.bytes);
        for kv in self.written.values().flatten() {
            (keys, bytes) = (keys + 1, bytes + weight(kv));
        }
        for put in puts {
            (keys, bytes) = (keys + 1, bytes + put.key.len() + put.value.len());
            if keys > MAX_KEYS || bytes > MAX_BYTES {
                return Err(Fault::NoSpace);
            }
        }
        Ok(())
    }

    fn check_deleted<'r>(
        &self,
        deletes: impl Iterator<Item = &'r DeleteRangeRequest>,
    ) -> Result<(), Fault> {
        let found = deletes.flat_map(|delete| self.find(&Span::new(&delete.key, &delete.range_end)));
        let bytes: usize = found.map(|kv| stored_len(&kv.key)).sum();
        if bytes > MAX_DELETED_BYTES { Err(Fault::TooLarge) } else { Ok(()) }
    }

    fn do_put(&mut self, request: &PutRequest) -> PutResponse {
        let old = self.get(&request.key);
        let revision = self.revision + 1;
        let mut new = KeyValue {
            key: request.key.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value: request.value.clone(),
            lease: request.lease,
        };
        if let Some(old) = &old {
            if request.ignore_value {
                new.value = old.value.clone();
            }
            if request.ignore_lease {
                new.lease = old.lease;
            }
        }
        self.ops.push(put_key(&new));
        self.written.insert(request.key.clone(), Some(Arc::new(new)));
        self.changed = true;
        let prev_kv = old.filter(|_| request.prev_kv).map(|old| (*old).clone());
        PutResponse { header: Some(header(revision)), prev_kv }
    }

    fn do_delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let found = self.find(&Span::new(&request.key, &request.range_end));
        for kv in &found {
            self.remove(&kv.key);
        }
        DeleteRangeResponse {
            header: Some(header(self.seen_revision())),
            deleted: i64::try_from(found.len()).unwrap_or(i64::MAX),
            prev_kvs: match request.prev_kv {
                true => found.iter().map(|kv| (**kv).clone()).collect(),
                false => Vec::new(),
            },
        }
    }

    fn do_txn(&mut self, txn: &TxnRequest, path: &Path) -> TxnResponse {
        let mut nested = path.nested.iter();
        let mut responses = Vec::new();
        for request in path.branch(txn) {
            let response = match request {
                // Whether it can be read was checked.
                Request::RequestRange(range) => {
                    Response::ResponseRange(self.read(range).unwrap_or_default())
                }
                Request::RequestPut(put) => Response::ResponsePut(self.do_put(put)),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(self.do_delete(delete))
                }
                Request::RequestTxn(txn) => match nested.next() {
                    Some(path) => Response::ResponseTxn(self.do_txn(txn, path)),
                    None => continue,
                },
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        // etcd leaves the header of a nested answer empty; that of the outer one is set at the end.
        let header = Some(ResponseHeader::default());
        TxnResponse { header, succeeded: path.succeeded, responses }
    }

    fn remove(&mut self, key: &Bytes) {
        self.ops.push(delete_key(key));
        self.written.insert(key.clone(), None);
        self.changed = true;
    }

    fn get(&self, key: &Bytes) -> Option<Arc<KeyValue>> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.space.keys.get(key).cloned(),
        }
    }

    /// The keys of a span, in order.
    fn find(&self, span: &Span) -> Vec<Arc<KeyValue>> {
        let held = span.of(&self.space.keys);
        let mut written = span.of(&self.written).peekable();
        if written.peek().is_none() {
            return held.map(|(_, kv)| Arc::clone(kv)).collect();
        }
        let mut all: BTreeMap<&Bytes, &Arc<KeyValue>> = held.collect();
        for (key, kv) in written {
            match kv {
                Some(kv) => all.insert(key, kv),
                None => all.remove(key),
            };
        }
        all.into_values().cloned().collect()
    }

    fn has_lease(&self, id: i64) -> bool {
        match self.leases.get(&id) {
            Some(written) => written.is_some(),
            None => self.space.leases.contains_key(&id),
        }
    }

    /// The keys of a lease, in order.
    fn attached(&self, lease: i64) -> Vec<Bytes> {
        let held = self.space.attached(lease).filter(|key| !self.written.contains_key(*key));
        let ours = |kv: &&Arc<KeyValue>| kv.lease == lease;
        let written = self.written.values().flatten().filter(ours).map(|kv| &kv.key);
        let mut keys: Vec<Bytes> = held.chain(written).cloned().collect();
        keys.sort_unstable();
        keys
    }
}

/// A header without what is the same in all of them.
pub(super) fn header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..ResponseHeader::default() }
}
