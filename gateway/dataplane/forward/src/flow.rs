//! The flow table: connections of one worker, in fixed memory, without a lock.
//!
//! A bucket is one cache line: eight 16-bit tags, eight 16-bit deadlines, eight 32-bit entry numbers. A lookup reads the
//! bucket, and an entry only where a tag agrees; then the whole tuple is compared. A connection has two buckets, and the
//! second follows from the first and the tag, so that entries can be moved without hashing them again (cuckoo hashing with
//! partial keys). Expiry happens in the lookup: what is past its deadline is as good as free. Memory is taken from the
//! system as zeros and becomes real when first written, so an idle table is small.

use crate::hash::{mix, Tuple};
use crate::prefetch::prefetch;

const LANES: usize = 8;
/// Words of a bucket: two of tags, two of deadlines, four of entry numbers.
const BUCKET: usize = 8;
/// Words of an entry: five of the tuple (24 bits of the last hold the state), one of value.
const ENTRY: usize = 6;
const STATE_MASK: u64 = 0xFF;
/// An insertion moves at most so many others.
const MAX_MOVES: usize = 128;
/// Buckets that an insertion searches for dead flows when all entries are taken.
const SEARCHED: usize = 64;
/// Deadlines are 16 bits of seconds and compared as signed differences.
const HORIZON: u64 = 1 << 15;
/// Every bucket is visited at least once in so many seconds, so that no deadline is left behind by half the circle.
const CYCLE: u64 = 8192;
/// The longest that a flow may stay without a packet [s].
pub(crate) const MAX_TIMEOUT: u16 = 16_000;

/// Where a flow was found. Good until the next insertion, removal or sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    bucket: usize,
    lane: usize,
    entry: usize,
}

/// No room: both buckets are full of living flows that cannot be moved, or all entries are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The table.
pub(crate) struct FlowTable {
    words: Vec<u64>,
    /// Words to skip so that buckets start at cache lines.
    skip: usize,
    mask: usize,
    entries: Vec<[u64; ENTRY]>,
    /// Entries from here on were never used.
    fresh: usize,
    /// First of the freed entries, each of which names the next; number + 1, 0 for none.
    freed: u64,
    seed: u64,
    /// Seconds that have passed; a clock that was set back does not set it back.
    now: u64,
    /// What the caller's clock said last [s].
    clock: u64,
    swept: usize,
    /// Bucket-seconds since a bucket was last visited for the sake of time.
    owed: u64,
    created: u64,
    expired: u64,
    active: u64,
}

