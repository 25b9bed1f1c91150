//! The conditions of a transaction. Pure.

use std::cmp::Ordering;

use crate::pb::etcd::etcdserverpb::Compare;
use crate::pb::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcd::mvccpb::KeyValue;

/// Whether a condition holds for every key it is about. A key that is not there has zeros everywhere,
/// but no value that could be compared.
pub(super) fn holds<'a>(compare: &Compare, found: impl Iterator<Item = &'a KeyValue>) -> bool {
    let mut found = found.peekable();
    if found.peek().is_none() {
        return compare.target() != CompareTarget::Value && holds_for(compare, &KeyValue::default());
    }
    found.all(|kv| holds_for(compare, kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let held = match compare.target() {
        CompareTarget::Version => kv.version,
        CompareTarget::Create => kv.create_revision,
        CompareTarget::Mod => kv.mod_revision,
        CompareTarget::Lease => kv.lease,
        CompareTarget::Value => {
            let wanted = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value.as_ref(),
                _ => &[],
            };
            return is(compare, kv.value.as_ref().cmp(wanted));
        }
    };
    is(compare, held.cmp(&wanted(compare)))
}

/// The number to compare with; 0 when it is given for another target.
fn wanted(compare: &Compare) -> i64 {
    use CompareTarget as Target;
    match (compare.target(), &compare.target_union) {
        (Target::Version, Some(TargetUnion::Version(number)))
        | (Target::Create, Some(TargetUnion::CreateRevision(number)))
        | (Target::Mod, Some(TargetUnion::ModRevision(number)))
        | (Target::Lease, Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

fn is(compare: &Compare, order: Ordering) -> bool {
    match compare.result() {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Greater => order == Ordering::Greater,
        CompareResult::Less => order == Ordering::Less,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn conditions_by_table() {
        use CompareResult::{Equal, Greater, Less, NotEqual};
        let kv = KeyValue {
            key: "a".into(),
            create_revision: 3,
            mod_revision: 7,
            version: 2,
            value: "m".into(),
            lease: 9,
        };
        let value = |text: &'static str| TargetUnion::Value(Bytes::from_static(text.as_bytes()));
        for (target, result, wanted, there, absent) in [
            (CompareTarget::Version, Equal, Some(TargetUnion::Version(2)), true, false),
            (CompareTarget::Version, Equal, Some(TargetUnion::Version(0)), false, true),
            (CompareTarget::Version, Greater, Some(TargetUnion::Version(1)), true, false),
            (CompareTarget::Create, Equal, Some(TargetUnion::CreateRevision(3)), true, false),
            (CompareTarget::Create, NotEqual, Some(TargetUnion::CreateRevision(0)), true, false),
            (CompareTarget::Mod, Less, Some(TargetUnion::ModRevision(8)), true, true),
            (CompareTarget::Mod, Equal, Some(TargetUnion::Version(7)), false, true),
            (CompareTarget::Lease, Equal, Some(TargetUnion::Lease(9)), true, false),
            (CompareTarget::Value, Equal, Some(value("m")), true, false),
            (CompareTarget::Value, NotEqual, Some(value("x")), true, false),
            (CompareTarget::Value, Greater, Some(value("a")), true, false),
            (CompareTarget::Value, Less, Some(value("z")), true, false),
            (CompareTarget::Value, Equal, None, false, false),
        ] {
            let mut compare = Compare { target_union: wanted, ..Compare::default() };
            compare.set_target(target);
            compare.set_result(result);
            assert_eq!(holds(&compare, [&kv].into_iter()), there, "{compare:?}");
            assert_eq!(holds(&compare, std::iter::empty()), absent, "{compare:?}");
            let other = KeyValue::default();
            let both = there && holds(&compare, [&other].into_iter());
            assert_eq!(
                holds(&compare, [&kv, &other].into_iter()),
                both,
                "every key counts: {compare:?}"
            );
        }
    }
}
