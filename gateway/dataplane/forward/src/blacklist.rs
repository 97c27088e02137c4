//! Client addresses that were learned as nuisances from repeated drops.
//!
//! An address can be forged, so it is never proof alone. What is learned is only what a packet says by itself (a port
//! where nobody listens, flags or lengths that no stack sends, an acknowledgement of no cookie), never that a VIP was
//! over a limit: that a flood causes, and then it strikes the innocent too. And what is blacklisted loses new
//! connections only: those that it has go on, and where the VIP has SYN cookies, a client that answers one gets in.
//!
//! Fixed memory: sets of four, one cache line each. A newcomer to a full set wears the smallest count there down by one,
//! and takes its place when that was the last: counts are never too high, so nobody is blacklisted for what others did.

use tgw_contract::DropReason;

use crate::hash::{fold, mix};
use crate::packet::is_v4;

/// Sets of a worker: 256 KiB.
const SETS: usize = 4096;
const WAYS: usize = 4;

/// From when on an address is a nuisance, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Drops that make one, seen by the same worker.
    pub(crate) events: u32,
    /// Within so long [s].
    pub(crate) window_s: u32,
    /// It stays one for so long [s].
    pub(crate) ttl_s: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Hash of the address; 0 for a free place.
    key: u64,
    /// Drops since `since`; [`BLACKLISTED`] once they were too many.
    count: u32,
    since: u32,
}

const BLACKLISTED: u32 = u32::MAX;

/// One worker's memory.
#[derive(Debug)]
pub(crate) struct Blacklist {
    rule: Rule,
    seed: u64,
    sets: Vec<[Entry; WAYS]>,
    /// When the last of those on it goes [s]: nobody is on it afterwards.
    until: u32,
}

impl Blacklist {
    pub(crate) fn new(rule: Rule, seed: u64) -> Self {
        Self { rule, seed: mix(seed), sets: vec![[Entry::default(); WAYS]; SETS], until: 0 }
    }

    /// The same memory under another rule.
    pub(crate) fn at_rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Whether a drop for this reason counts against its source.
    pub(crate) const fn counts(reason: DropReason) -> bool {
        matches!(
            reason,
            DropReason::NoListener
                | DropReason::SynCookieBad
                | DropReason::BadTcpFlags
                | DropReason::BadLength
                | DropReason::MalformedQuic
        )
    }

    /// A packet of this address (mapped) died of a reason that counts. `now` in seconds.
    pub(crate) fn learn(&mut self, address: u128, now: u32) {
        let key = self.key(address);
        let rule = self.rule;
        let at = self.set_of(key);
        let Some(set) = self.sets.get_mut(at) else { return };
        for entry in set.iter_mut() {
            if entry.key != 0 && entry.is_old(rule, now) {
                *entry = Entry::default();
            }
        }
        let place = set.iter().position(|entry| entry.key == key).or_else(|| set.iter().position(|e| e.key == 0));
        let Some(place) = place else {
            if let Some(least) = set.iter_mut().min_by_key(|entry| entry.count) {
                match least.count {
                    BLACKLISTED => {}
                    0 | 1 => *least = Entry { key, count: 1, since: now },
                    _ => least.count -= 1,
                }
            }
            return;
        };
        let Some(entry) = set.get_mut(place) else { return };
        if entry.key == 0 {
            *entry = Entry { key, count: 0, since: now };
        }
        if entry.count == BLACKLISTED {
            return;
        }
        entry.count += 1;
        if entry.count >= rule.events {
            *entry = Entry { key, count: BLACKLISTED, since: now };
            self.until = self.until.max(now.saturating_add(rule.ttl_s));
        }
    }

    /// Whether this address (mapped) is on the list. `now` in seconds.
    pub(crate) fn holds(&self, address: u128, now: u32) -> bool {
        if now >= self.until {
            return false;
        }
        let key = self.key(address);
        let Some(set) = self.sets.get(self.set_of(key)) else { return false };
        set.iter().any(|entry| entry.key == key && entry.count == BLACKLISTED && !entry.is_old(self.rule, now))
    }

