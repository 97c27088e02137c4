//! Maglev hashing with weights: which real server a new connection goes to.
//!
//! After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI '16), section 3.4. The table
//! depends on the ids and weights of the real servers alone, not on their order: every LD of every cluster that has the same
//! servers makes the same choice, so a connection survives its move to another one.

use crate::hash::mix;

/// Sizes of tables, all prime. A table takes the first one that is at least a hundred times its number of real servers (the
/// paper: then no share is off by more than 1 %). They are few and far apart, because a table of another size is another
/// choice for almost every new connection: servers come and go a hundred times before that happens once.
pub const SIZES: [u32; 4] = [4099, 16_411, 65_537, 262_147];
/// Entries of a table for each real server, at least.
const ENTRIES_PER_SERVER: usize = 100;

/// A lookup table.
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    /// Index of the chosen one of those given.
    entries: Vec<u16>,
}

/// The preference list of one real server: offset, offset + skip, offset + 2 skip, ... modulo the table's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Where it begins, below the size.
    pub offset: u32,
    /// From 1 to the size - 1.
    pub skip: u32,
    /// How many turns it gets, in proportion to the others.
    pub weight: u32,
}

impl Preference {
    fn of(id: u32, weight: u32, size: u32) -> Self {
        let offset = mix(u64::from(id)) % u64::from(size);
        let skip = mix(u64::from(id) | 1 << 32) % u64::from(size - 1) + 1;
        Self { offset: offset as u32, skip: skip as u32, weight }
    }
}

impl Maglev {
    /// The table for real servers by (id, weight). `None` when none has a weight, or there are more than 65535. Servers
    /// without a weight count for the size, so that draining one does not change it.
    #[must_use]
    pub fn new(servers: &[(u32, u32)]) -> Option<Self> {
        Self::with_size(servers, size_for(servers.len()))
    }

    /// The same in a table of `size` entries, which must be prime.
    fn with_size(servers: &[(u32, u32)], size: u32) -> Option<Self> {
        let mut order: Vec<u16> = (0..u16::try_from(servers.len()).ok()?).collect();
        order.sort_by_key(|&index| servers[usize::from(index)].0);
        let sorted: Vec<Preference> = order
            .iter()
            .map(|&index| servers[usize::from(index)])
            .map(|(id, weight)| Preference::of(id, weight, size))
            .collect();
        let entries = populate(&sorted, size)?;
        Some(Self { entries: entries.iter().map(|&place| order[usize::from(place)]).collect() })
    }

    /// The index, among those given, of the server for a hash.
    #[must_use]
    pub fn choose(&self, hash: u64) -> usize {
        // The high half, scaled: the low bits serve elsewhere.
        let place = ((hash >> 32) * self.entries.len() as u64) >> 32;
        self.entries.get(place as usize).copied().unwrap_or(0).into()
    }
}

/// The size of a table for so many real servers.
fn size_for(servers: usize) -> u32 {
    let fits = |size: &u32| *size as usize >= servers * ENTRIES_PER_SERVER;
    SIZES.into_iter().find(fits).unwrap_or(SIZES[SIZES.len() - 1])
}

