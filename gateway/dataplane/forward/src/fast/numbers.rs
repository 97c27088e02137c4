//! Small numbers by number, as the straight way looks them up: open addressing, four entries to a cache line.

use crate::hash::fold;
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
}

impl Numbers {
    /// At most half full.
    pub(super) fn new(items: &[(u64, [u32; 2])]) -> Self {
        let size = (items.len() * 2).next_power_of_two().max(4);
        let mut made = Self { entries: vec![Entry::default(); size] };
        for &(key, values) in items {
            let mut at = made.place(key);
            while made.entries[at].key != 0 && made.entries[at].key != key {
                at = (at + 1) & (size - 1);
            }
            made.entries[at] = Entry { key, values };
        }
        made
    }

    #[inline]
    fn place(&self, key: u64) -> usize {
        let hash = fold(key ^ 0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB);
        hash as usize & (self.entries.len() - 1)
    }

    /// Ask for the line that a lookup reads first.
    #[inline]
    pub(super) fn prefetch(&self, key: u64) {
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
