//! Flows of IPv6, whose tuples are too long to lie in a bucket.
//!
//! A bucket is one cache line: eight 16-bit tags, eight 16-bit deadlines, eight 32-bit entry numbers. A lookup reads the
//! bucket, and an entry only where a tag agrees; then the whole tuple is compared. A connection has two buckets, and the
//! second follows from the first and the tag, so that entries can be moved without hashing them again (cuckoo hashing with
//! partial keys).

use super::clock::{Clock, Due};
use super::Full;
use crate::connection;
use crate::hash::{mix, Tuple};
use crate::memory::{Memory, Zeroed};
use crate::prefetch::prefetch;

const LANES: usize = 8;
/// Words of a bucket: two of tags, two of deadlines, four of entry numbers.
const BUCKET: usize = 8;
/// Words of an entry: five of the tuple (24 bits of the last hold the state), one of value.
const ENTRY: usize = 6;
const STATE_MASK: u64 = 0xFF;
/// An insertion moves at most so many others.
const MAX_MOVES: usize = 128;
/// Buckets that an insertion looks through for dead flows when all entries are taken.
const SEARCHED: usize = 16;
/// Where a flow was found. Good until the next insertion, removal or sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    bucket: usize,
    lane: usize,
    entry: usize,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket([u64; BUCKET]);

// SAFETY: integers.
unsafe impl Zeroed for Bucket {}

#[derive(Clone, Copy)]
struct Entry([u64; ENTRY]);

// SAFETY: integers.
unsafe impl Zeroed for Entry {}

/// The table.
pub(crate) struct Wide {
    buckets: Memory<Bucket>,
    mask: usize,
    entries: Memory<Entry>,
    /// Entries from here on were never used.
    fresh: usize,
    /// First of the freed entries, each of which names the next; number + 1, 0 for none.
    freed: u64,
    seed: u64,
    clock: Clock,
    created: u64,
    expired: u64,
    active: u64,
}

impl Wide {
    /// A table for `capacity` connections (at least 8, at most 2^31).
    pub(crate) fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(LANES, 1 << 31);
        // At most nine tenths full: two choices of eight lanes carry that without long chains of moves.
        let buckets = (capacity + capacity / 9).div_ceil(LANES).next_power_of_two().max(2);
        Self {
            buckets: Memory::new(buckets),
            mask: buckets - 1,
            entries: Memory::new(capacity),
            fresh: 0,
            freed: 0,
            seed: mix(seed),
            clock: Clock::default(),
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
        if let Some(bucket) = self.buckets.get(self.first(hash)) {
            prefetch(bucket);
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
            if let Some(Entry(entry)) = self.entries.get(self.entry_of(first, lane)) {
                // An entry may lie across two cache lines.
                prefetch(&entry[0]);
                prefetch(&entry[entry.len() - 1]);
            }
            return;
        }
        if let Some(bucket) = self.buckets.get(self.other(first, tag)) {
            prefetch(bucket);
        }
    }

    pub(crate) fn counters(&self) -> crate::FlowCounters {
        crate::FlowCounters { created: self.created, expired: self.expired, active: self.active }
    }

    /// As `FlowTable::advance`.
    pub(super) fn advance(&mut self, now: u64) {
        match self.clock.advance(now, self.mask + 1) {
            _ if self.active == 0 => {}
            Due::Clear => self.clear(),
            Due::Visit(buckets) => (0..buckets).for_each(|_| self.expire_next()),
        }
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
        self.entries.get(found.entry).map_or(0, |entry| (entry.0[4] & STATE_MASK) as u8)
    }

    /// Value of a flow.
    pub(crate) fn value(&self, found: Found) -> u32 {
        self.entries.get(found.entry).map_or(0, |entry| entry.0[5] as u32)
    }

    /// Another state and value; it stays `timeout` [s] from now.
    pub(crate) fn set(&mut self, found: Found, state: u8, value: u32, timeout: u16) {
        if let Some(Entry(entry)) = self.entries.get_mut(found.entry) {
            entry[4] = entry[4] & !STATE_MASK | u64::from(state);
            entry[5] = u64::from(value);
        }
        let deadline = self.clock.deadline(timeout);
        self.set_deadline(found.bucket, found.lane, deadline);
    }

