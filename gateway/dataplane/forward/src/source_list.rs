//! A list of source prefixes: whether an address lies in any of them. Made once, then only read.
//!
//! Prefixes become ranges, ranges that overlap or touch become one, and only their ends are kept, sorted: an address is in
//! the list when an odd number of ends lies at or below it. A first level of about as many places as there are ends says
//! where to search, so that a lookup reads one place of it and mostly one cache line of ends, however long the list.

use tgw_contract::colour::Prefix;

use crate::packet::is_v4;

const V4_FIRST: u128 = 0xFFFF_0000_0000;
const V4_LAST: u128 = 0xFFFF_FFFF_FFFF;

/// The list. IPv4 prefixes take about 8 to 16 bytes, IPv6 ones up to /64 16 to 24, longer ones 32 to 40.
#[derive(Debug, Default)]
pub(crate) struct SourceList {
    v4: Ends<u32>,
    /// By the high half of the address: whatever is not longer than /64.
    v6: Ends<u64>,
    v6_long: Ends<u128>,
}

impl SourceList {
    /// The list of these prefixes, in any order.
    pub(crate) fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Self {
        let (mut v4, mut v6, mut v6_long) = (Vec::new(), Vec::new(), Vec::new());
        for prefix in prefixes {
            let (first, last) = (prefix.first(), prefix.last());
            // Shorter ones that hold the mapped addresses, such as ::/0, mean IPv6 alone: an operator who lists all of it
            // has said nothing of IPv4.
            if first >= V4_FIRST && last <= V4_LAST {
                v4.push((first as u32, last as u32));
            } else if first as u64 == 0 && last as u64 == u64::MAX {
                v6.push(((first >> 64) as u64, (last >> 64) as u64));
            } else {
                v6_long.push((first, last));
            }
        }
        Self { v4: Ends::new(v4), v6: Ends::new(v6), v6_long: Ends::new(v6_long) }
    }

    /// Whether an address (mapped) lies in one of the prefixes.
    pub(crate) fn contains(&self, address: u128) -> bool {
        if is_v4(address) {
            self.v4.contains(address as u32)
        } else {
            self.v6.contains((address >> 64) as u64) || self.v6_long.contains(address)
        }
    }

    /// Memory that it takes [bytes].
    #[cfg(test)]
    fn size(&self) -> usize {
        fn of<T>(ends: &Ends<T>) -> usize {
            ends.ends.len() * size_of::<T>() + ends.places.len() * 4
        }
        of(&self.v4) + of(&self.v6) + of(&self.v6_long)
    }
}

trait Key: Copy + Ord {
    const BITS: u32;
    fn next(self) -> Option<Self>;
    /// How far above `low` it lies, and that in steps of 2^`shift`.
    fn place(self, low: Self, shift: u32) -> usize;
    /// Bits that tell the distance from `low`.
    fn width(self, low: Self) -> u32;
}

macro_rules! key {
    ($($integer:ty),*) => {$(
        impl Key for $integer {
            const BITS: u32 = <$integer>::BITS;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn place(self, low: Self, shift: u32) -> usize {
                (self.wrapping_sub(low) >> shift) as usize
            }
            fn width(self, low: Self) -> u32 {
                Self::BITS - self.wrapping_sub(low).leading_zeros()
            }
        }
    )*};
}
key!(u32, u64, u128);

/// The ends of disjoint ranges: first of one, what follows its last, first of the next, ...; a range up to the highest key
/// has no second end.
#[derive(Debug)]
struct Ends<K> {
    ends: Vec<K>,
    /// By a key's place above the first end: how many ends lie below the keys of that place. One more at the end.
    places: Vec<u32>,
    shift: u32,
}

impl<K> Default for Ends<K> {
    fn default() -> Self {
        Self { ends: Vec::new(), places: Vec::new(), shift: 0 }
    }
}

