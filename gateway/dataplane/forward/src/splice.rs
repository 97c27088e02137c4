//! Connections that began with a SYN cookie: what it takes to join the client's sequence numbers to the server's.
//!
//! A set-associative table in fixed memory: a set is eight tags and eight entries of one cache line each, found by the
//! flow's hash, told apart by the whole tuple. What is past its deadline is as good as free. It takes memory only as it is
//! first used.

use crate::hash::Tuple;

const WAYS: usize = 8;
const ENTRY: usize = 8;
const IS_OPEN: u64 = 1 << 8;
const HAS_SACK: u64 = 1 << 9;
const TRIES_AT: u32 = 16;
const TUPLE: u64 = !0x00FF_FFFF;

/// One connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Splice {
    /// In the direction of its requests.
    pub(crate) flow: Tuple,
    /// Its state, see [`crate::connection`].
    pub(crate) state: u8,
    /// The sequence number that the client was given for the server's.
    pub(crate) cookie: u32,
    pub(crate) client_isn: u32,
    /// Means nothing before it is open.
    pub(crate) server_isn: u32,
    /// The server has answered.
    pub(crate) is_open: bool,
    pub(crate) backend: u32,
    /// What the client's SYN said, for the SYN to the server.
    pub(crate) mss: u16,
    pub(crate) sack: bool,
    /// The window of the end that is to be told it next: the client's before the server has answered, then the server's.
    pub(crate) window: u16,
    /// SYNs sent to the server.
    pub(crate) tries: u8,
    /// Forgotten at this time [s].
    pub(crate) deadline: u32,
}

impl Splice {
    /// What turns the server's sequence numbers into those that the client knows.
    pub(crate) const fn delta(&self) -> u32 {
        self.cookie.wrapping_sub(self.server_isn)
    }

    fn pack(&self) -> [u64; ENTRY] {
        let [a, b, c, d, e] = self.flow.words();
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let flags = if self.is_open { IS_OPEN } else { 0 } | if self.sack { HAS_SACK } else { 0 };
        let small = u64::from(self.state) | flags | u64::from(self.tries) << TRIES_AT;
        let sizes = u32::from(self.window) << 16 | u32::from(self.mss);
        [
            a,
            b,
            c,
            d,
            e | small,
            pair(self.cookie, self.client_isn),
            pair(self.server_isn, self.backend),
            pair(self.deadline, sizes),
        ]
    }

    fn unpack(words: &[u64; ENTRY]) -> Self {
        let [a, b, c, d, small, isns, server, last] = *words;
        let address = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        Self {
            flow: Tuple {
                src: address(a, b),
                dst: address(c, d),
                src_port: (small >> 48) as u16,
                dst_port: (small >> 32) as u16,
                protocol: (small >> 24) as u8,
            },
            state: small as u8,
            cookie: (isns >> 32) as u32,
            client_isn: isns as u32,
            server_isn: (server >> 32) as u32,
            is_open: small & IS_OPEN != 0,
            backend: server as u32,
            mss: last as u16,
            sack: small & HAS_SACK != 0,
            window: (last >> 16) as u16,
            tries: (small >> TRIES_AT) as u8,
            deadline: (last >> 32) as u32,
        }
    }
}

/// A place in the table: good until another connection takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// One worker's.
#[derive(Debug, Default)]
pub(crate) struct Splices {
    tags: Vec<[u64; WAYS / 4]>,
    entries: Vec<[u64; ENTRY]>,
    active: usize,
    /// How far a sweep has come.
    swept: usize,
}

impl Splices {
    /// A table for about `capacity` connections.
    pub(crate) fn new(capacity: usize) -> Self {
        // Half full, a set overflows about once in ten thousand.
        let sets = (2 * capacity).div_ceil(WAYS).next_power_of_two();
        Self { tags: vec![[0; WAYS / 4]; sets], entries: vec![[0; ENTRY]; sets * WAYS], active: 0, swept: 0 }
    }

