//! How long frames stay inside a node, from their receipt to their departure: a histogram per worker.

use std::sync::atomic::{AtomicU64, Ordering};

use tgw_forward::Nanos;

/// Buckets: two for each doubling, from 1 ns to 4 s.
pub const BUCKETS: usize = 64;

/// A histogram that one worker fills and anybody reads.
#[derive(Debug)]
pub struct Residence {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Residence {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

impl Residence {
    /// `frames` have stayed `ns` each.
    pub(crate) fn add(&self, ns: Nanos, frames: u64) {
        let add = |counter: &AtomicU64, n: u64| {
            // The worker is the only writer.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        };
        if let Some(count) = self.counts.get(bucket(ns)) {
            add(count, frames);
        }
        add(&self.sum_ns, ns.saturating_mul(frames));
    }

    /// Frames in each bucket.
    #[must_use]
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed))
    }

    /// All their times together [ns].
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Ordering::Relaxed)
    }

    /// The times below which each bucket lies [ns]; the last one takes what is longer, too.
    #[must_use]
    pub fn bounds() -> [u64; BUCKETS] {
        std::array::from_fn(|at| {
            let low = 1u64 << (at / 2);
            if at % 2 == 0 {
                low + low.div_ceil(2)
            } else {
                low * 2
            }
        })
    }
}

fn bucket(ns: Nanos) -> usize {
    let ns = ns.max(1);
    let doubling = ns.ilog2();
    let upper_half = ns >= (1 << doubling) + (1u64 << doubling).div_ceil(2);
    (doubling as usize * 2 + usize::from(upper_half)).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_lies_below_its_bound_and_not_below_the_one_before(ns in 1u64..4_000_000_000) {
            let (at, bounds) = (bucket(ns), Residence::bounds());
            prop_assert!(ns < bounds[at]);
            prop_assert!(at == 0 || ns >= bounds[at - 1]);
        }
    }

    #[test]
    fn what_is_longer_is_in_the_last() {
        let residence = Residence::default();
        residence.add(u64::MAX, 3);
        residence.add(0, 2);
        assert_eq!((residence.counts()[BUCKETS - 1], residence.counts()[0]), (3, 2));
    }
}
