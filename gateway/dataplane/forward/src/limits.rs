//! Limits of new connections: a token bucket per VIP and worker.

use crate::Nanos;

const SECOND: u128 = 1_000_000_000;

/// Lets `rate` events a second through, and as many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    rate: u32,
    /// In billionths of a token: so many come every nanosecond as the rate says.
    level: u64,
    last: Nanos,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u32, now: Nanos) -> Self {
        Self { rate, level: Self::full(rate), last: now }
    }

    /// The share of a worker in a node's rate: at least one.
    #[must_use]
    pub fn share(rate: u32, workers: u16) -> u32 {
        rate.div_ceil(u32::from(workers.max(1))).max(1)
    }

    /// The same bucket at another rate: what it holds stays, up to the new brim.
    #[must_use]
    pub fn at_rate(self, rate: u32) -> Self {
        Self { rate, level: self.level.min(Self::full(rate)), last: self.last }
    }

    /// Take one token at `now`; false when there is none. A clock that was set back earns nothing.
    pub fn take(&mut self, now: Nanos) -> bool {
        let earned = u128::from(now.saturating_sub(self.last)) * u128::from(self.rate);
        self.last = now;
        let full = u128::from(Self::full(self.rate));
        self.level = u128::min(u128::from(self.level) + earned, full) as u64;
        let enough = u128::from(self.level) >= SECOND;
        if enough {
            self.level -= SECOND as u64;
        }
        enough
    }

    fn full(rate: u32) -> u64 {
        u64::from(rate.max(1)) * SECOND as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_of_a_second_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 0);
        assert_eq!((0..20).filter(|_| bucket.take(0)).count(), 10);
        assert!(!bucket.take(99_999_999));
        assert!(bucket.take(100_000_000));
        assert!(!bucket.take(50));
        assert_eq!((0..20).filter(|_| bucket.take(u64::MAX)).count(), 10);
    }

    #[test]
    fn shares_and_other_rates() {
        assert_eq!((TokenBucket::share(10, 3), TokenBucket::share(1, 8), TokenBucket::share(10, 0)), (4, 1, 10));
        let mut bucket = TokenBucket::new(100, 0).at_rate(5);
        assert_eq!((0..20).filter(|_| bucket.take(0)).count(), 5);
        let mut bucket = bucket.at_rate(100);
        assert!(!bucket.take(0));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(rate in 1u32..1000, steps in prop::collection::vec(0u64..5_000_000, 1..2000)) {
            let mut bucket = TokenBucket::new(rate, 0);
            let (mut now, mut taken) = (0u64, 0u64);
            for step in steps {
                now += step;
                taken += u64::from(bucket.take(now));
            }
            let allowed = u64::from(rate) + now * u64::from(rate) / 1_000_000_000;
            prop_assert!(taken <= allowed, "{} of {}", taken, allowed);
        }
    }
}