    /// Look a connection up. `now` in seconds.
    pub(crate) fn find(&mut self, hash: u64, flow: &Tuple, now: u32) -> Option<(Slot, Splice)> {
        if self.active == 0 {
            return None;
        }
        let words = flow.words();
        let set = self.set_of(hash);
        for way in 0..WAYS {
            if self.tag(set, way) != tag_of(hash) {
                continue;
            }
            let slot = Slot(set * WAYS + way);
            let Some(entry) = self.entries.get(slot.0) else { continue };
            if entry[..4] != words[..4] || entry[4] & TUPLE != words[4] {
                continue;
            }
            let splice = Splice::unpack(entry);
            if splice.deadline <= now {
                self.remove(slot);
                return None;
            }
            return Some((slot, splice));
        }
        None
    }

    /// What stands at a place, if it is the connection of this cookie still. `now` in seconds.
    pub(crate) fn at(&self, slot: Slot, cookie: u32, now: u32) -> Option<Splice> {
        if self.tag(slot.0 / WAYS, slot.0 % WAYS) == 0 {
            return None;
        }
        let splice = Splice::unpack(self.entries.get(slot.0)?);
        (splice.cookie == cookie && splice.deadline > now).then_some(splice)
    }

    /// A free place for a flow of this hash; `None` when all that it could have are taken. `now` in seconds.
    pub(crate) fn room(&mut self, hash: u64, now: u32) -> Option<Slot> {
        if self.tags.is_empty() {
            return None;
        }
        let set = self.set_of(hash);
        let is_free = |way: &usize| {
            let is_past = |entry: &[u64; ENTRY]| (entry[7] >> 32) as u32 <= now;
            self.tag(set, *way) == 0 || self.entries.get(set * WAYS + way).is_some_and(is_past)
        };
        let slot = (0..WAYS).find(is_free).map(|way| Slot(set * WAYS + way))?;
        self.remove(slot);
        Some(slot)
    }

    /// Put a connection at its place, or at one that [`Splices::room`] gave for its hash.
    pub(crate) fn put(&mut self, slot: Slot, hash: u64, splice: &Splice) {
        let (set, way) = (slot.0 / WAYS, slot.0 % WAYS);
        let Some(entry) = self.entries.get_mut(slot.0) else { return };
        *entry = splice.pack();
        self.active += usize::from(self.tag(set, way) == 0);
        self.set_tag(set, way, tag_of(hash));
    }