    /// Enter a flow that [`FlowTable::find`] did not find.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        tuple: &Tuple,
        state: u8,
        value: u32,
        timeout: u16,
    ) -> Result<Found, Full> {
        let tag = tag_of(hash);
        let first = self.first(hash);
        let second = self.other(first, tag);
        if self.fresh == self.entries.len() && self.freed == 0 {
            // Perhaps some of them belong to flows that are over: look at a few, as in `narrow`.
            (0..SEARCHED.min(self.mask + 1)).for_each(|_| self.expire_next());
            self.expire(first);
            self.expire(second);
        }
        if self.fresh == self.entries.len() && self.freed == 0 {
            // A lane is of no use without an entry: then too a half-open flow gives up its own, if one is near.
            let mask = self.mask;
            let near = (0..SEARCHED).map(|step| (first + step) & mask);
            [second].into_iter().chain(near).find_map(|bucket| self.evict(bucket)).ok_or(Full)?;
        }
        let room = self.room(first, second).or_else(|| self.evict(first)).or_else(|| self.evict(second));
        let (bucket, lane) = room.ok_or(Full)?;
        let entry = self.take_entry().ok_or(Full)?;
        let [a, b, c, d, e] = tuple.words();
        if let Some(place) = self.entries.get_mut(entry) {
            *place = Entry([a, b, c, d, e | u64::from(state), u64::from(value)]);
        }
        let deadline = self.clock.deadline(timeout);
        self.put(bucket, lane, tag, deadline, entry);
        self.created += 1;
        self.active += 1;
        Ok(Found { bucket, lane, entry })
    }

    /// Forget a flow.
    pub(crate) fn remove(&mut self, found: Found) {
        self.put(found.bucket, found.lane, 0, 0, 0);
        if let Some(Entry(entry)) = self.entries.get_mut(found.entry) {
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
        let bucket = self.clock.next(self.mask + 1);
        self.expire(bucket);
    }

    fn clear(&mut self) {
        self.buckets.clear();
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
                    None => self.make_room(first, second)?,
                }
            }
        };
        Some((bucket, self.free_lane(bucket)?))
    }

    /// Search breadth-first for a bucket with a free lane, then move a flow along the way to it, last step first.
    fn make_room(&mut self, first: usize, second: usize) -> Option<usize> {
        // (bucket, the step before, the lane there whose flow moves here)
        let mut steps = [(0, usize::MAX, 0); MAX_MOVES];
        (steps[0].0, steps[1].0) = (first, second);
        let (mut next, mut count) = (0, 2);
        while next < count {
            let from = steps[next].0;
            for lane in 0..LANES {
                let to = self.other(from, self.tag_at(from, lane));
                if steps[..count].iter().any(|step| step.0 == to) {
                    continue;
                }
                if count == MAX_MOVES {
                    return None;
                }
                self.expire(to);
                steps[count] = (to, next, lane);
                count += 1;
                if self.free_lanes(to) > 0 {
                    return self.move_along(&steps[..count]);
                }
            }
            next += 1;
        }
        None
    }

    /// Make room by forgetting a half-open flow of a bucket.
    fn evict(&mut self, bucket: usize) -> Option<(usize, usize)> {
        for lane in 0..LANES {
            let found = Found { bucket, lane, entry: self.entry_of(bucket, lane) };
            if self.tag_at(bucket, lane) != 0 && connection::is_evictable(self.state(found)) {
                self.remove(found);
                return Some((bucket, lane));
            }
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
            self.freed = self.entries.get(entry)?.0[0];
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

    fn bucket(&self, bucket: usize) -> &[u64; BUCKET] {
        const NONE: [u64; BUCKET] = [0; BUCKET];
        self.buckets.get(bucket).map_or(&NONE, |bucket| &bucket.0)
    }

    fn word_mut(&mut self, bucket: usize, word: usize) -> Option<&mut u64> {
        self.buckets.get_mut(bucket)?.0.get_mut(word)
    }

    fn lane16(&self, bucket: usize, first: usize, lane: usize) -> u16 {
        (self.bucket(bucket)[first + lane / 4] >> (lane % 4 * 16)) as u16
    }

    fn set_lane16(&mut self, bucket: usize, first: usize, lane: usize, value: u16) {
        let shift = lane % 4 * 16;
        if let Some(word) = self.word_mut(bucket, first + lane / 4) {
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
        let shift = lane % 2 * 32;
        if let Some(word) = self.word_mut(bucket, 4 + lane / 2) {
            *word = *word & !(0xFFFF_FFFF << shift) | u64::from(entry as u32) << shift;
        }
    }

    fn holds(&self, entry: usize, words: &[u64; 5]) -> bool {
        const TUPLE: u64 = !0x00FF_FFFF;
        let Some(Entry(entry)) = self.entries.get(entry) else { return false };
        entry[..4] == words[..4] && entry[4] & TUPLE == words[4]
    }

    fn is_past(&self, bucket: usize, lane: usize) -> bool {
        self.clock.is_past(self.deadline_at(bucket, lane))
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

    fn tuple(n: u32) -> Tuple {
        Tuple { src: u128::from(n) << 7, dst: 9, src_port: n as u16, dst_port: 80, protocol: 6 }
    }

    fn insert(table: &mut Wide, n: u32) -> Result<Found, Full> {
        let hash = table.hash(&tuple(n));
        table.insert(hash, &tuple(n), 2, n, 100)
    }

    fn value(table: &mut Wide, n: u32) -> Option<u32> {
        let hash = table.hash(&tuple(n));
        table.find(hash, &tuple(n)).map(|found| table.value(found))
    }

    #[test]
    fn it_fills_to_its_capacity_and_then_says_so() {
        for seed in 0..5 {
            let mut table = Wide::new(10_000, seed);
            for n in 0..10_000 {
                assert!(insert(&mut table, n).is_ok(), "{n}");
            }
            assert_eq!(insert(&mut table, 10_000), Err(Full));
            assert!((0..10_000).all(|n| value(&mut table, n) == Some(n)));
            assert_eq!(table.counters(), crate::FlowCounters { created: 10_000, expired: 0, active: 10_000 });
            table.advance(100);
            assert!(insert(&mut table, 10_000).is_ok(), "what is past its deadline makes room");
        }
    }

    /// Two different flows whose hashes agree in bucket and tag: only the tuple tells them apart.
    #[test]
    fn the_whole_tuple_is_compared() {
        let mut table = Wide::new(100, 1);
        let hash = 0xABCD_0000_0000_0003;
        for n in 0..16u32 {
            assert!(table.insert(hash, &tuple(n), 2, n, 10).is_ok());
        }
        for n in 0..16u32 {
            let found = table.find(hash, &tuple(n)).unwrap();
            assert_eq!(table.value(found), n);
        }
        let mut other = tuple(0);
        other.protocol = 17;
        assert_eq!(table.find(hash, &other), None);
        assert_eq!(table.insert(hash, &tuple(16), 2, 0, 10), Err(Full), "both buckets are full, nothing can move");
    }

    #[test]
    fn a_half_open_flow_gives_up_its_entry_too() {
        let half_open = connection::next(0, 6, 2, connection::Sender::Client);
        let mut table = Wide::new(1000, 1);
        for n in 0..5000 {
            let hash = table.hash(&tuple(n));
            assert!(table.insert(hash, &tuple(n), half_open, n, 100).is_ok(), "{n}");
            assert_eq!(value(&mut table, n), Some(n));
        }
        assert_eq!(table.counters(), crate::FlowCounters { created: 5000, expired: 4000, active: 1000 });
    }

    #[test]
    fn a_half_open_flow_makes_room() {
        let mut table = Wide::new(100, 1);
        let hash = 0xABCD_0000_0000_0003;
        let half_open = connection::next(0, 6, 2, connection::Sender::Client);
        for n in 0..16u32 {
            assert!(table.insert(hash, &tuple(n), if n == 7 { half_open } else { 2 }, n, 10).is_ok());
        }
        assert!(table.insert(hash, &tuple(16), 2, 16, 10).is_ok());
        assert!(table.find(hash, &tuple(7)).is_none());
        assert_eq!(table.counters().active, 16);
    }
}
