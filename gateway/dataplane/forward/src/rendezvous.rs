//! Weighted rendezvous hashing: every real server bids for a connection, the highest bid gets it.
//!
//! After Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (SPAA '05): with h uniform in (0, 1) for each pair of
//! connection and server, the server with the largest -weight / ln(h) gets a share in exact proportion to its weight, and
//! when one goes, only its own connections move (Maglev moves a few others). A choice asks every server, so this is for
//! listeners with tens of them. All of it is whole numbers: every LD makes the same choice, whatever machine it is.

use crate::hash::mix;

/// Fractional bits of a logarithm. With six bits before the point and ten of a weight, products stay within 64 bits.
const FRACTION: u32 = 48;
/// The logarithm's table has an entry for each of 2^9 parts of [1, 2), and one for the end.
const INDEX: u32 = 9;
/// The largest weight.
pub const MAX_WEIGHT: u32 = 1023;

/// log2(1 + i / 2^9), in units of 2^-48. Between two entries a straight line is off by at most 7e-7.
static LOGS: [u64; (1 << INDEX) + 1] = logs();

const fn logs() -> [u64; (1 << INDEX) + 1] {
    let mut table = [0; (1 << INDEX) + 1];
    let mut index = 0;
    while index < 1 << INDEX {
        // Digit by digit: squaring doubles the logarithm.
        let mut value = (1u128 << 62) + ((index as u128) << (62 - INDEX));
        let mut log = 0;
        let mut digit = 0;
        while digit < FRACTION {
            value = (value * value) >> 62;
            log <<= 1;
            if value >= 1 << 63 {
                value >>= 1;
                log |= 1;
            }
            digit += 1;
        }
        table[index] = log;
        index += 1;
    }
    table[index] = 1 << FRACTION;
    table
}

/// -log2(hash / 2^64), in units of 2^-48; the hash 0 counts as 1. Falls with the hash.
fn minus_log2(hash: u64) -> u64 {
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    let mantissa = hash << zeros << 1; // without its leading one
    let place = (mantissa >> (64 - INDEX)) as usize;
    let within = mantissa << INDEX >> 32;
    let low = LOGS.get(place).copied().unwrap_or(0);
    let high = LOGS.get(place + 1).copied().unwrap_or(low);
    let log = low + ((u128::from(high - low) * u128::from(within)) >> 32) as u64;
    ((u64::from(zeros) + 1) << FRACTION) - log
}

/// A real server that bids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bidder {
    /// Its id, mixed.
    salt: u64,
    weight: u32,
    /// Index among those given.
    index: u16,
}

/// The real servers of a listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendezvous {
    /// By id, so that nothing depends on the order that they were given in.
    bidders: Vec<Bidder>,
}

/// A bid: the cost, and the weight that it is divided by. Less is better.
#[derive(Clone, Copy)]
struct Bid {
    cost: u64,
    weight: u32,
    index: u16,
}

impl Bid {
    fn beats(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| self.cost * u64::from(other.weight) < other.cost * u64::from(self.weight))
    }
}

impl Rendezvous {
    /// For real servers by (id, weight); weights above [`MAX_WEIGHT`] count as that. `None` when none has a weight, or there
    /// are more than 65535.
    #[must_use]
    pub fn new(servers: &[(u32, u32)]) -> Option<Self> {
        let mut order: Vec<(u16, (u32, u32))> =
            (0..u16::try_from(servers.len()).ok()?).zip(servers.iter().copied()).collect();
        order.sort_by_key(|(_, (id, _))| *id);
        let bidder = |(index, (id, weight)): (u16, (u32, u32))| {
            (weight > 0).then(|| Bidder { salt: mix(u64::from(id)), weight: weight.min(MAX_WEIGHT), index })
        };
        let bidders: Vec<Bidder> = order.into_iter().filter_map(bidder).collect();
        (!bidders.is_empty()).then_some(Self { bidders })
    }

    /// The index, among those given, of the server for a hash.
    #[must_use]
    pub fn choose(&self, hash: u64) -> usize {
        self.choose_two(hash, |_| (true, true)).0.unwrap_or(0)
    }