    /// The same connection in another state.
    pub(crate) fn set(&mut self, slot: Slot, splice: &Splice) {
        if let Some(entry) = self.entries.get_mut(slot.0) {
            *entry = splice.pack();
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let (set, way) = (slot.0 / WAYS, slot.0 % WAYS);
        self.active -= usize::from(self.tag(set, way) != 0);
        self.set_tag(set, way, 0);
    }

    /// Forget what is past its deadline in a part of the table, and show what is not: all of it in `parts` calls, of which
    /// the last returns true. `now` in seconds.
    pub(crate) fn sweep(&mut self, parts: usize, now: u32, mut show: impl FnMut(&Splice)) -> bool {
        let end = (self.swept + self.tags.len().div_ceil(parts.max(1))).min(self.tags.len());
        for set in self.swept..end {
            for way in 0..WAYS {
                if self.tag(set, way) == 0 {
                    continue;
                }
                let slot = Slot(set * WAYS + way);
                match self.entries.get(slot.0).map(Splice::unpack) {
                    Some(splice) if splice.deadline > now => show(&splice),
                    _ => self.remove(slot),
                }
            }
        }
        let is_whole = end == self.tags.len();
        self.swept = if is_whole { 0 } else { end };
        is_whole
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.active == 0
    }

    fn set_of(&self, hash: u64) -> usize {
        hash as usize & self.tags.len().wrapping_sub(1)
    }

    fn tag(&self, set: usize, way: usize) -> u16 {
        self.tags.get(set).map_or(0, |tags| (tags[way / 4] >> (way % 4 * 16)) as u16)
    }

    fn set_tag(&mut self, set: usize, way: usize, tag: u16) {
        if let Some(tags) = self.tags.get_mut(set) {
            let shift = way % 4 * 16;
            let word = &mut tags[way / 4];
            *word = *word & !(0xFFFF << shift) | u64::from(tag) << shift;
        }
    }
}

/// Bits that the set's number does not use; never 0, which marks a free place.
const fn tag_of(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::tests::tuples;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn splices() -> impl Strategy<Value = Splice> {
        let numbers = any::<(u32, u32, u32, u32, u32)>();
        (tuples(), numbers, any::<(u8, u8, u16, u16, bool, bool)>()).prop_map(|(flow, numbers, small)| {
            let (cookie, client_isn, server_isn, backend, deadline) = numbers;
            let (state, tries, mss, window, is_open, sack) = small;
            Splice { flow, state, cookie, client_isn, server_isn, is_open, backend, mss, sack, window, tries, deadline }
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16, u32, u32),
        Find(u16),
        Remove(u16),
        Wait(u32),
        Sweep,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = 0u16..60;
        let step = prop_oneof![
            4 => (name.clone(), any::<u32>(), 1u32..40).prop_map(|(name, cookie, lasts)| Step::Put(name, cookie, lasts)),
            4 => name.clone().prop_map(Step::Find),
            1 => name.prop_map(Step::Remove),
            1 => (1u32..20).prop_map(Step::Wait),
            1 => Just(Step::Sweep),
        ];
        prop::collection::vec(step, 1..400)
    }

    fn flow(name: u16) -> Tuple {
        Tuple { src: 0xFFFF_0A00_0001, dst: 0xFFFF_0A00_0002, src_port: name, dst_port: 80, protocol: 6 }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(splice in splices()) {
            prop_assert_eq!(Splice::unpack(&splice.pack()), splice);
        }

        /// Against a plain map. Two sets of eight hold what may be 60 connections: some are refused, none is mistaken.
        #[test]
        fn as_a_map(steps in steps()) {
            let mut table = Splices::new(8);
            let mut map: HashMap<u16, (u32, u32)> = HashMap::new();
            let mut now = 100;
            // Few tags, so that they collide.
            let hash = |name: u16| u64::from(name % 2) | u64::from(name % 3) << 48;
            for step in steps {
                match step {
                    Step::Put(name, cookie, lasts) => {
                        let slot = match table.find(hash(name), &flow(name), now) {
                            Some((slot, _)) => Some(slot),
                            None => table.room(hash(name), now),
                        };
                        let alive = |other: &u16| hash(*other) & 1 == hash(name) & 1 && map[other].1 > now;
                        let there = map.keys().filter(|other| alive(other)).count();
                        let is_known = map.get(&name).is_some_and(|known| known.1 > now);
                        prop_assert_eq!(slot.is_some(), is_known || there < WAYS);
                        if let Some(slot) = slot {
                            let deadline = now + lasts;
                            table.put(slot, hash(name), &Splice { flow: flow(name), cookie, deadline, ..Splice::default() });
                            map.insert(name, (cookie, deadline));
                        }
                    }
                    Step::Find(name) => {
                        let found = table.find(hash(name), &flow(name), now);
                        let known = map.get(&name).filter(|known| known.1 > now);
                        prop_assert_eq!(found.map(|(_, splice)| splice.cookie), known.map(|known| known.0));
                        if let Some((slot, splice)) = found {
                            prop_assert_eq!(table.at(slot, splice.cookie, now), Some(splice));
                            prop_assert_eq!(table.at(slot, !splice.cookie, now), None);
                        }
                    }
                    Step::Remove(name) => {
                        if let Some((slot, _)) = table.find(hash(name), &flow(name), now) {
                            table.remove(slot);
                        }
                        map.remove(&name);
                    }
                    Step::Wait(seconds) => now += seconds,
                    Step::Sweep => {
                        let mut shown = Vec::new();
                        while !table.sweep(2, now, |splice| shown.push(splice.flow.src_port)) {}
                        shown.sort_unstable();
                        map.retain(|_, known| known.1 > now);
                        let mut known: Vec<u16> = map.keys().copied().collect();
                        known.sort_unstable();
                        prop_assert_eq!(shown, known);
                        prop_assert_eq!(table.is_empty(), map.is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn without_memory_there_is_no_room() {
        let mut none = Splices::default();
        assert_eq!((none.find(5, &flow(1), 0), none.room(5, 0)), (None, None));
        none.put(Slot(3), 5, &Splice::default());
        none.remove(Slot(3));
        assert_eq!(none.find(5, &flow(1), 0), None);
    }
}
