//! A range of keys as requests give it. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// Keys from one on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    from: Bytes,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// One key only.
    Only,
    Before(Bytes),
    /// Everything that follows.
    Open,
}

impl Span {
    /// By `key` and `range_end`: none is the key alone, one zero byte is everything from the key on.
    pub(super) fn new(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => End::Only,
            [0] => End::Open,
            _ => End::Before(range_end.clone()),
        };
        Self { from: key.clone(), end }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Only => *key == *self.from,
            End::Before(end) => *self.from <= *key && *key < **end,
            End::Open => *self.from <= *key,
        }
    }

    /// Whether no key can be in it.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.from)
    }

    /// The entries of a map in it, in order.
    pub(super) fn of<'a, V>(
        &self,
        map: &'a BTreeMap<Bytes, V>,
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a V)> + use<'a, V> {
        let from = Bound::Included(self.from.clone());
        let end = match &self.end {
            End::Only => Bound::Included(self.from.clone()),
            // A map refuses a range that ends before it begins.
            End::Before(end) => Bound::Excluded(end.clone().max(self.from.clone())),
            End::Open => Bound::Unbounded,
        };
        let (from, end) = match self.is_empty() {
            true => (Bound::Included(self.from.clone()), Bound::Excluded(self.from.clone())),
            false => (from, end),
        };
        map.range((from, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_map_and_the_question_agree(
            keys in proptest::collection::btree_set(proptest::collection::vec(0..4u8, 0..4), 0..20),
            key in proptest::collection::vec(0..4u8, 0..4),
            end in proptest::collection::vec(0..4u8, 0..4),
        ) {
            let map: BTreeMap<Bytes, ()> = keys.iter().map(|key| (key.clone().into(), ())).collect();
            let span = Span::new(&key.clone().into(), &end.clone().into());
            let found: Vec<_> = span.of(&map).map(|(key, ())| key.to_vec()).collect();
            let expected: Vec<_> = keys
                .iter()
                .filter(|k| match &*end {
                    [] => **k == key,
                    [0] => **k >= key,
                    _ => **k >= key && **k < end,
                })
                .cloned()
                .collect();
            prop_assert_eq!(&found, &expected);
            prop_assert!(keys.iter().all(|key| span.contains(key) == expected.contains(key)));
            prop_assert!(!span.is_empty() || expected.is_empty());
        }
    }
}
