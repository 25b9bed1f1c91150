//! From the keys of a range to an answer: filters, order, limit. Pure.

use std::sync::Arc;

use bytes::Bytes;

use super::fault::Fault;
use super::keyspace::weight;
use super::limits::MAX_ANSWER_BYTES;
use crate::pb::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcd::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use crate::pb::etcd::mvccpb::KeyValue;

/// `found` are all keys of the range in order. The count is theirs, whatever the filters and the limit
/// leave of them.
pub(super) fn answer(
    request: &RangeRequest,
    mut found: Vec<Arc<KeyValue>>,
    header: ResponseHeader,
) -> RangeResponse {
    let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let header = Some(header);
    if request.count_only {
        return RangeResponse { header, count, ..RangeResponse::default() };
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    if let Some(limit) = limit
        && request.sort_order() == SortOrder::None
        && !has_filter(request)
    {
        // One more shows that there are more. etcd cuts here before it sorts by anything but the key.
        found.truncate(limit.saturating_add(1));
    }
    found.retain(|kv| passes(request, kv));
    sort(request, &mut found);
    let more = limit.is_some_and(|limit| found.len() > limit);
    if let Some(limit) = limit {
        found.truncate(limit);
    }
    let shown = |kv: Arc<KeyValue>| match request.keys_only {
        true => KeyValue { value: Bytes::new(), ..(*kv).clone() },
        false => (*kv).clone(),
    };
    RangeResponse { header, kvs: found.into_iter().map(shown).collect(), more, count }
}

/// Whether an answer may be sent.
pub(super) fn check_size(answer: &RangeResponse) -> Result<(), Fault> {
    let bytes: usize = answer.kvs.iter().map(weight).sum();
    if bytes > MAX_ANSWER_BYTES { Err(Fault::AnswerTooLarge) } else { Ok(()) }
}

const fn has_filter(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// 0 is no bound.
const fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    const fn within(value: i64, least: i64, most: i64) -> bool {
        (least == 0 || value >= least) && (most == 0 || value <= most)
    }
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Keys that compare the same stay in the order of the keys, whatever the direction.
fn sort(request: &RangeRequest, found: &mut [Arc<KeyValue>]) {
    let by = |a: &KeyValue, b: &KeyValue| match request.sort_target() {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match request.sort_order() {
        SortOrder::Descend => found.sort_by(|a, b| by(b, a)),
        SortOrder::None | SortOrder::Ascend => found.sort_by(|a, b| by(a, b)),
    }
}
