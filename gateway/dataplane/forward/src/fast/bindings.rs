//! Bindings of an EIP node by one of their addresses: four to a bucket of one cache line, read-only.

use crate::hash::fold;
use crate::prefetch::prefetch;

const LANES: usize = 4;

/// A binding as one direction needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// The address that is looked up; 0: free.
    pub(super) from: u32,
    /// What becomes of it.
    pub(super) to: u32,
    /// Where the tunnel goes.
    pub(super) service: u32,
    /// Place of the binding in the tables.
    pub(super) place: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket([Bound; LANES]);

/// All bindings of one direction.
#[derive(Debug)]
pub(super) struct Bindings {
    buckets: Vec<Bucket>,
}

impl Bindings {
    /// At most half full: few lookups go on to the next bucket.
    pub(super) fn new(items: impl ExactSizeIterator<Item = Bound>) -> Self {
        let count = (items.len() * 2).div_ceil(LANES).max(1);
        let mut made = Self { buckets: vec![Bucket::default(); count] };
        for item in items {
            let mut at = made.place(item.from);
            loop {
                let free = |bound: &&mut Bound| bound.from == 0 || bound.from == item.from;
                if let Some(bound) = made.buckets[at].0.iter_mut().find(free) {
                    *bound = item;
                    break;
                }
                at = (at + 1) % count;
            }
        }
        made
    }

    #[inline]
    fn place(&self, address: u32) -> usize {
        let hash = fold(u64::from(address) ^ 0x8EBC_6AF0_9C88_C6E3, 0xE703_7ED1_A0B4_28DB);
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    /// Ask for the bucket that a lookup reads first.
    #[inline]
    pub(super) fn prefetch(&self, address: u32) {
        if let Some(bucket) = self.buckets.get(self.place(address)) {
            prefetch(bucket);
        }
    }

    #[inline]
    pub(super) fn get(&self, address: u32) -> Option<&Bound> {
        let mut at = self.place(address);
        loop {
            let bucket = self.buckets.get(at)?;
            for bound in &bucket.0 {
                if bound.from == address {
                    // Who asks for 0.0.0.0, which any packet may name, finds what is free.
                    return (address != 0).then_some(bound);
                }
                if bound.from == 0 {
                    return None;
                }
            }
            at = if at + 1 < self.buckets.len() { at + 1 } else { 0 };
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
        fn as_a_plain_map(items in prop::collection::hash_map(1u32..500, any::<u32>(), 0..300)) {
            let list = items.iter().map(|(&from, &to)| Bound { from, to, service: to ^ 1, place: 7 });
            let made = Bindings::new(list.collect::<Vec<_>>().into_iter());
            let oracle: HashMap<u32, u32> = items;
            for from in 0..600 {
                made.prefetch(from);
                prop_assert_eq!(made.get(from).map(|bound| bound.to), oracle.get(&from).copied());
            }
        }
    }
}
