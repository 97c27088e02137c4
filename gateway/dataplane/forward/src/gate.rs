//! The flood gate of a VIP: above a rate of new flows, none of them may take a place in the flow table.

use crate::limits::TokenBucket;
use crate::Nanos;

/// Newcomers above the rate that are let in before the gate shuts, as the share of a second; at least [`LEAST`].
const PATIENCE: u64 = 4;
const LEAST: u64 = 8;

/// A level that rises with every newcomer and sinks at the gate's rate. Above the high mark the gate shuts, and it opens
/// only once the level has sunk below the low one: a flood about as fast as the rate does not make it flap. The level
/// stops at twice the high mark, so that the gate opens soon after a flood: within half a second or [`LEAST`] newcomers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloodGate {
    /// What is free below the ceiling: a bucket that newcomers empty.
    free: TokenBucket,
    high: u64,
    is_shut: bool,
}

impl FloodGate {
    /// An open gate for `rate` new flows a second.
    pub(crate) fn new(rate: u64, now: Nanos) -> Self {
        let high = (rate / PATIENCE).max(LEAST);
        Self { free: TokenBucket::with_burst(rate, 2 * high, now), high, is_shut: false }
    }

    /// The same gate at another rate, as high or low as it stands.
    pub(crate) fn carried_over(self, other: Self) -> Self {
        Self { free: self.free.poured_into(other.free), is_shut: self.is_shut, ..other }
    }

    /// Count one newcomer: whether it may come in.
    pub(crate) fn newcomer(&mut self, now: Nanos) -> bool {
        self.free.take(now);
        !self.is_shut_at(now)
    }

    /// Whether newcomers are kept out.
    pub(crate) fn is_shut_at(&mut self, now: Nanos) -> bool {
        let free = self.free.tokens(now);
        // Free above the level: high = ceiling / 2, low = ceiling / 4.
        self.is_shut = if self.is_shut { free < self.high + self.high / 2 } else { free < self.high };
        self.is_shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn shuts_above_the_rate_and_opens_after_the_flood() {
        let mut gate = FloodGate::new(1000, 0);
        // At the rate: never shut.
        assert!((0..5000).all(|n| gate.newcomer(n * 1_000_000)));
        // Ten times the rate: shut soon, and it stays shut.
        let flood = |gate: &mut FloodGate| (0..20_000).filter(|n| gate.newcomer(5 * SECOND + n * 100_000)).count();
        let passed = flood(&mut gate);
        assert!((250..300).contains(&passed), "{passed}");
        assert!(gate.is_shut_at(7 * SECOND));
        assert!(gate.is_shut_at(7 * SECOND + SECOND / 3));
        assert!(!gate.is_shut_at(7 * SECOND + SECOND / 2));
        // A rate below the gate's keeps it open.
        assert!((0..500).all(|n| gate.newcomer(8 * SECOND + n * 2_000_000)));
    }

    #[test]
    fn a_slow_gate_lets_a_few_in() {
        let mut gate = FloodGate::new(1, 0);
        assert_eq!((0..100).filter(|_| gate.newcomer(0)).count() as u64, LEAST);
    }

    #[test]
    fn another_rate_keeps_it_shut() {
        let mut gate = FloodGate::new(100, 0);
        (0..1000).for_each(|_| {
            gate.newcomer(0);
        });
        assert!(gate.carried_over(FloodGate::new(200, 0)).is_shut_at(0));
    }

    proptest! {
        /// However newcomers come, those let in are no more than the patience and the rate allow.
        #[test]
        fn never_lets_in_more_than_the_rate(
            rate in 1u64..5000,
            steps in prop::collection::vec(0u64..3_000_000, 1..3000),
        ) {
            let mut gate = FloodGate::new(rate, 0);
            let (mut now, mut passed) = (0u64, 0u64);
            for step in steps {
                now += step;
                passed += u64::from(gate.newcomer(now));
            }
            let allowed = (rate / PATIENCE).max(LEAST) + now * rate / SECOND + 1;
            prop_assert!(passed <= allowed, "{} of {}", passed, allowed);
        }
    }
}