/// Fill a table of `size` (prime) entries: who is the most behind its share takes its next preference that is free.
fn populate(preferences: &[Preference], size: u32) -> Option<Vec<u16>> {
    const FREE: u16 = u16::MAX;
    let top = preferences.iter().map(|p| p.weight).max().filter(|&weight| weight > 0)?;
    let mut entries = vec![FREE; size as usize];
    let mut next: Vec<u32> = preferences.iter().map(|p| p.offset % size).collect();
    let mut credit = vec![0u64; preferences.len()];
    let mut filled = 0;
    loop {
        for (index, preference) in preferences.iter().enumerate() {
            credit[index] += u64::from(preference.weight);
            if credit[index] < u64::from(top) {
                continue;
            }
            credit[index] -= u64::from(top);
            let mut place = next[index];
            while entries[place as usize] != FREE {
                place = (place + preference.skip) % size;
            }
            entries[place as usize] = index as u16;
            next[index] = (place + preference.skip) % size;
            filled += 1;
            if filled == size {
                return Some(entries);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn preference(offset: u32, skip: u32) -> Preference {
        Preference { offset, skip, weight: 1 }
    }

    #[test]
    fn table_1_of_the_paper() {
        let (b0, b1, b2) = (preference(3, 4), preference(0, 2), preference(3, 1));
        assert_eq!(populate(&[b0, b1, b2], 7).unwrap(), [1, 0, 1, 0, 2, 2, 0]);
        assert_eq!(populate(&[b0, b2], 7).unwrap(), [0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn sizes_are_prime_and_a_hundred_times_the_servers() {
        for size in SIZES {
            assert!((2..).take_while(|d| d * d <= size).all(|d| !size.is_multiple_of(d)), "{size}");
        }
        for servers in 1..=1024 {
            assert!(size_for(servers) as usize >= 100 * servers);
        }
        assert_eq!(
            [1, 40, 41, 164, 165, 655, 656].map(size_for),
            [4099, 4099, 16_411, 16_411, 65_537, 65_537, 262_147]
        );
        let servers: Vec<_> = (1..=200).map(|id| (id, 1)).collect();
        assert_eq!(Maglev::new(&servers).unwrap().entries.len(), 65_537);
    }

    fn shares(maglev: &Maglev, servers: usize) -> Vec<usize> {
        let mut shares = vec![0; servers];
        maglev.entries.iter().for_each(|&index| shares[usize::from(index)] += 1);
        shares
    }

    #[test]
    fn equal_weights_share_equally() {
        let servers: Vec<_> = (1..=20).map(|id| (id, 100)).collect();
        let shares = shares(&Maglev::new(&servers).unwrap(), 20);
        assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
    }

    #[test]
    fn weights_are_kept_and_zero_gets_nothing() {
        let servers = [(1, 100), (2, 300), (3, 0), (4, 600)];
        let shares = shares(&Maglev::new(&servers).unwrap(), 4);
        assert_eq!(shares[2], 0);
        for (index, part) in [(0, 0.1), (1, 0.3), (3, 0.6)] {
            assert!((shares[index] as f64 / f64::from(SIZES[0]) - part).abs() < 0.002, "{shares:?}");
        }
        assert_eq!(Maglev::new(&[(1, 0)]), None);
        assert_eq!(Maglev::new(&[]), None);
    }

    #[test]
    fn a_lost_server_disturbs_few_others() {
        let servers: Vec<_> = (1..=20).map(|id| (id, 100)).collect();
        let before = Maglev::new(&servers).unwrap();
        let mut moved = 0;
        for gone in 0..20usize {
            let left: Vec<_> = servers.iter().copied().filter(|(id, _)| *id != servers[gone].0).collect();
            let after = Maglev::new(&left).unwrap();
            for (old, new) in before.entries.iter().zip(&after.entries) {
                let (old, new) = (servers[usize::from(*old)].0, left[usize::from(*new)].0);
                moved += usize::from(old != servers[gone].0 && old != new);
            }
        }
        // The paper's figure 12: the smaller the table per server, the more needless moves; a few per cent here.
        let share = moved as f64 / (20.0 * f64::from(SIZES[0]));
        assert!(share < 0.06, "{share}");
    }

    /// Servers that fail together, spread over the fleet: the share of entries that move though their server has not failed.
    fn needless_moves(size: u32, failures: usize) -> f64 {
        let servers: Vec<_> = (1..=1000).map(|id| (id, 1)).collect();
        let left: Vec<_> = servers
            .iter()
            .copied()
            .filter(|(id, _)| failures == 0 || !((id - 1) as usize).is_multiple_of(1000 / failures))
            .collect();
        assert_eq!(left.len(), 1000 - failures);
        let before = Maglev::with_size(&servers, size).unwrap();
        let after = Maglev::with_size(&left, size).unwrap();
        let alive: std::collections::HashSet<u32> = left.iter().map(|(id, _)| *id).collect();
        let moved = before.entries.iter().zip(&after.entries).filter(|(old, new)| {
            let (old, new) = (servers[usize::from(**old)].0, left[usize::from(**new)].0);
            old != new && alive.contains(&old)
        });
        moved.count() as f64 / f64::from(size)
    }

    /// The paper's figure 11: with 1000 backends Maglev's shares are even whatever the size of the table, where Karger's
    /// and rendezvous hashing's tables of 65537 entries need 29.7 % and 49.5 % more servers than an even split would.
    #[test]
    fn spread_as_published() {
        let servers: Vec<_> = (1..=1000).map(|id| (id, 1)).collect();
        for (size, excess) in [(65_537, 0.01), (655_373, 0.001)] {
            let shares = shares(&Maglev::with_size(&servers, size).unwrap(), 1000);
            let mean = f64::from(size) / 1000.0;
            let (most, least) = (*shares.iter().max().unwrap() as f64, *shares.iter().min().unwrap() as f64);
            assert!(most - least <= 1.0, "{size}: {least} to {most}");
            assert!(most / mean - 1.0 <= excess + 1.0 / mean, "{size}: {most} of {mean}");
        }
    }

    /// The paper's figure 12: with 1000 backends the larger table is the more resilient, and both move more, the more
    /// backends fail together.
    #[test]
    fn disruption_as_published() {
        let small: Vec<f64> = [0, 1, 5, 10, 20, 50].map(|failures| needless_moves(65_537, failures)).to_vec();
        let large: Vec<f64> = [0, 1, 5, 10, 20, 50].map(|failures| needless_moves(655_373, failures)).to_vec();
        assert_eq!((small[0], large[0]), (0.0, 0.0));
        for (one, other) in small.iter().zip(&large).skip(1) {
            assert!(other < one, "{small:?} {large:?}");
        }
        for series in [&small, &large] {
            assert!(series.windows(2).all(|pair| pair[0] < pair[1]), "{series:?}");
        }
        assert!(small[5] < 0.04 && large[5] < 0.012, "{small:?} {large:?}");
    }

    #[test]
    fn choices_cover_the_table() {
        let maglev = Maglev::new(&[(1, 1), (2, 1), (3, 1)]).unwrap();
        assert_eq!(maglev.choose(0), usize::from(maglev.entries[0]));
        assert_eq!(maglev.choose(u64::MAX), usize::from(maglev.entries[SIZES[0] as usize - 1]));
    }

    proptest! {
        #[test]
        fn the_order_of_servers_does_not_matter(mut ids in prop::collection::hash_set(1u32..1000, 1..30), hash in any::<u64>()) {
            let forward: Vec<_> = ids.drain().map(|id| (id, id % 7 + 1)).collect();
            let backward: Vec<_> = forward.iter().rev().copied().collect();
            let one = forward[Maglev::new(&forward).unwrap().choose(hash)];
            let other = backward[Maglev::new(&backward).unwrap().choose(hash)];
            prop_assert_eq!(one, other);
        }
    }
}