impl<K: Key> Ends<K> {
    fn new(mut ranges: Vec<(K, K)>) -> Self {
        ranges.sort_unstable();
        let mut ends: Vec<K> = Vec::with_capacity(2 * ranges.len());
        for (first, last) in ranges {
            match (ends.len() % 2, ends.last().copied()) {
                // The one before goes up to the highest key.
                (1, _) => break,
                (_, Some(end)) if first <= end => {
                    ends.pop();
                    ends.extend(last.next().map(|after| after.max(end)));
                }
                _ => {
                    ends.push(first);
                    ends.extend(last.next());
                }
            }
        }
        ends.shrink_to_fit();
        let (Some(&low), Some(&high)) = (ends.first(), ends.last()) else { return Self::default() };
        // Two to four ends for a place, if they are spread evenly.
        let bits = ends.len().next_power_of_two().trailing_zeros().saturating_sub(2).clamp(1, K::BITS);
        let shift = high.width(low).saturating_sub(bits);
        let mut places = vec![0; high.place(low, shift) + 2];
        for end in &ends {
            places[end.place(low, shift) + 1] += 1;
        }
        let mut below = 0;
        for place in &mut places {
            below += *place;
            *place = below;
        }
        Self { ends, places, shift }
    }

    fn contains(&self, key: K) -> bool {
        let (Some(&low), Some(&high)) = (self.ends.first(), self.ends.last()) else { return false };
        if key < low {
            return false;
        }
        if key >= high {
            return self.ends.len() % 2 == 1;
        }
        let place = key.place(low, self.shift);
        let below = match self.places.get(place..).and_then(|places| places.first_chunk::<2>()) {
            Some(&[from, to]) => {
                let (from, to) = (from as usize, to as usize);
                from + self.ends.get(from..to).unwrap_or_default().partition_point(|end| *end <= key)
            }
            None => self.ends.len(),
        };
        below % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use tgw_contract::colour::mapped;

    fn list(texts: &[&str]) -> SourceList {
        SourceList::new(texts.iter().map(|text| Prefix::parse(text).unwrap()))
    }

    fn holds(list: &SourceList, address: &str) -> bool {
        list.contains(mapped(address.parse().unwrap()))
    }

    #[test]
    fn edges_of_ranges() {
        let list = list(&["10.0.0.0/9", "10.128.0.0/9", "192.0.2.7/32", "255.0.0.0/8", "0.0.0.0/32"]);
        for inside in ["10.0.0.0", "10.127.255.255", "10.128.0.0", "10.255.255.255", "192.0.2.7", "255.255.255.255"] {
            assert!(holds(&list, inside), "{inside}");
        }
        assert!(holds(&list, "0.0.0.0") && !holds(&list, "0.0.0.1"));
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "254.255.255.255", "::1", "::"] {
            assert!(!holds(&list, outside), "{outside}");
        }
        assert_eq!(list.v4.ends.len(), 2 + 2 + 2 + 1, "touching ranges are one");
    }

