//! The indexes of deleted keys, so that those of an absent key and of a prefix never go backwards. Pure.
//!
//! Bounded: what is forgotten raises the floor, which counts for every absent key.

use std::collections::{BTreeMap, VecDeque};

use super::limits::MAX_GRAVES;
use super::state::under;
use crate::store::Revision;

#[derive(Debug)]
pub(super) struct Graveyard {
    /// No absent key is known to have been there later than this.
    floor: Revision,
    graves: BTreeMap<String, Revision>,
    /// Every burial, the oldest first; those of keys that came back are stale.
    order: VecDeque<(Revision, String)>,
    capacity: usize,
}

impl Graveyard {
    /// Nothing is known of what was deleted before the state was loaded.
    pub(super) const fn new(loaded: Revision) -> Self {
        let floor = if loaded == 0 { 1 } else { loaded };
        Self { floor, graves: BTreeMap::new(), order: VecDeque::new(), capacity: MAX_GRAVES }
    }

    pub(super) fn bury(&mut self, key: &str, revision: Revision) {
        self.graves.insert(key.to_owned(), revision);
        self.order.push_back((revision, key.to_owned()));
        while self.order.len() > self.capacity {
            let Some((revision, key)) = self.order.pop_front() else { return };
            if self.graves.get(&key) == Some(&revision) {
                self.graves.remove(&key);
                self.floor = self.floor.max(revision);
            }
        }
    }

    /// A key is there again.
    pub(super) fn dig_up(&mut self, key: &str) {
        self.graves.remove(key);
    }

    /// The index of an absent key.
    pub(super) fn of(&self, key: &str) -> Revision {
        self.graves.get(key).copied().unwrap_or(self.floor).max(self.floor)
    }

    /// The index of a prefix, as far as it is about what is gone.
    pub(super) fn under(&self, prefix: &str) -> Revision {
        under(&self.graves, prefix).map(|(_, at)| *at).max().unwrap_or(self.floor).max(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_has_the_index_of_its_end() {
        let mut graves = Graveyard::new(0);
        assert_eq!((graves.of("a"), graves.under("")), (1, 1));
        graves.bury("a/b", 7);
        graves.bury("c", 9);
        assert_eq!((graves.of("a/b"), graves.of("a")), (7, 1));
        assert_eq!((graves.under("a/"), graves.under("b"), graves.under("")), (7, 1, 9));
        graves.dig_up("a/b");
        assert_eq!(graves.under("a/"), 1);
    }

    #[test]
    fn forgetting_raises_the_floor_and_no_index_goes_backwards() {
        let mut graves = Graveyard::new(5);
        graves.capacity = 3;
        let keys: Vec<String> = (0..6).map(|n| format!("k{n}")).collect();
        let mut seen = vec![0; keys.len()];
        for (revision, key) in (10..).zip(keys.iter().cycle().take(40)) {
            if revision % 4 == 0 {
                graves.dig_up(key);
            }
            graves.bury(key, revision);
            for (key, seen) in keys.iter().zip(&mut seen) {
                let now = graves.of(key);
                assert!(now >= *seen && now <= revision, "{key}: {seen} then {now}");
                *seen = now;
            }
            assert!(graves.order.len() <= 3 && graves.graves.len() <= 3);
        }
    }
}
