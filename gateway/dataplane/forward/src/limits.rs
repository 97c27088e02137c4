//! Limits of what a VIP may take: a token bucket per VIP, kind and worker.

use crate::Nanos;

/// The highest rate that a bucket can have [events/s].
pub const MAX_RATE: u64 = 1 << 43;
/// A bucket is filled in steps of so long [ns]: the arithmetic then stays within 64 bits.
const TICK: Nanos = 1_000;
/// A token in parts: so many come every tick as the rate says. Steps per second.
const TOKEN: u64 = 1_000_000;

/// Lets `rate` events a second through, and a burst at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    rate: u64,
    /// In millionths of a token, as `brim`.
    level: u64,
    brim: u64,
    last: Nanos,
}

impl TokenBucket {
    /// A full bucket, whose burst is what comes in a second. `rate` is at most [`MAX_RATE`].
    #[must_use]
    pub fn new(rate: u64, now: Nanos) -> Self {
        Self::with_burst(rate, rate, now)
    }

    /// A full bucket of `burst` events.
    #[must_use]
    pub fn with_burst(rate: u64, burst: u64, now: Nanos) -> Self {
        let brim = burst.clamp(1, MAX_RATE) * TOKEN;
        Self { rate: rate.min(MAX_RATE), level: brim, brim, last: now }
    }

    /// The share of a worker in a node's rate: at least one.
    #[must_use]
    pub fn share(rate: u64, workers: u16) -> u64 {
        rate.div_ceil(u64::from(workers.max(1))).max(1)
    }

    /// What this bucket holds, up to the new brim, in a bucket of another rate.
    #[must_use]
    pub fn poured_into(self, other: Self) -> Self {
        Self { level: self.level.min(other.brim), last: self.last, ..other }
    }

    /// Take one token at `now`; false when there is none. A clock that was set back earns nothing.
    pub fn take(&mut self, now: Nanos) -> bool {
        self.take_many(1, now)
    }

    /// Take `count` tokens at `now`; false, and none is taken, when there are fewer.
    pub fn take_many(&mut self, count: u32, now: Nanos) -> bool {
        if now != self.last {
            self.fill(now);
        }
        match self.level.checked_sub(u64::from(count) * TOKEN) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }

    /// Whole tokens that are there at `now`.
    pub(crate) fn tokens(&mut self, now: Nanos) -> u64 {
        self.fill(now);
        self.level / TOKEN
    }

    /// Whole ticks are paid, the rest of the time is kept for later: never more than the rate, nothing lost.
    fn fill(&mut self, now: Nanos) {
        match now.checked_sub(self.last) {
            Some(passed) => {
                let ticks = passed / TICK;
                self.last += ticks * TICK;
                self.level = self.level.saturating_add(ticks.saturating_mul(self.rate)).min(self.brim);
            }
            None => self.last = now,
        }
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
        let mut bucket = TokenBucket::new(100, 0).poured_into(TokenBucket::new(5, 0));
        assert_eq!((0..20).filter(|_| bucket.take(0)).count(), 5);
        let mut bucket = bucket.poured_into(TokenBucket::new(100, 0));
        assert!(!bucket.take(0));
    }

    #[test]
    fn the_highest_rate_does_not_overflow() {
        let mut bucket = TokenBucket::new(u64::MAX, 0);
        assert!(bucket.take_many(u32::MAX, 0));
        assert!(bucket.take_many(u32::MAX, u64::MAX));
        assert_eq!(bucket.level, bucket.brim - u64::from(u32::MAX) * TOKEN);
    }

    /// The same bucket in exact arithmetic, at the granularity of a nanosecond.
    struct Exact {
        rate: u128,
        level: u128,
        brim: u128,
        last: Nanos,
    }

    impl Exact {
        fn take(&mut self, count: u32, now: Nanos) -> bool {
            let earned = u128::from(now.saturating_sub(self.last)) * self.rate;
            self.last = now;
            self.level = self.brim.min(self.level + earned);
            let cost = u128::from(count) * 1_000_000_000;
            let enough = self.level >= cost;
            if enough {
                self.level -= cost;
            }
            enough
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(
            rate in prop_oneof![1u64..1000, 1u64..100_000_000_000],
            burst in 1u64..100_000,
            steps in prop::collection::vec((0u64..5_000_000, 1u32..2000), 1..2000),
        ) {
            let mut bucket = TokenBucket::with_burst(rate, burst, 0);
            let (mut now, mut taken) = (0u64, 0u128);
            for (step, count) in steps {
                now += step;
                taken += u128::from(if bucket.take_many(count, now) { count } else { 0 });
            }
            let allowed = u128::from(burst) + u128::from(now) * u128::from(rate) / 1_000_000_000;
            prop_assert!(taken <= allowed, "{} of {}", taken, allowed);
        }

        /// At times that are whole ticks the two agree in every single answer.
        #[test]
        fn as_in_exact_arithmetic(
            rate in prop_oneof![1u64..1000, 1u64..MAX_RATE],
            burst in 1u64..100_000,
            steps in prop::collection::vec((0u64..5_000, 1u32..2000), 1..500),
        ) {
            let mut bucket = TokenBucket::with_burst(rate, burst, 0);
            let brim = u128::from(burst) * 1_000_000_000;
            let mut exact = Exact { rate: rate.into(), level: brim, brim, last: 0 };
            let mut now = 0;
            for (step, count) in steps {
                now += step * TICK;
                prop_assert_eq!(bucket.take_many(count, now), exact.take(count, now));
            }
        }
    }
}