impl FlowTable {
    /// A table for `capacity` connections (at least 8, at most 2^31).
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(LANES, 1 << 31);
        // At most nine tenths full: two choices of eight lanes carry that without long chains of moves.
        let buckets = (capacity + capacity / 9).div_ceil(LANES).next_power_of_two().max(2);
        let words = vec![0u64; (buckets + 1) * BUCKET];
        let skip = match words.as_ptr().align_offset(64) {
            skip if skip < BUCKET => skip,
            _ => 0,
        };
        Self {
            words,
            skip,
            mask: buckets - 1,
            entries: vec![[0; ENTRY]; capacity],
            fresh: 0,
            freed: 0,
            seed: mix(seed),
            now: 0,
            clock: 0,
            swept: 0,
            owed: 0,
            created: 0,
            expired: 0,
            active: 0,
        }
    }

    pub(crate) fn hash(&self, tuple: &Tuple) -> u64 {
        tuple.hash(self.seed)
    }

    /// Ask for the cache line that a lookup of this hash reads first.
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(word) = self.words.get(self.at(self.first(hash))) {
            prefetch(word);
        }
    }

    /// Once that line has come: ask for the entry that its tag names, or for the other bucket when none does.
    pub(crate) fn prefetch_entry(&self, hash: u64) {
        let tag = tag_of(hash);
        let first = self.first(hash);
        let words = self.bucket(first);
        for (half, tags) in words.iter().take(2).enumerate() {
            let hits = zero_lanes(tags ^ spread(tag));
            if hits == 0 {
                continue;
            }
            let lane = half * 4 + hits.trailing_zeros() as usize / 16;
            if let Some(entry) = self.entries.get(self.entry_of(first, lane)) {
                // An entry may lie across two cache lines.
                prefetch(&entry[0]);
                prefetch(&entry[entry.len() - 1]);
            }
            return;
        }
        if let Some(word) = self.words.get(self.at(self.other(first, tag))) {
            prefetch(word);
        }
    }

    pub(crate) fn counters(&self) -> crate::FlowCounters {
        crate::FlowCounters { created: self.created, expired: self.expired, active: self.active }
    }

    /// It is `now` [s]. After a leap that 16 bits of deadline cannot tell, every flow is past its deadline; when the clock
    /// was set back, no time has passed.
    pub(crate) fn advance(&mut self, now: u64) {
        let passed = now.saturating_sub(self.clock);
        self.clock = now;
        self.now += passed;
        if self.active == 0 {
            return;
        }
        if passed >= HORIZON - u64::from(MAX_TIMEOUT) {
            self.clear();
            return;
        }
        self.owed += passed * (self.mask as u64 + 1);
        for _ in 0..self.owed / CYCLE {
            self.expire_next();
        }
        self.owed %= CYCLE;
    }

    /// Look a flow up.
    pub(crate) fn find(&mut self, hash: u64, tuple: &Tuple) -> Option<Found> {
        let tag = tag_of(hash);
        let words = tuple.words();
        let first = self.first(hash);
        for bucket in [first, self.other(first, tag)] {
            let [tags @ .., _, _, _, _, _, _] = *self.bucket(bucket);
            for (half, tags) in tags.iter().enumerate() {
                let mut hits = zero_lanes(tags ^ spread(tag));
                while hits != 0 {
                    let lane = half * 4 + hits.trailing_zeros() as usize / 16;
                    hits &= hits - 1;
                    let entry = self.entry_of(bucket, lane);
                    if self.tag_at(bucket, lane) != tag || !self.holds(entry, &words) {
                        continue;
                    }
                    if self.is_past(bucket, lane) {
                        self.remove(Found { bucket, lane, entry });
                        return None;
                    }
                    return Some(Found { bucket, lane, entry });
                }
            }
        }
        None
    }

    /// State of a flow.
    pub(crate) fn state(&self, found: Found) -> u8 {
        self.entries.get(found.entry).map_or(0, |entry| (entry[4] & STATE_MASK) as u8)
    }

    /// Value of a flow.
    pub(crate) fn value(&self, found: Found) -> u64 {
        self.entries.get(found.entry).map_or(0, |entry| entry[5])
    }

    /// Another state and value; it stays `timeout` [s] from now.
    pub(crate) fn set(&mut self, found: Found, state: u8, value: u64, timeout: u16) {
        if let Some(entry) = self.entries.get_mut(found.entry) {
            entry[4] = entry[4] & !STATE_MASK | u64::from(state);
            entry[5] = value;
        }
        let deadline = self.deadline(timeout);
        self.set_deadline(found.bucket, found.lane, deadline);
    }

    /// Enter a flow that [`FlowTable::find`] did not find.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        tuple: &Tuple,
        state: u8,
        value: u64,
        timeout: u16,
    ) -> Result<Found, Full> {
        let tag = tag_of(hash);
        let first = self.first(hash);
        let second = self.other(first, tag);
        if self.fresh == self.entries.len() && self.freed == 0 {
            // Perhaps some of them belong to flows that are over: look at a part, further on each time.
            self.sweep((self.mask + 1).div_ceil(SEARCHED));
        }
        let (bucket, lane) = self.room(first, second).ok_or(Full)?;
        let entry = self.take_entry().ok_or(Full)?;
        let [a, b, c, d, e] = tuple.words();
        self.entries[entry] = [a, b, c, d, e | u64::from(state), value];
        let deadline = self.deadline(timeout);
        self.put(bucket, lane, tag, deadline, entry);
        self.created += 1;
        self.active += 1;
        Ok(Found { bucket, lane, entry })
    }

    /// Forget a flow.
    pub(crate) fn remove(&mut self, found: Found) {
        self.put(found.bucket, found.lane, 0, 0, 0);
        if let Some(entry) = self.entries.get_mut(found.entry) {
            entry[0] = self.freed;
            self.freed = found.entry as u64 + 1;
        }
        self.expired += 1;
        self.active -= 1;
    }

    /// Forget what is past its deadline in a part of the table: all of it in `parts` calls.
    pub(crate) fn sweep(&mut self, parts: usize) {
        if self.active == 0 {
            return;
        }
        let buckets = self.mask + 1;
        for _ in 0..buckets.div_ceil(parts.max(1)) {
            self.expire_next();
        }
    }

    fn expire_next(&mut self) {
        let bucket = self.swept & self.mask;
        self.swept = self.swept.wrapping_add(1);
        self.expire(bucket);
    }

    fn clear(&mut self) {
        self.words.fill(0);
        (self.fresh, self.freed) = (0, 0);
        self.expired += self.active;
        self.active = 0;
    }

    fn expire(&mut self, bucket: usize) {
        for lane in 0..LANES {
            if self.tag_at(bucket, lane) != 0 && self.is_past(bucket, lane) {
                let entry = self.entry_of(bucket, lane);
                self.remove(Found { bucket, lane, entry });
            }
        }
    }

    /// A free lane in one of two buckets: in the first when it has one (it is the one that a lookup has asked for ahead of
    /// time), else in the second, after expiry, or after moving others.
    fn room(&mut self, first: usize, second: usize) -> Option<(usize, usize)> {
        let free = |table: &Self| [first, second].into_iter().find(|&bucket| table.free_lanes(bucket) > 0);
        let bucket = match free(self) {
            Some(bucket) => bucket,
            None => {
                self.expire(first);
                self.expire(second);
                match free(self) {
                    Some(bucket) => bucket,
                    None if self.fresh < self.entries.len() || self.freed != 0 => self.make_room(first, second)?,
                    None => return None,
                }
            }
        };
        Some((bucket, self.free_lane(bucket)?))
    }

    /// Search breadth-first for a bucket with a free lane, then move a flow along the way to it, last step first.
    fn make_room(&mut self, first: usize, second: usize) -> Option<usize> {
        // (bucket, the step before, the lane there whose flow moves here)
        let mut steps: Vec<(usize, usize, usize)> = vec![(first, usize::MAX, 0), (second, usize::MAX, 0)];
        let mut next = 0;
        while next < steps.len() && steps.len() < MAX_MOVES {
            let from = steps[next].0;
            for lane in 0..LANES {
                let to = self.other(from, self.tag_at(from, lane));
                if steps.iter().any(|step| step.0 == to) {
                    continue;
                }
                self.expire(to);
                steps.push((to, next, lane));
                if self.free_lanes(to) > 0 {
                    return self.move_along(&steps);
                }
            }
            next += 1;
        }
        None
    }

    fn move_along(&mut self, steps: &[(usize, usize, usize)]) -> Option<usize> {
        let (mut to, mut before, mut lane) = *steps.last()?;
        while before != usize::MAX {
            let (from, earlier, earlier_lane) = *steps.get(before)?;
            let free = self.free_lane(to)?;
            let (tag, entry) = (self.tag_at(from, lane), self.entry_of(from, lane));
            let deadline = self.deadline_at(from, lane);
            self.put(to, free, tag, deadline, entry);
            self.put(from, lane, 0, 0, 0);
            (to, before, lane) = (from, earlier, earlier_lane);
        }
        Some(to)
    }

    fn take_entry(&mut self) -> Option<usize> {
        if let Some(entry) = self.freed.checked_sub(1).and_then(|number| usize::try_from(number).ok()) {
            self.freed = self.entries.get(entry)?[0];
            return Some(entry);
        }
        if self.fresh < self.entries.len() {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        None
    }

    fn first(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    /// The other bucket of a flow. Applied twice it leads back.
    fn other(&self, bucket: usize, tag: u16) -> usize {
        bucket ^ ((mix(u64::from(tag)) as usize | 1) & self.mask)
    }

    fn at(&self, bucket: usize) -> usize {
        self.skip + bucket * BUCKET
    }

    fn bucket(&self, bucket: usize) -> &[u64; BUCKET] {
        const NONE: [u64; BUCKET] = [0; BUCKET];
        let at = self.at(bucket);
        self.words.get(at..).and_then(|words| words.first_chunk()).unwrap_or(&NONE)
    }

    fn lane16(&self, bucket: usize, first: usize, lane: usize) -> u16 {
        (self.bucket(bucket)[first + lane / 4] >> (lane % 4 * 16)) as u16
    }

    fn set_lane16(&mut self, bucket: usize, first: usize, lane: usize, value: u16) {
        let at = self.at(bucket) + first + lane / 4;
        let shift = lane % 4 * 16;
        if let Some(word) = self.words.get_mut(at) {
            *word = *word & !(0xFFFF << shift) | u64::from(value) << shift;
        }
    }

    fn tag_at(&self, bucket: usize, lane: usize) -> u16 {
        self.lane16(bucket, 0, lane)
    }

    fn deadline_at(&self, bucket: usize, lane: usize) -> u16 {
        self.lane16(bucket, 2, lane)
    }

    fn set_deadline(&mut self, bucket: usize, lane: usize, deadline: u16) {
        self.set_lane16(bucket, 2, lane, deadline);
    }

    fn entry_of(&self, bucket: usize, lane: usize) -> usize {
        (self.bucket(bucket)[4 + lane / 2] >> (lane % 2 * 32)) as u32 as usize
    }

    fn put(&mut self, bucket: usize, lane: usize, tag: u16, deadline: u16, entry: usize) {
        self.set_lane16(bucket, 0, lane, tag);
        self.set_deadline(bucket, lane, deadline);
        let at = self.at(bucket) + 4 + lane / 2;
        let shift = lane % 2 * 32;
        if let Some(word) = self.words.get_mut(at) {
            *word = *word & !(0xFFFF_FFFF << shift) | u64::from(entry as u32) << shift;
        }
    }

    fn holds(&self, entry: usize, words: &[u64; 5]) -> bool {
        const TUPLE: u64 = !0x00FF_FFFF;
        let Some(entry) = self.entries.get(entry) else { return false };
        entry[..4] == words[..4] && entry[4] & TUPLE == words[4]
    }

    fn deadline(&self, timeout: u16) -> u16 {
        (self.now as u16).wrapping_add(timeout.min(MAX_TIMEOUT))
    }

    fn is_past(&self, bucket: usize, lane: usize) -> bool {
        (self.now as u16).wrapping_sub(self.deadline_at(bucket, lane)) as i16 >= 0
    }

    fn free_lanes(&self, bucket: usize) -> u32 {
        let [a, b, ..] = self.bucket(bucket);
        (0..LANES).filter(|lane| (if lane / 4 == 0 { a } else { b }) >> (lane % 4 * 16) & 0xFFFF == 0).count() as u32
    }

    fn free_lane(&self, bucket: usize) -> Option<usize> {
        (0..LANES).find(|&lane| self.tag_at(bucket, lane) == 0)
    }
}

/// 16 bits that the bucket's number does not use; never 0, which marks a free lane.
const fn tag_of(hash: u64) -> u16 {
    let tag = (hash >> 48) as u16;
    if tag == 0 {
        1
    } else {
        tag
    }
}

const fn spread(tag: u16) -> u64 {
    tag as u64 * 0x0001_0001_0001_0001
}

/// The high bit of each 16-bit lane that is zero; lanes above a zero one may be marked wrongly.
const fn zero_lanes(word: u64) -> u64 {
    word.wrapping_sub(0x0001_0001_0001_0001) & !word & 0x8000_8000_8000_8000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn tuple(n: u32) -> Tuple {
        Tuple { src: u128::from(n) << 7, dst: 9, src_port: n as u16, dst_port: 80, protocol: 6 }
    }

    fn insert(table: &mut FlowTable, n: u32, value: u64, timeout: u16) -> Result<Found, Full> {
        let hash = table.hash(&tuple(n));
        table.insert(hash, &tuple(n), 1, value, timeout)
    }

    fn value(table: &mut FlowTable, n: u32) -> Option<u64> {
        let hash = table.hash(&tuple(n));
        table.find(hash, &tuple(n)).map(|found| table.value(found))
    }

    #[test]
    fn buckets_are_cache_lines() {
        let table = FlowTable::new(1000, 1);
        assert_eq!(table.words[table.at(0)..].as_ptr() as usize % 64, 0);
        assert!(table.at(table.mask) + BUCKET <= table.words.len());
    }

    #[test]
    fn memory_per_connection_stays_small() {
        for capacity in [65_536, 1 << 20, 14_000_000] {
            let buckets = (capacity + capacity / 9usize).div_ceil(LANES).next_power_of_two();
            assert!(((buckets * BUCKET + capacity * ENTRY) * 8) as f64 / capacity as f64 <= 66.0);
        }
    }

    #[test]
    fn it_fills_to_its_capacity_and_then_says_so() {
        for seed in 0..5 {
            let mut table = FlowTable::new(10_000, seed);
            for n in 0..10_000 {
                assert!(insert(&mut table, n, u64::from(n), 100).is_ok(), "{n}");
            }
            assert_eq!(insert(&mut table, 10_000, 0, 100), Err(Full));
            for n in 0..10_000 {
                assert_eq!(value(&mut table, n), Some(u64::from(n)));
            }
            assert_eq!(table.counters(), crate::FlowCounters { created: 10_000, expired: 0, active: 10_000 });
            table.advance(100);
            assert!(insert(&mut table, 10_000, 7, 100).is_ok(), "what is past its deadline makes room");
        }
    }

    #[test]
    fn a_leap_in_time_ends_every_flow() {
        let mut table = FlowTable::new(100, 1);
        table.advance(1000);
        assert!(insert(&mut table, 1, 1, MAX_TIMEOUT).is_ok());
        table.advance(1000 + 65_536);
        assert_eq!(value(&mut table, 1), None);
        assert_eq!(table.counters().active, 0);
        table.advance(5); // the clock was set back: nothing dies of it
        assert!(insert(&mut table, 1, 2, 10).is_ok());
        assert_eq!(value(&mut table, 1), Some(2));
    }

    /// Otherwise no flow would die until the clock is where it once was, and the table would fill.
    #[test]
    fn a_clock_that_was_set_back_goes_on_from_there() {
        let mut table = FlowTable::new(100, 1);
        table.advance(1_000_000);
        assert!(insert(&mut table, 1, 1, 20).is_ok());
        table.advance(1_000_010);
        table.advance(900_000);
        assert_eq!(value(&mut table, 1), Some(1), "no time has passed");
        assert!(insert(&mut table, 2, 2, 30).is_ok());
        table.advance(900_009);
        assert_eq!(value(&mut table, 1), Some(1));
        table.advance(900_010);
        assert_eq!(value(&mut table, 1), None);
        assert_eq!(value(&mut table, 2), Some(2));
        table.advance(900_030);
        assert_eq!(value(&mut table, 2), None);
    }

    #[test]
    fn the_sweep_frees_what_nobody_asks_for() {
        let mut table = FlowTable::new(1000, 1);
        for n in 0..1000 {
            assert!(insert(&mut table, n, 0, if n % 2 == 0 { 10 } else { 1000 }).is_ok());
        }
        table.advance(10);
        for _ in 0..32 {
            table.sweep(32);
        }
        assert_eq!(table.counters(), crate::FlowCounters { created: 1000, expired: 500, active: 500 });
    }

    /// Two different flows whose hashes agree in bucket and tag: only the tuple tells them apart.
    #[test]
    fn the_whole_tuple_is_compared() {
        let mut table = FlowTable::new(100, 1);
        let hash = 0xABCD_0000_0000_0003;
        for n in 0..16u32 {
            assert!(table.insert(hash, &tuple(n), 1, u64::from(n), 10).is_ok());
        }
        for n in 0..16u32 {
            let found = table.find(hash, &tuple(n)).unwrap();
            assert_eq!(table.value(found), u64::from(n));
        }
        let mut other = tuple(0);
        other.protocol = 17;
        assert_eq!(table.find(hash, &other), None);
        assert_eq!(table.insert(hash, &tuple(16), 1, 0, 10), Err(Full), "both buckets are full, nothing can move");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u16),
        Find(u32),
        Set(u32, u16),
        Remove(u32),
        Advance(u16),
        Sweep,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let n = 0u32..400;
        let step = prop_oneof![
            6 => (n.clone(), 1u16..200).prop_map(|(n, t)| Step::Insert(n, t)),
            4 => n.clone().prop_map(Step::Find),
            2 => (n.clone(), 1u16..200).prop_map(|(n, t)| Step::Set(n, t)),
            1 => n.prop_map(Step::Remove),
            1 => prop_oneof![1u16..30, 1u16..30000].prop_map(Step::Advance),
            1 => Just(Step::Sweep),
        ];
        prop::collection::vec(step, 1..600)
    }

    proptest! {
        #[test]
        fn as_a_plain_map(steps in steps(), seed in any::<u64>(), start in 0u64..200_000) {
            let mut table = FlowTable::new(128, seed);
            let mut oracle: HashMap<u32, (u64, u8, u64)> = HashMap::new();
            let (mut now, mut serial) = (start, 0u64);
            table.advance(now);
            for step in steps {
                serial += 1;
                oracle.retain(|_, (_, _, deadline)| *deadline > now);
                match step {
                    Step::Insert(n, timeout) => {
                        let hash = table.hash(&tuple(n));
                        if table.find(hash, &tuple(n)).is_none() {
                            prop_assert!(!oracle.contains_key(&n));
                            match table.insert(hash, &tuple(n), 3, serial, timeout) {
                                Ok(_) => { oracle.insert(n, (serial, 3, now + u64::from(timeout))); }
                                // Entries that nobody looked at may still hold dead flows; else it must be truly full.
                                Err(Full) => prop_assert!(oracle.len() > 100 || table.counters().active == 128),
                            }
                        } else {
                            prop_assert!(oracle.contains_key(&n));
                        }
                    }
                    Step::Find(n) => {
                        let hash = table.hash(&tuple(n));
                        let found = table.find(hash, &tuple(n)).map(|f| (table.value(f), table.state(f)));
                        prop_assert_eq!(found, oracle.get(&n).map(|(value, state, _)| (*value, *state)));
                    }
                    Step::Set(n, timeout) => {
                        let hash = table.hash(&tuple(n));
                        if let Some(found) = table.find(hash, &tuple(n)) {
                            table.set(found, 4, serial, timeout);
                            oracle.insert(n, (serial, 4, now + u64::from(timeout)));
                        }
                    }
                    Step::Remove(n) => {
                        let hash = table.hash(&tuple(n));
                        if let Some(found) = table.find(hash, &tuple(n)) {
                            table.remove(found);
                        }
                        oracle.remove(&n);
                    }
                    Step::Advance(seconds) => {
                        now += u64::from(seconds);
                        table.advance(now);
                    }
                    Step::Sweep => table.sweep(1),
                }
                let flows = table.counters();
                prop_assert_eq!(flows.created, flows.expired + flows.active);
            }
            table.sweep(1);
            oracle.retain(|_, (_, _, deadline)| *deadline > now);
            prop_assert_eq!(table.counters().active, oracle.len() as u64);
        }
    }
}