    #[test]
    fn nothing_and_everything() {
        let none = list(&[]);
        assert!(!holds(&none, "10.0.0.1") && !holds(&none, "2001:db8::1"));
        let all = list(&["::/0", "10.0.0.0/8", "2001:db8::/32"]);
        assert!(holds(&all, "10.1.2.3") && holds(&all, "::"));
        assert!(holds(&all, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        let v4 = list(&["0.0.0.0/0"]);
        assert!(holds(&v4, "0.0.0.0") && holds(&v4, "255.255.255.255") && !holds(&v4, "2001:db8::1"));
        let mapped_v6 = list(&["::ffff:10.0.0.0/104"]);
        assert!(holds(&mapped_v6, "10.1.2.3") && !holds(&mapped_v6, "11.0.0.0"));
    }

    #[test]
    fn all_of_ipv6_is_nothing_of_ipv4() {
        for whole in ["::/0", "::/64", "::/80", "::fffe:0:0/95"] {
            let list = list(&[whole, "192.0.2.0/24"]);
            assert!(holds(&list, "::fffe:0:1"), "{whole}");
            assert!(!holds(&list, "0.0.0.0") && !holds(&list, "198.51.100.1"), "{whole}");
            assert!(!holds(&list, "255.255.255.255") && holds(&list, "192.0.2.9"), "{whole}");
        }
        let all = list(&["::/0", "0.0.0.0/0"]);
        assert!(holds(&all, "0.0.0.0") && holds(&all, "255.255.255.255") && holds(&all, "2001:db8::1"));
    }

    #[test]
    fn long_and_short_ipv6() {
        let list = list(&["2001:db8::/32", "2001:db9::5/128", "fd00:0:0:1::/64"]);
        assert!(holds(&list, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff") && !holds(&list, "2001:db9::4"));
        assert!(holds(&list, "2001:db9::5") && !holds(&list, "2001:db9::6"));
        assert!(holds(&list, "fd00:0:0:1::9") && !holds(&list, "fd00:0:0:2::"));
    }

    /// Prefixes close together, so that they overlap and touch, and addresses at and near their edges.
    fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
        let v4 = (any::<u32>(), 0..=32u32).prop_map(|(bits, length)| {
            let bits = bits & 0x0300_0F0F & u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from_bits(bits))
        });
        let v6 = (any::<u128>(), 0..=128u32).prop_map(|(bits, length)| {
            let few = bits & (0x3 << 120 | 0xF << 64 | 0xF << 60 | 0xF) | 0x20 << 120;
            format!("{}/{length}", Ipv6Addr::from_bits(few & u128::MAX.checked_shl(128 - length).unwrap_or(0)))
        });
        let text = prop_oneof![8 => v4, 8 => v6];
        prop::collection::vec(text.prop_map(|text| Prefix::parse(&text).unwrap()), 0..200)
    }

    proptest! {
        #[test]
        fn as_asking_each_prefix(prefixes in prefixes(), more in prop::collection::vec(any::<u128>(), 32)) {
            let list = SourceList::new(prefixes.iter().copied());
            let edges = prefixes.iter().flat_map(|prefix| {
                let (first, last) = (prefix.first(), prefix.last());
                [first, last, first.wrapping_sub(1), last.wrapping_add(1), first ^ 1 << 40]
            });
            let v4 = more.iter().map(|address| V4_FIRST | address & 0x0300_0F0F);
            for address in edges.chain(v4).chain(more.iter().copied()) {
                let of_family = |p: &Prefix| (is_v4(p.first()) && is_v4(p.last())) == is_v4(address);
                let any = prefixes.iter().any(|prefix| of_family(prefix) && prefix.contains(address));
                prop_assert_eq!(list.contains(address), any, "{:?}", IpAddr::V6(Ipv6Addr::from_bits(address)));
            }
        }
    }

    /// Time of a lookup and memory of a prefix in lists of a million: `cargo test --release -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn a_million_prefixes() {
        use crate::hash::mix;
        const COUNT: u64 = 1_000_000;
        let v4 = |n: u64, bits: u32| {
            let length = 32 - bits;
            let address = (mix(n) as u32) >> bits << bits;
            Prefix::parse(&format!("{}/{length}", Ipv4Addr::from_bits(address))).unwrap()
        };
        let v6 = |n: u64| {
            let address = 0x2000_u128 << 112 | u128::from(mix(n) >> 3) << 64;
            Prefix::parse(&format!("{}/64", Ipv6Addr::from_bits(address))).unwrap()
        };
        let random_v4 = |n: u64| V4_FIRST | u128::from(mix(!n) as u32);
        let random_v6 = |n: u64| 0x2000_u128 << 112 | u128::from(mix(!n) >> 3) << 64;
        type Address<'a> = &'a dyn Fn(u64) -> u128;
        let cases: [(&str, Vec<Prefix>, Address<'_>); 4] = [
            ("IPv4 /32", (0..COUNT).map(|n| v4(n, 0)).collect(), &random_v4),
            ("IPv4 /24 and /32", (0..COUNT).map(|n| v4(n, if n % 8 == 0 { 8 } else { 0 })).collect(), &random_v4),
            ("IPv4 /32 of one /8", (0..COUNT).map(|n| v4_in(mix(n) as u32 >> 8)).collect(), &|n| {
                V4_FIRST | 10 << 24 | u128::from(mix(!n) as u32 >> 8)
            }),
            ("IPv6 /64", (0..COUNT).map(v6).collect(), &random_v6),
        ];
        for (name, prefixes, address) in cases {
            let made = std::time::Instant::now();
            let list = SourceList::new(prefixes);
            let made = made.elapsed();
            let addresses: Vec<u128> = (0..4_000_000).map(address).collect();
            let start = std::time::Instant::now();
            let inside = addresses.iter().filter(|address| list.contains(**address)).count();
            let each = start.elapsed().as_secs_f64() * 1e9 / addresses.len() as f64;
            let size = list.size() as f64 / COUNT as f64;
            println!("{name}: {each:.1} ns a lookup, {size:.1} bytes a prefix, made in {made:?}, {inside} inside");
        }
    }

    fn v4_in(low: u32) -> Prefix {
        Prefix::parse(&format!("{}/32", Ipv4Addr::from_bits(10 << 24 | low))).unwrap()
    }
}