    /// The best of those that `fits` says (may be chosen, may be chosen if no other may) of, and the best of the second sort.
    pub(crate) fn choose_two(
        &self,
        hash: u64,
        mut fits: impl FnMut(usize) -> (bool, bool),
    ) -> (Option<usize>, Option<usize>) {
        let (mut best, mut spare) = (None, None);
        for bidder in &self.bidders {
            let bid = Bid { cost: minus_log2(mix(hash ^ bidder.salt)), weight: bidder.weight, index: bidder.index };
            // Asking about a server is dearer than a comparison: only those that would win are asked about.
            if !bid.beats(best.as_ref()) && !bid.beats(spare.as_ref()) {
                continue;
            }
            let (first, second) = fits(usize::from(bid.index));
            if first && bid.beats(best.as_ref()) {
                best = Some(bid);
            }
            if second && bid.beats(spare.as_ref()) {
                spare = Some(bid);
            }
        }
        let index = |bid: Option<Bid>| bid.map(|bid| usize::from(bid.index));
        (index(best), index(spare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn logarithms_agree_with_floating_point() {
        let mut hash = 1u64;
        for step in 0..200_000u64 {
            hash = mix(hash ^ step) >> (step % 60);
            let expected = 64.0 - (hash.max(1) as f64).log2();
            let found = minus_log2(hash) as f64 / (1u64 << FRACTION) as f64;
            assert!((found - expected).abs() < 7e-7, "{hash}: {found} {expected}");
        }
        assert_eq!(minus_log2(1), 64 << FRACTION);
        assert_eq!(minus_log2(0), 64 << FRACTION);
        assert_eq!(minus_log2(1 << 63), 1 << FRACTION);
        assert!(minus_log2(u64::MAX) <= 256, "what 32 bits of interpolation leave");
    }

    /// The same numbers on every machine, for good: LDs of two versions must agree.
    #[test]
    fn choices_do_not_change() {
        let rendezvous = Rendezvous::new(&[(1, 100), (2, 50), (7, 150), (9, 0)]).unwrap();
        let choices: Vec<usize> = (0..24).map(|n| rendezvous.choose(mix(n))).collect();
        assert_eq!(choices, [0, 0, 1, 2, 0, 2, 2, 2, 0, 2, 2, 2, 2, 2, 1, 0, 2, 1, 0, 2, 0, 0, 2, 1]);
    }

    fn shares(servers: &[(u32, u32)], hashes: u64) -> Vec<f64> {
        let rendezvous = Rendezvous::new(servers).unwrap();
        let mut shares = vec![0.0; servers.len()];
        (0..hashes).for_each(|n| shares[rendezvous.choose(mix(n ^ 0xABCD))] += 1.0 / hashes as f64);
        shares
    }

    /// Chi-square with as many degrees of freedom as servers less one: 4 sigma above its mean.
    #[test]
    fn shares_follow_weights() {
        let unequal: Vec<_> = (1..=40).map(|id| (id, id * 25)).collect();
        let equal: Vec<_> = (1..=100).map(|id| (id, 100)).collect();
        for servers in [&[(1, 100), (2, 300), (3, 600)][..], &[(1, 1), (2, 1000)], &unequal, &equal] {
            let hashes = 200_000;
            let total: u32 = servers.iter().map(|(_, weight)| weight).sum();
            let chi: f64 = shares(servers, hashes)
                .iter()
                .zip(servers)
                .map(|(share, (_, weight))| {
                    let expected = f64::from(*weight) / f64::from(total);
                    (share - expected).powi(2) / expected * hashes as f64
                })
                .sum();
            let freedom = servers.len() as f64 - 1.0;
            assert!(chi < freedom + 4.0 * (2.0 * freedom).sqrt() + 4.0, "{chi} for {freedom}");
        }
    }

    #[test]
    fn without_weight_nothing_is_chosen() {
        assert_eq!(Rendezvous::new(&[(1, 0)]), None);
        assert_eq!(Rendezvous::new(&[]), None);
        let shares = shares(&[(1, 10), (2, 0)], 1000);
        assert!(shares[0] > 0.999 && shares[1] == 0.0, "{shares:?}");
    }

    fn servers() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::btree_map(1u32..1000, 1u32..1000, 2..30).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn falls_with_the_hash(one in any::<u64>(), other in any::<u64>()) {
            let (low, high) = (one.min(other), one.max(other));
            prop_assert!(minus_log2(low) >= minus_log2(high));
        }

        #[test]
        fn only_connections_of_a_lost_server_move(servers in servers(), gone in any::<prop::sample::Index>(), hash in any::<u64>()) {
            let gone = gone.index(servers.len());
            let before = servers[Rendezvous::new(&servers).unwrap().choose(hash)].0;
            let left: Vec<_> = servers.iter().copied().filter(|(id, _)| *id != servers[gone].0).rev().collect();
            let after = left[Rendezvous::new(&left).unwrap().choose(hash)].0;
            prop_assert!(before == after || before == servers[gone].0);
        }

        /// More weight takes connections from others, and gives none away.
        #[test]
        fn more_weight_only_attracts(servers in servers(), more in any::<prop::sample::Index>(), hash in any::<u64>()) {
            let more = more.index(servers.len());
            let mut heavier = servers.clone();
            heavier[more].1 = (heavier[more].1 * 2).min(1000);
            let before = Rendezvous::new(&servers).unwrap().choose(hash);
            let after = Rendezvous::new(&heavier).unwrap().choose(hash);
            prop_assert!(before == after || after == more);
        }

        #[test]
        fn as_if_the_others_were_not_there(servers in servers(), fit in any::<u32>(), hash in any::<u64>()) {
            let fits = |index: usize| fit >> (index % 32) & 1 == 1;
            let (found, any) = Rendezvous::new(&servers).unwrap().choose_two(hash, |index| (fits(index), true));
            let left: Vec<_> = servers.iter().copied().enumerate().filter(|(index, _)| fits(*index)).collect();
            let few: Vec<_> = left.iter().map(|(_, server)| *server).collect();
            let expected = Rendezvous::new(&few).map(|few| left[few.choose(hash)].0);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(any, Some(Rendezvous::new(&servers).unwrap().choose(hash)));
        }
    }
}