    fn set_of(&self, key: u64) -> usize {
        key as usize & (self.sets.len() - 1)
    }

    /// IPv4 addresses count one by one, IPv6 ones by /64, which is what one client has.
    fn key(&self, address: u128) -> u64 {
        let high = if is_v4(address) { 0 } else { (address >> 64) as u64 };
        let low = if is_v4(address) { address as u64 } else { 0 };
        // 0 is a free place. The low bits choose the set.
        fold(mix(high ^ self.seed), low ^ self.seed.rotate_left(32)).max(1)
    }
}

impl Entry {
    fn is_old(&self, rule: Rule, now: u32) -> bool {
        let lasts = if self.count == BLACKLISTED { rule.ttl_s } else { rule.window_s };
        now.saturating_sub(self.since) >= lasts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const RULE: Rule = Rule { events: 3, window_s: 10, ttl_s: 60 };

    fn v4(n: u32) -> u128 {
        0xFFFF_0000_0000 | u128::from(n)
    }

    #[test]
    fn enough_drops_within_the_window_and_only_for_a_while() {
        let mut list = Blacklist::new(RULE, 1);
        for now in [100, 101] {
            list.learn(v4(1), now);
            assert!(!list.holds(v4(1), now));
        }
        list.learn(v4(1), 109);
        assert!(list.holds(v4(1), 109) && list.holds(v4(1), 168) && !list.holds(v4(2), 109));
        assert!(!list.holds(v4(1), 169));
        // Too slow: the window begins anew.
        for now in [200, 209, 210, 219, 220, 229] {
            list.learn(v4(1), now);
            assert!(!list.holds(v4(1), now), "{now}");
        }
    }

    #[test]
    fn a_site_of_ipv6_is_one_client() {
        let mut list = Blacklist::new(RULE, 1);
        let base = 0x2001_0DB8_u128 << 96;
        (0..3).for_each(|n| list.learn(base | n, 5));
        assert!(list.holds(base | 99, 5) && !list.holds(base | 1 << 64, 5));
    }

    #[test]
    fn what_a_flood_causes_to_others_does_not_count() {
        for reason in [DropReason::PacketLimit, DropReason::ByteLimit, DropReason::FlowLimit, DropReason::NoBackend] {
            assert!(!Blacklist::counts(reason), "{}", reason.name());
        }
        assert!(Blacklist::counts(DropReason::NoListener) && Blacklist::counts(DropReason::SynCookieBad));
    }

    #[test]
    fn one_who_goes_on_is_found_among_many_who_do_not() {
        let mut list = Blacklist::new(Rule { events: 20, ..RULE }, 1);
        list.sets.truncate(16);
        // 4000 addresses once each, one in between again and again.
        for n in 0..4000 {
            list.learn(v4(1000 + n), 5);
            if n % 20 == 0 {
                list.learn(v4(7), 5);
            }
        }
        assert!(list.holds(v4(7), 5));
        assert!((0..4000).all(|n| !list.holds(v4(1000 + n), 5)));
    }

    proptest! {
        /// In however small a table: who is on the list has deserved it, by its own drops within a window.
        #[test]
        fn nobody_is_blamed_for_others(drops in prop::collection::vec((0u32..40, 0u32..4), 1..600)) {
            let mut list = Blacklist::new(RULE, 1);
            list.sets.truncate(2);
            let mut own: HashMap<u32, Vec<u32>> = HashMap::new();
            let mut now = 50;
            for (address, step) in drops {
                now += step;
                list.learn(v4(address), now);
                own.entry(address).or_default().push(now);
                for (address, times) in &own {
                    let deserved = times.windows(RULE.events as usize).any(|few| {
                        few[few.len() - 1] - few[0] < RULE.window_s && now - few[few.len() - 1] < RULE.ttl_s
                    });
                    prop_assert!(deserved || !list.holds(v4(*address), now), "{}", address);
                }
            }
        }
    }
}
