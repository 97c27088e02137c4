//! Small numbers by number, as the straight way looks them up: open addressing, four entries to a cache line.

use crate::hash::{fold, mix};
use crate::prefetch::prefetch;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
struct Entry {
    /// 0: free.
    key: u64,
    values: [u32; 2],
}

/// A read-only map from numbers that are not 0 to pairs of numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    entries: Vec<Entry>,
    seed: u64,
}

/// Maps up to this size are made sparse: whether a lookup finds its number at once cannot be predicted, and each wrong guess
/// costs as much as a third of the whole lookup path.
const SMALL: usize = 4096;
/// Seeds that are tried for the one under which the fewest numbers are not at their own place.
const TRIES: u64 = 64;
/// Entries that stay in the second-level cache by themselves.
const NEAR: usize = SMALL * 8;

impl Numbers {
    /// At most half full, a small one at most an eighth.
    pub(super) fn new(items: &[(u64, [u32; 2])]) -> Self {
        let room = if items.len() <= SMALL { 8 } else { 2 };
        let size = (items.len() * room).next_power_of_two().max(4);
        let tries = if items.len() <= SMALL { TRIES } else { 1 };
        let made = (0..tries).map(|seed| Self::with_seed(items, size, mix(seed)));
        made.min_by_key(|(_, displaced)| *displaced)
            .map_or_else(|| Self { entries: vec![Entry::default(); 4], seed: 0 }, |made| made.0)
    }

    /// The map, and how many of its numbers are not at their own place.
    fn with_seed(items: &[(u64, [u32; 2])], size: usize, seed: u64) -> (Self, usize) {
        let mut made = Self { entries: vec![Entry::default(); size], seed };
        let mut displaced = 0;
        for &(key, values) in items {
            let mut at = made.place(key);
            while made.entries[at].key != 0 && made.entries[at].key != key {
                at = (at + 1) & (size - 1);
                displaced += 1;
            }
            made.entries[at] = Entry { key, values };
        }
        (made, displaced)
    }

    #[inline]
    fn place(&self, key: u64) -> usize {
        let hash = fold(key ^ self.seed, 0xE703_7ED1_A0B4_28DB);
        hash as usize & (self.entries.len() - 1)
    }

    /// Ask for the line that a lookup reads first, unless the map is so small that it is near anyway.
    #[inline]
    pub(super) fn prefetch(&self, key: u64) {
        if self.entries.len() <= NEAR {
            return;
        }
        if let Some(entry) = self.entries.get(self.place(key)) {
            prefetch(entry);
        }
    }

    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<[u32; 2]> {
        let mut at = self.place(key);
        loop {
            let entry = self.entries.get(at)?;
            if entry.key == key {
                return Some(entry.values);
            }
            if entry.key == 0 {
                return None;
            }
            at = (at + 1) & (self.entries.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn as_a_plain_map(items in prop::collection::hash_map(1u64..500, any::<[u32; 2]>(), 0..300)) {
            let list: Vec<_> = items.iter().map(|(key, values)| (*key, *values)).collect();
            let made = Numbers::new(&list);
            let oracle: HashMap<u64, [u32; 2]> = items;
            for key in 1..600 {
                made.prefetch(key);
                prop_assert_eq!(made.get(key), oracle.get(&key).copied());
            }
        }
    }
}
